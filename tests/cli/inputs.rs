//! What cannot be used is refused with exit status 2, before anything is run, by a message that names the culprit.

use safetensors::Dtype;

use crate::common::{Files, refused, run, split};

#[test]
fn arguments_out_of_range_are_refused() {
    for (arguments, because) in [
        ("frobnicate", "unrecognized subcommand"),
        ("run", "<OP>"),
        ("run matmul", "invalid value 'matmul'"),
        (
            "run matmul-all-reduce --ranks 0",
            "--ranks is 0, and must be from 1 to 256",
        ),
        (
            "run matmul-all-reduce --ranks 257",
            "--ranks is 257, and must be from 1 to 256",
        ),
        (
            "run matmul-all-reduce --ranks 257 --processes",
            "--ranks is 257, and must be from 1 to 256",
        ),
        ("run matmul-all-reduce --ranks two", "invalid value 'two'"),
        ("run matmul-all-reduce --m 0", "--m"),
        ("run matmul-all-reduce --calls 0", "--calls"),
        ("run matmul-all-reduce --first-call 0", "--first-call"),
        (
            "run matmul-all-reduce --first-call 2147483648",
            "--first-call",
        ),
        ("run matmul-all-reduce --budget -3", "--budget"),
        ("run matmul-all-reduce --budget never", "--budget"),
        ("run matmul-all-reduce --dtype f64", "f64"),
        ("run matmul-all-reduce --variant three_shot", "three_shot"),
        ("run matmul-all-reduce --tile 0x8", "--tile"),
        (
            "bench matmul-all-reduce --backend host --share-devices",
            "--share-devices is for `iris run`",
        ),
        (
            "bench matmul-all-reduce --backend cuda --share-devices",
            "--share-devices is for `iris run`",
        ),
        (
            "bench matmul-all-reduce --backend cuda --heap 64MiB",
            "--heap is for --backend host",
        ),
        (
            "run matmul-all-reduce --gather rows",
            "--gather has no meaning for matmul_all_reduce",
        ),
        (
            "run matmul-all-gather --variant two_shot",
            "--variant two_shot has no meaning for matmul_all_gather",
        ),
        (
            "bench all-gather-matmul --variant atomic",
            "--variant atomic has no meaning for all_gather_matmul",
        ),
        (
            "run matmul-all-reduce --backend cuda",
            "--backend cuda cannot be had here: ",
        ),
        (
            "run matmul-all-reduce --backend host --share-devices",
            "--share-devices is for --backend auto, cuda and hip",
        ),
        (
            "bench matmul-all-reduce --backend hip",
            "does not measure the hip backend",
        ),
        (
            "tune matmul-all-reduce --backend hip",
            "`iris tune` does not measure the hip backend",
        ),
        (
            "tune matmul-all-reduce --share-devices --out t.jsonl",
            "--share-devices is for `iris run`",
        ),
        (
            "tune matmul-all-reduce --gather rows --out t.jsonl",
            "--gather has no meaning for matmul_all_reduce",
        ),
        (
            "tune matmul-all-gather --llama 8b --out t.jsonl",
            "--llama has no meaning for matmul_all_gather",
        ),
        ("tune matmul-all-reduce", "give --out"),
        (
            "tune matmul-all-reduce --out /nowhere/at/all/t.jsonl",
            "No such file or directory",
        ),
        (
            "bench matmul-all-reduce --llama 8b --n 4096",
            "cannot be used with",
        ),
        ("bench matmul-all-reduce --llama 13b", "possible values: 8b"),
        (
            "run matmul-all-reduce --a x.safetensors:x",
            "--a and --b belong together",
        ),
        (
            "run matmul-all-reduce --a x --b y:z",
            "not of the form FILE:TENSOR",
        ),
        (
            "run matmul-all-reduce --m 4000000 --n 4000000 --k 1",
            "of memory; this machine has",
        ),
        (
            "run matmul-all-reduce --m 9000000000000 --n 9000000000000",
            "more than can be addressed",
        ),
        ("bench matmul-all-reduce --pairs 0", "--pairs"),
        ("run matmul-all-reduce --out /", "--out /: is a directory"),
        (
            "run matmul-all-reduce --out /nowhere/at/all/y.safetensors",
            "No such file or directory",
        ),
        (
            "run matmul-all-reduce --heap 4KiB",
            "the symmetric heap is full",
        ),
        (
            "run matmul-all-reduce --heap 4KiB --processes",
            "the symmetric heap is full",
        ),
        (
            "run matmul-all-reduce --backend host --heap 100000GiB",
            "--heap 100000.0 GiB does not do: mapping the heap's memory: Cannot allocate memory (os error 12)\n",
        ),
        (
            "bench matmul-all-reduce --backend host --heap 100000GiB",
            "--heap 100000.0 GiB does not do: mapping the heap's memory: Cannot allocate memory (os error 12)\n",
        ),
    ] {
        refused(&split(arguments), because);
    }
}

