//! `iris bench` and `iris doctor` on GPUs, over libraries made for the purpose by this machine's C compiler, which compute on the host.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use iris_testkit::skipped;
use serde_json::Value;

use crate::common::{Files, Ran, iris, split};

/// The stand-in for the CUDA driver, NVRTC, cuBLASLt and NCCL; none where there is no C compiler.
fn stand_in() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        if Command::new(&compiler).arg("--version").output().is_err() {
            skipped("gpu", "there is no C compiler");
            return None;
        }
        const SOURCE: &str = include_str!("stand_in/gpu.c");
        let mut digest = std::hash::DefaultHasher::new();
        SOURCE.hash(&mut digest);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = directory.join(format!("libstandin-{:x}.so", digest.finish()));
        if library.exists() {
            return Some(library);
        }
        // Test processes build it at the same time, each for itself, and the first stays: others may have it loaded.
        let own = directory.join(format!("libstandin-{}.so", std::process::id()));
        let output = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O1", "-pthread", "-w", "-o"])
            .arg(&own)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/stand_in/gpu.c"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let linked = std::fs::hard_link(&own, &library);
        assert!(linked.is_ok() || library.exists(), "{linked:?}");
        std::fs::remove_file(own).unwrap();
        Some(library)
    });
    built.as_deref()
}

/// Runs the command where all libraries are the stand-in, with so many devices, and a call of that name gives wrong results.
fn run(arguments: &str, devices: usize, wrong: &str) -> Option<Ran> {
    let mut command = command(arguments, devices)?;
    Some(
        command
            .env("STAND_IN_WRONG", wrong)
            .output()
            .unwrap()
            .into(),
    )
}

