//! Files of a bench: what it goes on from, what it is held against, and what it leaves.

use std::process::Stdio;

use serde_json::Value;

use crate::common::{Files, Ran, iris, refused, run, split};

const SMALL: &str = "--m 8 --n 8 --k 8 --ranks 2 --pairs 1";

fn bench(rest: &str) -> Ran {
    run(&split(&format!("bench {rest}")))
}

#[test]
fn a_row_of_other_settings_is_not_gone_on_from() {
    let files = Files::new();
    let results = files.path("results.jsonl");
    let resumed = |rest: &str| {
        let ran = bench(&format!(
            "{rest} {SMALL} --json --resume {}",
            results.display()
        ));
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        ran.stdout
    };
    let measured = || std::fs::read_to_string(&results).unwrap().lines().count();
    let rows = resumed("all-gather-matmul --gather rows");
    let columns = resumed("all-gather-matmul --gather columns");
    let tile = resumed("all-gather-matmul --tile 4x4");
    let untuned = resumed("all-gather-matmul --no-tuning");
    assert_eq!(measured(), 4);
    // Each is there now.
    assert_eq!(resumed("all-gather-matmul"), rows);
    assert_eq!(resumed("all-gather-matmul --gather columns"), columns);
    assert_eq!(resumed("all-gather-matmul --tile 4x4"), tile);
    assert_eq!(resumed("all-gather-matmul --no-tuning"), untuned);
    assert_eq!(measured(), 4);
}

/// A bench that has been measured, and its baseline.
fn measured(files: &Files) -> (String, String) {
    let [results, baseline] = ["results.jsonl", "baseline.jsonl"].map(|name| files.path(name));
    let (results, baseline) = (
        results.display().to_string(),
        baseline.display().to_string(),
    );
    let ran = bench(&format!(
        "matmul-reduce-scatter {SMALL} --resume {results} --write-baseline {baseline}"
    ));
    assert_eq!(ran.status, Some(0), "{ran:?}");
    (results, baseline)
}

#[test]
fn a_bench_is_held_against_the_baseline_that_was_there_though_it_writes_a_new_one() {
    let files = Files::new();
    let (results, baseline) = measured(&files);
    let text = std::fs::read_to_string(&baseline).unwrap();
    let mut row: Value = serde_json::from_str(&text).unwrap();
    row["speedup"] = (row["speedup"].as_f64().unwrap() * 2.0).into();
    std::fs::write(&baseline, format!("{row}\n")).unwrap();
    let ran = bench(&format!(
        "--results {results} --compare {baseline} --write-baseline {baseline}"
    ));
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("worse"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&baseline).unwrap(), text);
}

#[test]
fn a_comparison_with_nothing_in_common_is_no_success() {
    let files = Files::new();
    let (results, baseline) = measured(&files);
    let text = std::fs::read_to_string(&baseline).unwrap();
    for other in ["", &text.replace("\"m\":8", "\"m\":9")] {
        std::fs::write(&baseline, other).unwrap();
        let ran = bench(&format!("--results {results} --compare {baseline}"));
        assert_eq!(ran.status, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("nothing was compared"), "{ran:?}");
    }
    std::fs::write(&results, "").unwrap();
    refused(&["bench", "--results", &results], "there are no rows");
}

#[test]
fn files_that_cannot_be_used_are_refused_before_anything_is_measured() {
    let files = Files::new();
    let nowhere = files.path("nowhere").join("file").display().to_string();
    let directory = files.path("").display().to_string();
    let point = split("bench matmul-all-reduce --m 8 --n 8 --k 8");
    for argument in ["--resume", "--chart", "--write-baseline"] {
        for file in [&nowhere, &directory] {
            refused(&[&point[..], &[argument, file]].concat(), argument);
        }
    }
    refused(&[&point[..], &["--compare", &nowhere]].concat(), "nowhere");
    assert_eq!(files.names(), [""; 0]);
}

#[test]
fn what_was_measured_takes_no_arguments_of_a_measurement() {
    let files = Files::new();
    let (results, _) = measured(&files);
    for argument in [
        "--m 777",
        "--ranks 9",
        "--backend hip",
        "--dtype f16",
        "--variant atomic",
        "--tf32",
        "--share-devices",
        "--seed 3",
        "--pairs 4",
        "--budget 3",
        "--heap 1GiB",
        "--llama 8b",
    ] {
        let arguments = format!("bench --results {results} {argument}");
        refused(&split(&arguments), "cannot be used with");
    }
}

/// Whoever reads what is printed may have left before.
#[test]
fn files_are_written_though_nobody_reads_what_is_printed() {
    let files = Files::new();
    let (results, _) = measured(&files);
    let chart = files.path("chart.svg");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let arguments = format!("bench --results {results} --chart {}", chart.display());
    let mut command = iris(&split(&arguments));
    let ran = Ran::from(command.stdout(Stdio::from(writer)).output().unwrap());
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("standard output"), "{ran:?}");
    assert!(std::fs::read_to_string(chart).unwrap().contains("</svg>"));
}