#[test]
fn what_the_system_says_of_a_file_is_said_once() {
    let files = Files::new();
    let missing = files.path("missing").display().to_string();
    let (tensor, says) = (format!("{missing}:x"), "No such file or directory");
    for arguments in [
        vec!["run", "matmul-all-reduce", "--a", &tensor, "--b", &tensor],
        vec!["bench", "--results", &missing],
        vec!["bench", "matmul-all-reduce", "--sweep", &missing],
    ] {
        let ran = run(&arguments);
        assert_eq!(ran.status, Some(2), "{ran:?}");
        assert_eq!(ran.stderr.matches(says).count(), 1, "{ran:?}");
        assert!(ran.stderr.contains(&missing), "{ran:?}");
    }
}

/// Nothing but a regular file is replaced, be it a link to something else; and a link itself stays, also where it leads to one.
#[test]
fn what_is_no_regular_file_is_not_replaced() {
    let files = Files::new();
    let [pipe, link, file, good] =
        ["pipe", "link", "file", "good"].map(|name| files.path(name).display().to_string());
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, &good).unwrap();
    let small = "--m 4 --n 4 --k 4 --backend host";
    for command in ["run", "tune"] {
        for out in [&pipe, &link] {
            let arguments = format!("{command} matmul-all-reduce {small} --out {out}");
            refused(
                &split(&arguments),
                &format!("--out {out}: is not a regular file"),
            );
        }
        let arguments = format!("{command} matmul-all-reduce {small} --out {good}");
        let ran = run(&split(&arguments));
        assert_eq!(ran.status, Some(0), "{ran:?}");
        assert!(files.path("good").is_symlink(), "{command}");
        assert!(std::fs::metadata(&file).unwrap().len() > 0, "{command}");
        std::fs::write(&file, "").unwrap();
    }
    assert_eq!(files.names(), ["file", "good", "link", "pipe"]);
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [
        "--help",
        "--version",
        "run --help",
        "tune --help",
        "bench --help",
        "doctor --help",
    ] {
        let ran = run(&split(arguments));
        assert_eq!(
            (ran.status, ran.stderr.as_str()),
            (Some(0), ""),
            "{arguments}"
        );
        assert!(!ran.stdout.is_empty());
    }
    assert_eq!(run(&[]).status, Some(2));
}

/// `iris run matmul-all-reduce` on two tensors.
fn with(a: &str, b: &str, more: &str) -> Vec<String> {
    let mut arguments: Vec<String> = ["run", "matmul-all-reduce", "--a", a, "--b", b]
        .map(String::from)
        .into();
    arguments.extend(more.split_whitespace().map(String::from));
    arguments
}