fn command(arguments: &str, devices: usize) -> Option<Command> {
    let library = stand_in()?;
    let mut command = iris(&split(arguments));
    for name in ["CUDA", "NVRTC", "CUBLASLT", "NCCL"] {
        command.env(format!("IRIS_{name}_LIBRARY"), library);
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stand-in-cache");
    command
        .env("IRIS_CACHE_DIR", cache)
        .env("STAND_IN_DEVICES", devices.to_string());
    Some(command)
}

fn rows(ran: &Ran) -> Vec<Value> {
    let lines = ran.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_vendors_libraries_are_measured_and_checked_on_every_operation() {
    for (operation, dtype) in [
        ("matmul-all-reduce", "f32"),
        ("matmul-reduce-scatter", "bf16"),
        ("all-gather-matmul", "bf16"),
        ("all-gather-matmul --gather columns", "f32"),
        ("matmul-all-gather", "bf16"),
    ] {
        let arguments = format!(
            "bench {operation} --backend cuda --vendor-only --dtype {dtype} --m 1,5 --n 12 --k 2,14 --pairs 2 --json"
        );
        let Some(ran) = run(&arguments, 3, "") else {
            return;
        };
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        let rows = rows(&ran);
        assert_eq!(rows.len(), 4);
        for row in rows {
            let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"));
            assert_eq!(
                (&row["backend"], &row["variant"], &row["ranks"]),
                (&"cuda".into(), &"vendor".into(), &3.into())
            );
            assert_eq!(
                (&row["device"], &row["multicast"]),
                (&"Stand-in".into(), &"off".into())
            );
            assert_eq!((&row["us"], &row["speedup"]), (&Value::Null, &Value::Null));
            for key in [
                "us_product",
                "us_nccl",
                "us_nccl_window",
                "us_sequence",
                "read_gbps",
            ] {
                assert!(number(key) > 0.0, "{key}: {row}");
            }
            assert_eq!(number("us_unfused"), number("us_sequence"));
            assert_eq!(
                number("us_collective"),
                number("us_nccl").min(number("us_nccl_window"))
            );
        }
    }
}

#[test]
fn nothing_wrong_is_measured() {
    for operation in [
        "matmul-all-reduce",
        "matmul-reduce-scatter",
        "all-gather-matmul",
        "matmul-all-gather",
    ] {
        for wrong in ["product", "collective"] {
            let arguments = format!(
                "bench {operation} --backend cuda --vendor-only --m 5 --n 12 --k 14 --pairs 1"
            );
            let Some(ran) = run(&arguments, 2, wrong) else {
                return;
            };
            assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
            assert!(
                ran.stderr.contains("nothing of this measurement counts"),
                "{ran:?}"
            );
        }
    }
}

#[test]
fn ours_is_measured_beside_the_vendors_and_checked() {
    for (operation, variant, asked) in [
        ("matmul-all-reduce --variant two_shot", "two_shot", None),
        ("matmul-all-reduce", "one_shot", Some("auto")),
        ("matmul-reduce-scatter", "auto", None),
        ("all-gather-matmul", "auto", None),
        ("all-gather-matmul --gather columns", "auto", None),
        ("matmul-all-gather", "auto", None),
    ] {
        let arguments =
            format!("bench {operation} --dtype bf16 --m 1,5 --n 12 --k 14 --pairs 2 --json");
        let Some(mut command) = command(&arguments, 3) else {
            return;
        };
        command.env("STAND_IN_OPERATIONS", "1");
        let ran = Ran::from(command.output().unwrap());
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        let rows = rows(&ran);
        assert_eq!(rows.len(), 2);
        for row in rows {
            let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"));
            assert_eq!(
                (&row["backend"], &row["variant"]),
                (&"cuda".into(), &variant.into())
            );
            assert_eq!(row.get("asked").and_then(Value::as_str), asked);
            let speedup = number("us_sequence") / number("us");
            assert!((number("speedup") / speedup - 1.0).abs() < 1e-9, "{row}");
            let limit = number("us_product").max(number("us_collective"));
            assert!(
                (number("over_limit") / (number("us") / limit) - 1.0).abs() < 1e-9,
                "{row}"
            );
            assert!(
                number("us_collective") <= number("us_collective_ours"),
                "{row}"
            );
            // With one row, some ranks have no rows to multiply, and then it is measured on none.
            let multiplies = !operation.starts_with("matmul-all-gather") || row["m"] != 1;
            assert_eq!(row["us_product_ours"].is_number(), multiplies, "{row}");
        }
        for wrong in ["fused", "exchange", "matmul"] {
            command.env("STAND_IN_WRONG", wrong);
            let ran = Ran::from(command.output().unwrap());
            assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
            let what = match wrong {
                "fused" => "the fused operation",
                "exchange" => "our collective",
                _ => "our product",
            };
            assert!(
                ran.stderr
                    .contains(&format!("{what}: operands 0: the result at row ")),
                "{ran:?}"
            );
        }
    }
}

#[test]
fn tuning_keeps_the_fastest_way_and_operations_go_by_it() {
    let files = Files::new();
    let table = files.path("tuning.jsonl");
    let tune = |more: &str, wrong: &str| {
        let arguments = format!(
            "tune matmul-all-reduce matmul-reduce-scatter all-gather-matmul --dtype bf16 --m 1,5 --n 12 --k 14 --pairs 1 --json --out {} {more}",
            table.display()
        );
        let mut command = command(&arguments, 2)?;
        command
            .env("STAND_IN_OPERATIONS", "1")
            .env("STAND_IN_WRONG", wrong)
            // Nothing of the vendor's is needed.
            .env("IRIS_CUBLASLT_LIBRARY", "/nowhere/libcublasLt.so")
            .env("IRIS_NCCL_LIBRARY", "/nowhere/libnccl.so");
        Some(Ran::from(command.output().unwrap()))
    };
    let Some(wrong) = tune("", "fused") else {
        return;
    };
    assert_eq!(
        (wrong.status, wrong.stdout.as_str()),
        (Some(1), ""),
        "{wrong:?}"
    );
    assert!(
        wrong.stderr.contains("nothing of this measurement counts") && !table.exists(),
        "{wrong:?}"
    );
    let ran = tune("", "").unwrap();
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let found = rows(&ran);
    assert_eq!(found.len(), 6);
    for row in &found {
        assert_eq!(
            (&row["device"], &row["compiler"], &row["ranks"]),
            (&"Stand-in".into(), &"NVRTC 13.0".into(), &2.into())
        );
        assert!(row["us"].as_f64().unwrap() > 0.0, "{row}");
        let variants: &[&str] = match row["op"].as_str() {
            Some("matmul_all_reduce") => &["one_shot", "two_shot"],
            _ => &["auto"],
        };
        assert!(
            variants.contains(&row["variant"].as_str().unwrap()),
            "{row}"
        );
    }
    // All is there, so that nothing can be wrong.
    let again = tune("", "fused").unwrap();
    assert_eq!(
        (again.status, again.stdout.as_str()),
        (Some(0), ""),
        "{again:?}"
    );
    // By itself the operation is one-shot here: see above.
    let two_shot = std::fs::read_to_string(&table)
        .unwrap()
        .replace(
            "\"one_shot\",\"packets\":true",
            "\"two_shot\",\"packets\":false",
        )
        .replace("one_shot", "two_shot");
    std::fs::write(&table, two_shot).unwrap();
    for (more, variant) in [("", "two_shot"), (" --no-tuning", "one_shot")] {
        let arguments = format!(
            "bench matmul-all-reduce --dtype bf16 --m 1,5 --n 12 --k 14 --pairs 1 --json{more}"
        );
        let mut command = command(&arguments, 2).unwrap();
        command
            .env("STAND_IN_OPERATIONS", "1")
            .env("IRIS_TUNING", &table);
        let ran = Ran::from(command.output().unwrap());
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        for row in rows(&ran) {
            assert_eq!(row["variant"], variant, "{row}");
        }
    }
}

#[test]
fn a_sweep_goes_on_where_it_was() {
    let files = Files::new();
    let results = files.path("results.jsonl");
    let sweep = |m: &str| {
        format!(
            "bench matmul-all-reduce --backend cuda --vendor-only --per-rank --m {m} --n 12 --k 7 --pairs 1 --json --resume {}",
            results.display()
        )
    };
    let Some(first) = run(&sweep("1,2"), 2, "") else {
        return;
    };
    // Were the first two measured again they would now be wrong.
    let second = run(&sweep("2,1"), 2, "product").unwrap();
    assert_eq!(
        (first.status, second.status),
        (Some(0), Some(0)),
        "{second:?}"
    );
    let [first, second] = [first, second].map(|ran| rows(&ran));
    assert_eq!(first, [second[1].clone(), second[0].clone()]);
    assert_eq!(first[0]["k"], 14);
    let third = run(&sweep("1,3"), 2, "product").unwrap();
    assert_eq!(third.status, Some(1), "{third:?}");
    // On another number of ranks it is another point.
    let other = run(&sweep("1"), 3, "").unwrap();
    assert_eq!(rows(&other)[0]["ranks"], 3);
    let kept = std::fs::read_to_string(&results).unwrap();
    assert_eq!(kept.lines().count(), 3);
}

#[test]
fn fewer_gpus_than_ranks_are_refused() {
    let arguments = "bench matmul-all-reduce --backend cuda --vendor-only --ranks 3";
    let Some(ran) = run(arguments, 2, "") else {
        return;
    };
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
    assert!(
        ran.stderr.contains("3 ranks") && ran.stderr.contains("2 are visible"),
        "{ran:?}"
    );
}

/// The lines of stderr that say why the host computes.
fn said_of_host(ran: &Ran) -> Vec<&str> {
    let lines = ran.stderr.lines();
    let lines = lines.filter_map(|line| line.strip_prefix("iris: computing on the host: "));
    lines.collect()
}

#[test]
fn the_host_that_computes_where_gpus_may_be_wanted_says_why_once() {
    const SIZES: &str = "matmul-all-reduce --m 4 --n 4 --k 4 --json";
    let files = Files::new();
    let tune = format!(
        "tune {SIZES} --pairs 1 --out {}",
        files.path("t.jsonl").display()
    );
    let bench = format!("bench {SIZES} --pairs 1");
    let run = format!("run {SIZES}");
    let few = "1 GPU for 3 ranks";
    let hint = " (--share-devices lets them share it)";
    for (command_line, devices, says) in [
        (&run, 1, vec![format!("{few}{hint}")]),
        (
            &run,
            2,
            vec!["2 GPUs for 3 ranks (--share-devices lets them share them)".into()],
        ),
        (
            &run,
            0,
            vec!["IRIS_CUDA_LIBRARY is set, and the CUDA driver finds no device".into()],
        ),
        (&bench, 1, vec![few.into()]),
        (&tune, 1, vec![few.into()]),
    ] {
        for more in ["", "--processes"] {
            let arguments = format!("{command_line} --ranks 3 {more}");
            let Some(mut command) = command(&arguments, devices) else {
                return;
            };
            let ran = Ran::from(command.output().unwrap());
            assert_eq!(
                (ran.status, said_of_host(&ran)),
                (Some(0), says.iter().map(String::as_str).collect()),
                "{ran:?}"
            );
        }
    }
    // No compiler.
    let mut without = command(&run, 2).unwrap();
    without
        .env("IRIS_NVRTC_LIBRARY", "/nowhere/libnvrtc.so")
        .env("IRIS_NVCC", "/nowhere/nvcc");
    let ran = Ran::from(without.output().unwrap());
    assert_eq!(
        (ran.status, &ran.json()["backend"]),
        (Some(0), &"host".into())
    );
    let said = said_of_host(&ran);
    assert!(
        said.len() == 1 && said[0].starts_with("no compiler for sm_90"),
        "{ran:?}"
    );
    // Libraries that are named and are not there; the line is all that is said.
    for (variable, says) in [
        (
            "IRIS_CUDA_LIBRARY",
            "IRIS_CUDA_LIBRARY is set, and CUDA driver is not there: /nowhere/lib.so",
        ),
        (
            "IRIS_HIP_LIBRARY",
            "IRIS_HIP_LIBRARY is set, and HIP runtime is not there: /nowhere/lib.so",
        ),
    ] {
        for arguments in [&run, &bench] {
            let mut command = iris(&split(arguments));
            command.env(variable, "/nowhere/lib.so");
            let ran = Ran::from(command.output().unwrap());
            let said = said_of_host(&ran);
            assert_eq!(
                (ran.status, ran.stderr.lines().count()),
                (Some(0), 1),
                "{ran:?}"
            );
            assert!(said.len() == 1 && said[0].starts_with(says), "{ran:?}");
        }
    }
    // Where the host is asked for, or nobody may wonder, there is nothing to say.
    let mut asked = command(&format!("{run} --backend host --ranks 3"), 1).unwrap();
    let ran = Ran::from(asked.output().unwrap());
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    for arguments in [&run, &bench] {
        let ran = Ran::from(iris(&split(arguments)).output().unwrap());
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    }
}

#[test]
fn ranks_that_may_share_a_gpu_are_on_it_without_being_told_which_backend() {
    let arguments = "run matmul-all-reduce --ranks 3 --m 4 --n 4 --k 4 --share-devices";
    let Some(ran) = run(arguments, 1, "") else {
        return;
    };
    // The stand-in has none of the operations' kernels: that is how far they come.
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(said_of_host(&ran).is_empty(), "{ran:?}");
    let named = run(&format!("{arguments} --backend cuda"), 1, "").unwrap();
    assert_eq!(ran.stderr, named.stderr);
}

#[test]
fn a_vendors_library_that_is_missing_is_named_with_what_to_do() {
    let arguments = "bench matmul-all-reduce --vendor-only --m 5 --n 12 --k 14";
    let Some(mut command) = command(arguments, 2) else {
        return;
    };
    command.env("IRIS_CUBLASLT_LIBRARY", "/nowhere/libcublasLt.so");
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("/nowhere/libcublasLt.so") && ran.stderr.contains("nvidia-cublas"),
        "{ran:?}"
    );
}

#[test]
fn doctor_tells_devices_links_and_libraries() {
    let Some(ran) = run("doctor --json", 3, "") else {
        return;
    };
    let report = ran.json();
    let cuda = &report["gpus"][0];
    assert_eq!(cuda["backend"], "cuda");
    assert_eq!(cuda["devices"].as_array().unwrap().len(), 3);
    let device = &cuda["devices"][1];
    assert_eq!(device["pci_bus_id"], "0000:c2:00.0");
    assert_eq!(device["architecture"], "sm_90");
    assert!(device["memory_free_bytes"].as_u64() < device["memory_bytes"].as_u64());
    let links = cuda["links"].as_array().unwrap();
    assert_eq!(links.len(), 6);
    assert!(
        links
            .iter()
            .all(|link| link["access"] == true && link["atomics"] == true)
    );
    let library = stand_in().unwrap().to_str().unwrap();
    for (name, version) in [
        ("NVRTC", "13.0"),
        ("cuBLASLt", "13.0.2"),
        ("NCCL", "2.28.3"),
    ] {
        let libraries = report["libraries"].as_array().unwrap();
        let found = libraries
            .iter()
            .find(|found| found["name"] == name)
            .unwrap();
        assert_eq!(
            (&found["version"], &found["path"]),
            (&version.into(), &library.into())
        );
    }
    assert!(
        report["cache"]["directory"]
            .as_str()
            .unwrap()
            .ends_with("stand-in-cache/kernels")
    );
    // The stand-in has none of the operations' kernels, which the check by a run finds.
    assert_eq!((ran.status, &report["ok"]), (Some(1), &Value::Bool(false)));
    let checks = report["checks"].as_array().unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    for check in failed {
        assert!(
            check["name"].as_str().unwrap().starts_with("ranks on GPUs"),
            "{check}"
        );
        assert!(
            check["advice"].as_str().unwrap().contains("--backend cuda"),
            "{check}"
        );
    }
    let text = run("doctor", 3, "").unwrap().stdout;
    assert!(
        text.contains("each reaches all others, with atomics"),
        "{text}"
    );
}
