//! What a run computes, prints and writes.

use half::{bf16, f16};
use iris_testkit::{Number, Operand, Reference, Tensor, Tolerance, compare, random};
use safetensors::Dtype;
use serde_json::Value;

use crate::common::{Files, Ran, iris, read_c, run, split};

const OPERATIONS: [&str; 4] = [
    "matmul-all-reduce",
    "matmul-reduce-scatter",
    "all-gather-matmul",
    "matmul-all-gather",
];
const RUN_KEYS: [&str; 14] = [
    "op",
    "backend",
    "variant",
    "ranks",
    "m",
    "n",
    "k",
    "k_per_rank",
    "dtype",
    "calls",
    "rel_err",
    "max_abs_err",
    "verified",
    "us_per_call",
];
const BENCH_KEYS: [&str; 15] = [
    "op",
    "backend",
    "variant",
    "ranks",
    "m",
    "n",
    "k",
    "k_per_rank",
    "dtype",
    "us",
    "us_product",
    "us_collective",
    "us_unfused",
    "speedup",
    "over_limit",
];

/// The keys of a JSON object in the order in which they stand.
fn keys(line: &str) -> Vec<String> {
    let mut rest = line.trim().strip_prefix('{').unwrap();
    let mut keys = Vec::new();
    while let Some((key, more)) = rest
        .strip_prefix('"')
        .and_then(|rest| rest.split_once("\":"))
    {
        keys.push(key.to_owned());
        rest = more.split_once(',').map_or("", |(_, more)| more);
    }
    keys
}

#[test]
fn json_is_one_object_with_its_keys_in_order() {
    let ran = run(&split(
        "run matmul_all_reduce --ranks 3 --m 20 --n 30 --k 40 --calls 2 --json",
    ));
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(keys(&ran.stdout), RUN_KEYS);
    let json = ran.json();
    let expected = [
        ("op", Value::from("matmul_all_reduce")),
        ("backend", "host".into()),
        ("ranks", 3.into()),
        ("m", 20.into()),
        ("n", 30.into()),
        ("k", 40.into()),
        ("k_per_rank", 14.into()),
        ("dtype", "f32".into()),
        ("calls", 2.into()),
        ("verified", true.into()),
    ];
    for (key, value) in expected {
        assert_eq!(json[key], value, "{key}");
    }
    assert_ne!(json["variant"], "auto");
    assert!(json["us_per_call"].as_f64().unwrap() > 0.0);
    let error = json["rel_err"].as_f64().unwrap();
    assert!(error > 0.0 && error < 1e-5, "{error}");
}

#[test]
fn text_says_what_was_done() {
    let ran = run(&split("run all-gather-matmul --m 5 --n 6 --k 7"));
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    for part in [
        "all_gather_matmul on 2 ranks (threads",
        "C (5 x 6) = A (5 x 7) B (7 x 6) in f32",
        "verified",
    ] {
        assert!(ran.stdout.contains(part), "{}", ran.stdout);
    }
}

/// A problem in a file, with what `--out` must hold.
struct Checkpoint<T> {
    files: Files,
    shape: [usize; 3],
    x: Vec<T>,
    weight: Vec<T>,
    bias: Vec<T>,
    dtype: Dtype,
}

impl<T: Number> Checkpoint<T> {
    /// `x` (m, k), a stored weight (n, k) and a bias (n).
    fn new(shape: [usize; 3], dtype: Dtype) -> Self {
        let [m, n, k] = shape;
        let files = Files::new();
        let draw = |tensor, len| random::uniform::<T>(4, 0, 0, tensor, len);
        let checkpoint = Self {
            files,
            shape,
            x: draw(Tensor::A, m * k),
            weight: draw(Tensor::B, n * k),
            bias: draw(Tensor::Bias, n),
            dtype,
        };
        let narrow = |values: &[T]| -> Vec<f32> {
            values.iter().map(|value| value.to_f64() as f32).collect()
        };
        let Self {
            x, weight, bias, ..
        } = &checkpoint;
        checkpoint
            .files
            .write("x.safetensors", &[("x", dtype, &[m, k], &narrow(x))]);
        checkpoint.files.write(
            "model.safetensors",
            &[
                ("layer.0.weight", dtype, &[n, k], &narrow(weight)),
                ("layer.0.bias", dtype, &[n], &narrow(bias)),
                ("other", Dtype::I8, &[3], &[1.0, 2.0, 3.0]),
            ],
        );
        checkpoint
    }

