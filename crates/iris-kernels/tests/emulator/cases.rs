//! Every operation on small ragged shapes, over several ranks and calls.

use crate::compile::{TARGETS, compiler, emulate, kernel};

/// The largest signal value on devices.
pub(crate) const MAX: u64 = i32::MAX as u64;

/// A problem: n, k, and the rows of one call after the other.
type Shape = (u64, u64, &'static [u64]);

/// Rows, columns and depths below, at, and above a tile; fewer rows than ranks; less depth than ranks; calls of different sizes.
const SHAPES: [Shape; 6] = [
    (1, 1, &[1, 1, 1, 1, 1]),
    (45, 37, &[70, 1, 33, 140, 5]),
    (2, 3, &[3, 65, 2]),
    (64, 64, &[64, 64, 64]),
    (97, 130, &[2, 40, 1]),
    (33, 2, &[31, 67, 1, 3]),
];

/// Few rows that are so deep that what is sent of A is cut along its depth, into parts of which no two ranks need have as many chunks.
const DEEP: Shape = (3, 1100, &[9, 1, 20, 9]);

/// So many rows that where ranks have whole rows of tiles, what they send of A goes to one peer after the other.
const TALL: Shape = (3, 40, &[450, 20, 450, 1, 300]);

/// Lines that run `op` on all shapes, as `kernel` describes itself.
pub(crate) fn lines(kernel: &str, op: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let all_reduce = matches!(
        op,
        "one_shot" | "one_shot_packets" | "two_shot" | "two_shot_packets" | "atomic" | "spinlock"
    );
    for world in 1..=4_u64 {
        let gathers = op.starts_with("all_gather_matmul");
        let more = [DEEP, TALL].into_iter().filter(|_| gathers);
        for (number, (n, k, rows)) in SHAPES.into_iter().chain(more).enumerate() {
            let rows: Vec<_> = rows.iter().map(u64::to_string).collect();
            let number = number as u64;
            // Just below the wrap, so that it falls into the calls.
            let first = MAX - number % 3;
            let mut line = format!(
                "{kernel} world={world} m={} n={n} k={k} first={first} seed={} bias={} bounced={} blocks={},{}",
                rows.join(","),
                world * 10 + number,
                (number + world) % 2,
                (number / 2 + world) % 2,
                1 + number % 4,
                1 + world % 3,
            );
            // The collective alone, which crews do not do: of as much depth as there are ranks, so that every rank takes part.
            if number == 3
                && !kernel.contains("crews=")
                && (all_reduce
                    || (op.starts_with("matmul_reduce_scatter") || op == "matmul_all_gather"))
            {
                lines.push(format!("{line} given=1 k={world}"));
            }
            line.push_str(&format!(" budget_ms={}", 60_000));
            lines.push(line);
        }
    }
    lines
}

/// Runs `op` of `source` for all targets and dtypes.
pub(crate) fn check(source: &str, op: &str) {
    if compiler().is_none() {
        return;
    }
    for target in &TARGETS {
        for dtype in target.dtypes {
            let lines = lines(&target.describe(op, dtype), op);
            let results = emulate(&[&kernel(source, target, dtype, MAX)], &lines);
            assert_eq!(lines.len(), results.len());
            for (line, result) in lines.iter().zip(&results) {
                assert_eq!(result, "ok", "{}: {line}", target.name);
            }
        }
    }
}
