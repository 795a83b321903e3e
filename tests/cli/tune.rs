//! `iris tune`, and what operations make of its table.

use serde_json::Value;

use crate::common::{Files, Ran, iris, run, split};

fn rows(ran: &Ran) -> Vec<Value> {
    let lines = ran.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Runs the command with a table in IRIS_TUNING.
fn with_table(table: &str, arguments: &str) -> Ran {
    let mut command = iris(&split(arguments));
    command.env("IRIS_TUNING", table).output().unwrap().into()
}

#[test]
fn points_are_measured_once_and_kept() {
    let files = Files::new();
    let table = files.path("table.jsonl");
    let tune = |more: &str| {
        let arguments = format!(
            "tune matmul-all-reduce all-gather-matmul --n 32 --k 24 --pairs 2 --ranks 3 --out {} {more}",
            table.display()
        );
        let ran = run(&split(&arguments));
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        ran
    };
    let first = rows(&tune("--m 1,33 --json"));
    assert_eq!(first.len(), 4);
    for row in &first {
        assert_eq!(
            (&row["device"], &row["ranks"], &row["dtype"]),
            (&"host".into(), &3.into(), &"f32".into())
        );
        let gathers = row["op"] == "all_gather_matmul";
        assert_eq!(row.get("gather").is_some(), gathers, "{row}");
        let variant = row["variant"].as_str().unwrap();
        let variants: &[&str] = match gathers {
            true => &["auto"],
            false => &["one_shot", "two_shot"],
        };
        assert!(variants.contains(&variant), "{row}");
        assert!(row["us"].as_f64().unwrap() > 0.0, "{row}");
    }
    // What is there is left out, also on ranks that are processes.
    let second = rows(&tune("--m 33,2 --json --processes"));
    let ms: Vec<_> = second.iter().map(|row| row["m"].as_u64()).collect();
    assert_eq!(ms, [Some(2), Some(2)]);
    let text = tune("--m 1,2,33").stdout;
    assert!(text.contains("0 points measured, 6 were there"), "{text}");
    // Of another dtype they are other points; and all are measured again where that is asked for.
    assert_eq!(rows(&tune("--m 1 --dtype bf16 --json")).len(), 2);
    let text = tune("--m 1 --again").stdout;
    for part in [
        "2 points measured",
        "on 3 x host (threads",
        "| matmul_all_reduce | 1 |",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let kept = std::fs::read_to_string(&table).unwrap();
    assert_eq!(kept.lines().count(), 4 + 2 + 2 + 2);
    assert_eq!(files.names(), ["table.jsonl"]);
}

#[test]
fn the_table_of_the_cache_is_filled_and_found() {
    let files = Files::new();
    let cache = files.path("cache/iris");
    let command = |arguments: &str| {
        let mut command = iris(&split(arguments));
        command
            .env_remove("IRIS_TUNING")
            .env("IRIS_CACHE_DIR", &cache);
        Ran::from(command.output().unwrap())
    };
    let sizes = "matmul-all-reduce --backend host --m 9 --n 32 --k 24";
    let ran = command(&format!("tune {sizes} --pairs 1 --json"));
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let table = cache.join("tuning.jsonl");
    let line = std::fs::read_to_string(&table).unwrap();
    assert_eq!(line, ran.stdout);
    // What the table says is done, whatever was measured.
    for variant in ["one_shot", "two_shot"] {
        let measured = rows(&ran)[0]["variant"].as_str().unwrap().to_owned();
        std::fs::write(&table, line.replace(&measured, variant)).unwrap();
        let ran = command(&format!("run {sizes} --json"));
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        assert_eq!(ran.json()["variant"], variant);
    }
}

#[test]
fn a_table_decides_and_no_tuning_leaves_it_out() {
    let files = Files::new();
    let table = files.path("table.jsonl");
    let row = |variant: &str| {
        format!(
            r#"{{"device":"host","ranks":2,"op":"matmul_all_reduce","dtype":"f32","compiler":"x","m":64,"n":32,"k":24,"variant":"{variant}","packets":false,"tile":"16x8","fused":true,"us":1.5}}"#
        ) + "\n"
    };
    let variant = |more: &str| {
        let arguments = format!("run matmul-all-reduce --m 9 --n 30 --k 24 --json {more}");
        let ran = with_table(table.to_str().unwrap(), &arguments);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        ran.json()["variant"].as_str().unwrap().to_owned()
    };
    for (row_says, by_size) in [("two_shot", "one_shot"), ("one_shot", "one_shot")] {
        std::fs::write(&table, row(row_says)).unwrap();
        assert_eq!(variant(""), row_says);
        assert_eq!(variant("--processes"), row_says);
        assert_eq!(variant("--no-tuning"), by_size);
        assert_eq!(variant("--tile 8x8"), by_size);
        assert_eq!(variant("--variant spinlock"), "spinlock");
        assert_eq!(variant("--ranks 3"), by_size);
    }
}

#[test]
fn a_table_that_cannot_be_used_is_named_with_line_and_field() {
    let files = Files::new();
    let table = files.path("table.jsonl");
    let name = table.to_str().unwrap();
    let good = r#"{"device":"host","ranks":2,"op":"matmul_all_reduce","dtype":"f32","compiler":"x","m":64,"n":512,"k":512,"variant":"two_shot","packets":false,"tile":null,"fused":true,"us":1.5}"#;
    let line = |from: &str, to: &str| format!("{good}\n{}\n", good.replace(from, to));
    let says = |text: &str, because: &str| {
        std::fs::write(&table, text).unwrap();
        for more in ["", "--processes"] {
            let ran = with_table(name, &format!("run matmul-all-reduce {more}"));
            assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
            let expected = format!("IRIS_TUNING: {name}, line 2: {because}");
            assert!(ran.stderr.contains(&expected), "{expected}: {ran:?}");
        }
    };
    says(
        &line("two_shot", "three_shot"),
        "`variant` is \"three_shot\", and must be `one_shot` or `two_shot`",
    );
    says(
        &line("\"m\":64", "\"m\":0"),
        "`m` is 0, and must be a whole number from 1 on",
    );
    says(&line("{", ""), "not a JSON object");
    // Only where it is to be done is it known that it cannot be.
    let packets = line(
        "two_shot\",\"packets\":false",
        "one_shot\",\"packets\":true",
    );
    says(&packets, "`packets` is true, and must be false");
    // Nor is anything appended to it.
    let ran = run(&["tune", "matmul-all-reduce", "--out", name, "--m", "1"]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    std::fs::write(&table, line("\"m\":64", "\"m\":0")).unwrap();
    let before = std::fs::read_to_string(&table).unwrap();
    let ran = run(&["tune", "matmul-all-reduce", "--out", name, "--m", "1"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
    let says = format!("--out: {name}, line 2: `m` is 0");
    assert!(ran.stderr.contains(&says), "{ran:?}");
    let says = format!("IRIS_TUNING: {name}, line 2: `m` is 0");
    let small = "--m 4 --n 4 --k 4 --pairs 1";
    for command in ["tune matmul-all-reduce", "bench all-gather-matmul"] {
        let ran = with_table(name, &format!("{command} {small}"));
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
        assert!(ran.stderr.contains(&says), "{ran:?}");
    }
    assert_eq!(std::fs::read_to_string(&table).unwrap(), before);
    // What goes by no table is not kept from running by one.
    for arguments in [
        "run matmul-all-reduce --no-tuning",
        "run matmul-all-reduce --tile 8x8",
        "run matmul-all-reduce --variant one_shot",
        "bench matmul-all-reduce --pairs 1",
        "bench all-gather-matmul --pairs 1 --no-tuning",
    ] {
        let ran = with_table(name, &format!("{arguments} --m 4 --n 4 --k 4"));
        assert_eq!(ran.status, Some(0), "{ran:?}");
    }
    let ran = with_table("/nowhere/table.jsonl", "run matmul-all-reduce");
    assert_eq!(ran.status, Some(2), "{ran:?}");
    let says = "IRIS_TUNING: the tuning table /nowhere/table.jsonl: No such file";
    assert!(ran.stderr.contains(says), "{ran:?}");
    // Of a rank that a launcher has started it is found when the operation is created.
    let mut command = iris(&split("run matmul-all-reduce"));
    command
        .envs([("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")])
        .envs([
            ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
            ("PMIX_NAMESPACE", name),
        ])
        .env("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
        .env("IRIS_TUNING", "/nowhere/table.jsonl");
    let ran = Ran::from(command.output().unwrap());
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
    assert!(ran.stderr.contains(says), "{ran:?}");
}

#[test]
fn a_place_for_the_table_is_named_by_what_names_it() {
    let files = Files::new();
    let tune = |cache: &str, table: Option<&str>| {
        let mut command = iris(&split("tune matmul-all-reduce --m 4 --n 4 --k 4 --pairs 1"));
        command
            .env_remove("IRIS_TUNING")
            .env("IRIS_CACHE_DIR", files.path(cache));
        if let Some(table) = table {
            command.env("IRIS_TUNING", files.path(table));
        }
        let ran = Ran::from(command.output().unwrap());
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
        ran.stderr
    };
    // A directory that is named is not made.
    let missing = files.path("missing/table.jsonl");
    let says = format!("iris: IRIS_TUNING {}: ", missing.display());
    let said = tune("cache", Some("missing/table.jsonl"));
    assert!(said.starts_with(&says), "{said}");
    assert!(files.names().is_empty());
    // The cache's is, where it can be.
    std::fs::write(files.path("file"), "").unwrap();
    let said = tune("file", None);
    let of_cache = "iris: the table in the cache's directory ";
    assert!(said.starts_with(of_cache), "{said}");
    std::fs::create_dir_all(files.path("cache/tuning.jsonl")).unwrap();
    let said = tune("cache", None);
    assert!(said.starts_with(of_cache) && said.contains("is a directory"));
}

#[test]
fn a_way_that_there_is_no_memory_for_is_left_out_and_said_so() {
    let files = Files::new();
    let table = files.path("table.jsonl");
    let tune = |heap: &str| {
        let arguments = format!(
            "tune matmul-all-reduce --backend host --m 512 --n 256 --k 8 --pairs 1 --json --heap {heap} --out {}",
            table.display()
        );
        run(&split(&arguments))
    };
    // The result takes 512 KiB, one-shot's staging 2 MiB and two-shot's 1.
    let ran = tune("2500KiB");
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(rows(&ran)[0]["variant"], "two_shot");
    let left_out = ran.stderr.matches("left out for want of memory").count();
    assert!(left_out >= 1 && ran.stderr.contains("one_shot"), "{ran:?}");
    assert!(
        !ran.stderr
            .contains("two_shot\",\"packets\":false,\"tile\":null,\"fused\":true")
    );
    std::fs::remove_file(&table).unwrap();
    for (heap, says) in [
        ("1MiB", "no memory for any way"),
        ("64KiB", "--heap 64.0 KiB does not do"),
    ] {
        let ran = tune(heap);
        assert_ne!(ran.status, Some(0), "{ran:?}");
        assert!(ran.stderr.contains(says), "{ran:?}");
        assert!(!table.exists());
    }
}