#[track_caller]
fn refused_with(a: &str, b: &str, more: &str, because: &str) {
    let arguments = with(a, b, more);
    refused(
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        because,
    );
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let files = Files::new();
    files.write(
        "t.safetensors",
        &[
            ("a", Dtype::F32, &[2, 3], &[1.0; 6]),
            ("b", Dtype::F32, &[3, 4], &[1.0; 12]),
            ("half", Dtype::F16, &[3, 4], &[1.0; 12]),
            ("double", Dtype::F64, &[3, 4], &[1.0; 12]),
            ("bytes", Dtype::I8, &[3, 4], &[1.0; 12]),
            ("line", Dtype::F32, &[3], &[1.0; 3]),
            ("none", Dtype::F32, &[3, 0], &[]),
        ],
    );
    let t = |tensor: &str| files.source("t.safetensors", tensor);
    refused_with(&t("a"), &t("a"), "", "the inner dimensions differ");
    refused_with(&t("a"), &t("a"), "", "with --transpose-b they would fit");
    refused_with(
        &t("a"),
        &t("b"),
        "--transpose-b",
        "without --transpose-b they would fit",
    );
    refused_with(
        &t("a"),
        &t("c"),
        "",
        "has no tensor `c`; it has `a`, `b`, `bytes`, `double`, `half`, `line`, `none`",
    );
    refused_with(
        &t("a"),
        &t("double"),
        "",
        ":double is of dtype F64; f32, f16 and bf16 are supported",
    );
    refused_with(&t("a"), &t("bytes"), "", ":bytes is of dtype I8");
    refused_with(
        &t("a"),
        &t("half"),
        "",
        "A is f32 and B is f16; say with --dtype",
    );
    refused_with(
        &t("a"),
        &t("line"),
        "",
        ":line has 1 dimensions, and must have 2",
    );
    refused_with(
        &t("a"),
        &t("none"),
        "",
        ":none is 3 x 0; every size must be at least 1",
    );
    refused_with(
        &t("a"),
        &t("b"),
        "--n 4",
        "--n has no meaning with --a and --b",
    );
    let bias = |tensor: &str| format!("--bias {}", t(tensor));
    refused_with(
        &t("a"),
        &t("b"),
        &bias("line"),
        ":line) has 3 values, and C has 4 columns",
    );
    refused_with(
        &t("a"),
        &t("b"),
        &bias("b"),
        ":b has 2 dimensions, and must have 1",
    );
    let converted = with(&t("a"), &t("half"), "--dtype bf16 --json");
    let ran = run(&converted.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(ran.json()["dtype"], "bf16");
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    let files = Files::new();
    files.write("good.safetensors", &[("x", Dtype::F32, &[2, 2], &[1.0; 4])]);
    let good = files.source("good.safetensors", "x");
    let bad = |header: &str, data: usize, because: &str| {
        files.write_raw("bad.safetensors", header, data);
        for processes in ["", "--processes"] {
            refused_with(
                &good,
                &files.source("bad.safetensors", "x"),
                processes,
                because,
            );
        }
        refused_with(
            &good,
            &files.source("bad.safetensors", "x"),
            "",
            "bad.safetensors",
        );
    };
    bad("not json", 0, "its header is no JSON object");
    bad(
        r#"{"x":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#,
        15,
        "tensor `x` ends at byte 16 of 15 that are there",
    );
    bad(
        r#"{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}"#,
        16,
        "more than can be addressed",
    );
    bad(
        r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"x":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]}}"#,
        24,
        "tensor `x` overlaps tensor `w`",
    );
    refused_with(
        &good,
        &files.source("missing.safetensors", "x"),
        "",
        "missing.safetensors: No such file",
    );
    std::fs::write(files.path("tiny.safetensors"), [0xff; 4]).unwrap();
    refused_with(
        &good,
        &files.source("tiny.safetensors", "x"),
        "",
        "it has 4 bytes",
    );
    std::fs::write(files.path("long.safetensors"), [0xff; 64]).unwrap();
    refused_with(
        &good,
        &files.source("long.safetensors", "x"),
        "",
        "promises a header of 18446744073709551615 bytes",
    );
    std::fs::create_dir(files.path("directory")).unwrap();
    refused_with(
        &good,
        &files.source("directory", "x"),
        "",
        "is not a regular file",
    );
}