    fn arguments(&self, operation: &str, more: &str) -> Vec<String> {
        let mut arguments: Vec<String> = vec![
            "run".into(),
            operation.into(),
            "--transpose-b".into(),
            "--json".into(),
        ];
        for (name, value) in [
            ("--a", self.files.source("x.safetensors", "x")),
            (
                "--b",
                self.files.source("model.safetensors", "layer.0.weight"),
            ),
            (
                "--bias",
                self.files.source("model.safetensors", "layer.0.bias"),
            ),
            (
                "--out",
                self.files.path("y.safetensors").display().to_string(),
            ),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        arguments.extend(more.split_whitespace().map(String::from));
        arguments
    }

    /// Runs it and looks at everything that it leaves.
    fn check(&self, operation: &str, more: &str) {
        let [m, n, k] = self.shape;
        let arguments = self.arguments(operation, more);
        let ran = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(
            (ran.status, ran.stderr.as_str()),
            (Some(0), ""),
            "{arguments:?} {ran:?}"
        );
        assert_eq!(ran.json()["verified"], true);
        assert_eq!(
            self.files.names(),
            ["model.safetensors", "x.safetensors", "y.safetensors"]
        );
        let (dtype, shape, values) = read_c(&self.files.path("y.safetensors"));
        assert_eq!((dtype, shape), (self.dtype, vec![m, n]));
        let reference = Reference::product(
            Operand::row_major(&self.x, m, k).unwrap(),
            Operand::row_major(&self.weight, n, k).unwrap().transposed(),
            Some(&self.bias),
        )
        .unwrap();
        let values: Vec<T> = values
            .into_iter()
            .map(|value| T::from_f64(value.into()))
            .collect();
        let comparison = compare(&values, &reference, &Tolerance::of::<T>(k, 8)).unwrap();
        assert!(comparison.ok, "{arguments:?} {comparison:?}");
        std::fs::remove_file(self.files.path("y.safetensors")).unwrap();
    }
}

#[test]
fn a_checkpoints_layer_comes_out_right() {
    let checkpoint = Checkpoint::<f32>::new([7, 33, 50], Dtype::F32);
    for operation in OPERATIONS {
        for place in [
            "--ranks 3",
            "--ranks 3 --processes",
            "--ranks 8",
            "--ranks 1",
        ] {
            checkpoint.check(operation, &format!("{place} --calls 5"));
        }
    }
    checkpoint.check("all-gather-matmul", "--ranks 3 --calls 5 --gather columns");
}

#[test]
fn half_precision_comes_out_right() {
    let f16s = Checkpoint::<f16>::new([5, 17, 64], Dtype::F16);
    let bf16s = Checkpoint::<bf16>::new([5, 17, 64], Dtype::BF16);
    for operation in OPERATIONS {
        f16s.check(operation, "--ranks 2 --calls 3");
        bf16s.check(operation, "--ranks 2 --calls 3 --processes");
    }
}

#[test]
fn every_variant_comes_out_right_across_the_counters_wrap() {
    let checkpoint = Checkpoint::<f32>::new([40, 24, 30], Dtype::F32);
    for variant in ["one_shot", "two-shot", "atomic", "spinlock", "auto"] {
        checkpoint.check(
            "matmul-all-reduce",
            &format!("--variant {variant} --ranks 3 --tile 8x8 --calls 9 --first-call 2147483644"),
        );
    }
}

#[test]
fn what_is_not_verified_is_a_failure_and_is_not_written() {
    let files = Files::new();
    files.write(
        "t.safetensors",
        &[("x", Dtype::F32, &[2, 2], &[1.0, f32::NAN, 2.0, 3.0])],
    );
    let (source, out) = (
        files.source("t.safetensors", "x"),
        files.path("y.safetensors"),
    );
    let out = out.to_str().unwrap();
    let ran = run(&[
        "run",
        "matmul-all-reduce",
        "--a",
        &source,
        "--b",
        &source,
        "--out",
        out,
        "--json",
    ]);
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let json = ran.json();
    assert_eq!(
        (&json["verified"], &json["rel_err"]),
        (&Value::from(false), &Value::Null)
    );
    assert!(
        ran.stderr.contains("not verified: call 0, rank 0: "),
        "{}",
        ran.stderr
    );
    assert_eq!(files.names(), ["t.safetensors"]);
}

#[test]
fn bench_prints_one_object_a_line_or_a_table() {
    let small = "--m 33 --n 20 --k 24 --pairs 2 --ranks 3";
    for (operation, lines) in OPERATIONS.into_iter().zip([4, 1, 1, 1]) {
        let ran = run(&split(&format!("bench {operation} {small} --json")));
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        assert_eq!(ran.stdout.lines().count(), lines);
        for line in ran.stdout.lines() {
            let gathers = operation == "all-gather-matmul";
            let expected = [&BENCH_KEYS[..], if gathers { &["gather"] } else { &[] }].concat();
            assert_eq!(keys(line), expected);
            let row: Value = serde_json::from_str(line).unwrap();
            let number = |key: &str| row[key].as_f64().unwrap();
            assert_eq!(row["op"], operation.replace('-', "_"));
            for key in ["us", "us_product", "us_collective", "us_unfused"] {
                assert!(number(key) > 0.0, "{key} {line}");
            }
            let limit = number("us_product").max(number("us_collective"));
            assert!((number("over_limit") / (number("us") / limit) - 1.0).abs() < 1e-9);
            assert!((number("speedup") / (number("us_unfused") / number("us")) - 1.0).abs() < 1e-9);
        }
    }
    let ran = run(&split(&format!(
        "bench all-gather-matmul --gather columns --dtype bf16 --processes {small}"
    )));
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(
        ran.stdout.contains("| variant |") && ran.stdout.contains("over limit"),
        "{}",
        ran.stdout
    );
    let ran = run(&split(&format!(
        "bench matmul-all-reduce --variant spinlock {small}"
    )));
    assert!(
        ran.stdout.contains("spinlock") && !ran.stdout.contains("atomic"),
        "{}",
        ran.stdout
    );
}

#[test]
fn doctor_finds_this_machine_well() {
    let ran = run(&["doctor", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let report = ran.json();
    assert_eq!(report["ok"], true);
    assert_eq!(report["backends"][0]["name"], "host");
    assert_eq!(report["launcher"], Value::Null);
    assert!(report["machine"]["cores"].as_u64().unwrap() >= 1);
    assert_eq!(report["checks"].as_array().unwrap().len(), 7);
    let ran = run(&["doctor"]);
    assert_eq!(ran.status, Some(0));
    assert!(ran.stdout.contains("all is well"), "{}", ran.stdout);
}

#[test]
fn doctor_finds_a_cache_that_cannot_be_used() {
    let files = Files::new();
    std::fs::write(files.path("file"), "").unwrap();
    let [file, good] = ["file", "good"].map(|name| files.path(name).display().to_string());
    for (directory, bytes, well) in [
        (file.as_str(), "1MiB", false),
        (&good, "abc", false),
        (&good, "1MiB", true),
        ("", "1MiB", true),
    ] {
        let mut command = iris(&["doctor", "--json"]);
        command
            .env("IRIS_CACHE_DIR", directory)
            .env("IRIS_CACHE_BYTES", bytes);
        let ran = Ran::from(command.output().unwrap());
        let report = ran.json();
        let checks = report["checks"].as_array().unwrap();
        let of_cache = |check: &&Value| check["name"] == "cache of kernels";
        let check = checks.iter().find(of_cache).unwrap();
        assert_eq!(
            (&check["ok"], &report["ok"], ran.status),
            (&well.into(), &well.into(), Some(i32::from(!well))),
            "{directory} {bytes}: {check}"
        );
        let named = [directory, bytes].iter().any(|it| {
            let detail = check["detail"].as_str().unwrap();
            !it.is_empty() && detail.contains(it)
        });
        assert!(named || directory.is_empty(), "{check}");
    }
}
