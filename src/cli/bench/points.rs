//! Which points are measured: operations and sizes, from lists and files.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use crate::cli::args::Sweep;
use crate::cli::bench::llama;
use crate::cli::error::Unusable;
use crate::cli::operation::Operation;
use crate::cli::split::Size;

/// An operation on a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) operation: Operation,
    pub(crate) size: Size,
}

/// All points of a bench, in order: those of one operation together, and of one (N, K) by M.
pub(crate) fn points(
    operations: &[Operation],
    sizes: &Sweep,
    ranks: usize,
) -> Result<Vec<Point>, Unusable> {
    let given = match &sizes.sweep {
        Some(file) => sweep(file)?,
        None => cross(
            &or(&sizes.m, 1024),
            &or(&sizes.n, 1024),
            &or(&sizes.k, 1024),
        ),
    };
    let mut points = Vec::new();
    for &operation in operations {
        let of_models;
        let of_operation = if sizes.llama.is_empty() {
            &given
        } else {
            of_models = llama::sizes(operation, &sizes.llama, &sizes.m)?;
            &of_models
        };
        for &size in of_operation {
            let size = if sizes.per_rank {
                whole(operation, size, ranks)?
            } else {
                size
            };
            let point = Point { operation, size };
            if !points.contains(&point) {
                points.push(point);
            }
        }
    }
    Ok(points)
}

/// The sizes given, or one where there are none.
fn or(given: &[NonZeroUsize], default: usize) -> Vec<NonZeroUsize> {
    match given {
        [] => NonZeroUsize::new(default).into_iter().collect(),
        given => given.to_vec(),
    }
}

pub(super) fn cross(m: &[NonZeroUsize], n: &[NonZeroUsize], k: &[NonZeroUsize]) -> Vec<Size> {
    let of = |n: NonZeroUsize, k: NonZeroUsize| {
        m.iter().map(move |m| Size {
            m: m.get(),
            n: n.get(),
            k: k.get(),
        })
    };
    n.iter()
        .flat_map(|&n| k.iter().flat_map(move |&k| of(n, k)))
        .collect()
}

/// The sizes in a file: three numbers a line, and whatever else after a `#`.
fn sweep(file: &Path) -> Result<Vec<Size>, Unusable> {
    let text = fs::read_to_string(file).map_err(|source| Unusable::Unreadable {
        file: file.to_owned(),
        source,
    })?;
    let mut sizes = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let numbers: Option<Vec<usize>> = line
            .split([' ', '\t', ','])
            .filter(|word| !word.is_empty())
            .map(|word| Some(word.parse::<NonZeroUsize>().ok()?.get()))
            .collect();
        match numbers.as_deref() {
            Some(&[m, n, k]) => sizes.push(Size { m, n, k }),
            _ => {
                return Err(Unusable::Line {
                    file: file.to_owned(),
                    line: at + 1,
                    detail: format!("`{line}` is not three numbers from 1 on: M N K"),
                });
            }
        }
    }
    if sizes.is_empty() {
        return Err(Unusable::Line {
            file: file.to_owned(),
            line: 1,
            detail: "there are no sizes in it".to_owned(),
        });
    }
    Ok(sizes)
}

/// The whole problem of which one rank's product has this size.
fn whole(operation: Operation, size: Size, ranks: usize) -> Result<Size, Unusable> {
    let Size { m, n, k } = size;
    let times = |size: usize| {
        size.checked_mul(ranks)
            .ok_or(Unusable::TooLarge { m, n, k })
    };
    Ok(match operation {
        Operation::MatmulAllReduce | Operation::MatmulReduceScatter => Size {
            k: times(k)?,
            ..size
        },
        Operation::AllGatherMatmul => Size {
            n: times(n)?,
            ..size
        },
        Operation::MatmulAllGather => Size {
            m: times(m)?,
            ..size
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;
    use clap::Parser;

    fn of(arguments: &str, ranks: usize) -> Result<Vec<Point>, Unusable> {
        let line = format!("iris bench {arguments}");
        match args::Arguments::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        {
            args::Command::Bench(bench) => points(&bench.operations, &bench.sizes, ranks),
            _ => unreachable!(),
        }
    }

    fn sizes(points: &[Point]) -> Vec<[usize; 3]> {
        let of = |point: &Point| [point.size.m, point.size.n, point.size.k];
        points.iter().map(of).collect()
    }

    #[test]
    fn lists_are_crossed_and_nothing_is_measured_twice() {
        let points = of("matmul-all-reduce --m 1,2,2 --n 3 --k 4,5", 2).unwrap();
        assert_eq!(sizes(&points), [[1, 3, 4], [2, 3, 4], [1, 3, 5], [2, 3, 5]]);
        let points = of("matmul-all-reduce all-gather-matmul --m 1,2", 2).unwrap();
        assert_eq!(points.len(), 4);
        assert_eq!(points[2].operation, Operation::AllGatherMatmul);
    }

    #[test]
    fn a_ranks_product_tells_the_whole_problem() {
        for (operation, size) in [
            ("matmul-all-reduce", [2, 3, 16]),
            ("matmul-reduce-scatter", [2, 3, 16]),
            ("all-gather-matmul", [2, 12, 4]),
            ("matmul-all-gather", [8, 3, 4]),
        ] {
            let points = of(&format!("{operation} --per-rank --m 2 --n 3 --k 4"), 4).unwrap();
            assert_eq!(sizes(&points), [size], "{operation}");
        }
        let largest = usize::MAX / 2;
        let error = of(&format!("matmul-all-gather --per-rank --m {largest}"), 4).unwrap_err();
        assert!(matches!(error, Unusable::TooLarge { .. }));
    }

    #[test]
    fn models_have_sizes_of_their_own_for_each_operation() {
        let points = of("matmul-all-reduce all-gather-matmul --llama 8b --m 1,2", 2).unwrap();
        assert_eq!(
            sizes(&points),
            [
                [1, 4096, 4096],
                [2, 4096, 4096],
                [1, 4096, 14336],
                [2, 4096, 14336],
                [1, 6144, 4096],
                [2, 6144, 4096],
                [1, 28672, 4096],
                [2, 28672, 4096],
            ]
        );
        let of_default = of("matmul-reduce-scatter --llama 8b,70b,405b", 8).unwrap();
        assert_eq!(of_default.len(), 6 * 15);
        assert_eq!(of_default.last().unwrap().size.m, 16384);
        assert_eq!(of("matmul-all-reduce", 2).unwrap()[0].size.m, 1024);
        let error = of("matmul-all-gather --llama 8b", 2).unwrap_err();
        assert!(error.to_string().contains("--llama"), "{error}");
    }

    #[test]
    fn a_file_has_a_size_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sweep.txt");
        let sweep = |text: &str| {
            fs::write(&file, text).unwrap();
            of(&format!("matmul-all-reduce --sweep {}", file.display()), 2)
        };
        let points = sweep("# of a layer\n16 8192 3584\n\n1, 2,3 # small\n").unwrap();
        assert_eq!(sizes(&points), [[16, 8192, 3584], [1, 2, 3]]);
        for (text, line) in [("1 2 3\n1 2\n", 2), ("1 2 0\n", 1), ("", 1), ("a b c", 1)] {
            let error = sweep(text).unwrap_err();
            assert!(
                matches!(&error, Unusable::Line { line: found, .. } if *found == line),
                "{error}"
            );
        }
    }
}
