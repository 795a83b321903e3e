//! The kernel of `examples/own_kernel.hip`: an exchange around a ring with parts of the device library, and no `Args`.

use crate::compile::{compiler, emulate, own};
use std::path::Path;

/// Threads of a block.
const THREADS: u64 = 64;
/// The largest signal value, on a small ring: three laps of it are few rounds.
const RING: u64 = 7;

const SOURCE: &str = include_str!("../../../../examples/own_kernel.hip");

/// Runs exchanges of `text`, a line each, and returns how they end.
fn exchanges(text: &str, lanes: u32, lines: &[String]) -> Vec<String> {
    let definitions = [
        ("RING_THREADS", THREADS.to_string()),
        ("IRIS_WORD_MAX", RING.to_string()),
    ];
    let kernel = own("own_kernel", text, lanes, &definitions);
    let results = emulate(&[Path::new("--ring"), &kernel], lines);
    assert_eq!(results.len(), lines.len());
    results
}

#[test]
fn numbers_are_right_after_several_laps_of_the_counter() {
    if compiler().is_none() {
        return;
    }
    for lanes in [32, 64] {
        let mut lines = Vec::new();
        for world in 1..=4_u64 {
            for (blocks, count, first) in [(1, 1, 1), (3, 301, 7), (4, 3, 5), (2, 128, 2)] {
                // A rank stands still where one must not run ahead of it.
                let stalled = world - 1;
                lines.push(format!(
                    "{world} {blocks} {THREADS} {lanes} {count} 6 4 {first} {world} 60000 {stalled} 3 20"
                ));
            }
        }
        for (line, result) in lines.iter().zip(exchanges(SOURCE, lanes, &lines)) {
            assert_eq!(result, "ok", "{line}");
        }
    }
}

/// With texts in place of others, an exchange of 4 ranks, one of which stands still, does not end well.
fn fails_with(edits: &[(&str, &str)], ends: &[&str]) {
    if compiler().is_none() {
        return;
    }
    let line = |budget| format!("4 2 {THREADS} 32 200 6 4 1 9 {budget} 1 2 400");
    assert_eq!(exchanges(SOURCE, 32, &[line(60_000)]), ["ok"]);
    let changed = edits
        .iter()
        .fold(SOURCE.to_owned(), |text, (rule, instead)| {
            assert_eq!(text.matches(rule).count(), 1, "{rule}");
            text.replace(rule, instead)
        });
    let result = exchanges(&changed, 32, &[line(2_000)]).remove(0);
    assert!(ends.iter().any(|end| result.starts_with(end)), "{result}");
}

#[test]
fn without_the_gate_a_bank_is_overwritten_before_it_is_read() {
    // With the numbers its word is overwritten, too, and may be missed.
    fails_with(&[("round < 2 ||", "true ||")], &["wrong", "gave up"]);
}

#[test]
fn with_one_value_for_all_rounds_what_came_before_is_believed() {
    fails_with(
        &[
            ("signal_value(ring.first, round))", "1)"),
            ("signal_value(ring.first, round - 2))", "1)"),
        ],
        &["wrong"],
    );
}

#[test]
fn a_rank_that_does_not_come_is_waited_for_no_longer_than_the_budget() {
    if compiler().is_none() {
        return;
    }
    // Rank 2 comes too late to its second launch.
    let line = format!("3 2 {THREADS} 32 100 3 4 1 5 200 2 1 2500");
    let result = exchanges(SOURCE, 32, &[line]).remove(0);
    assert!(result.starts_with("gave up"), "{result}");
}
