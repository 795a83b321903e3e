//! The fast kernels: operands that lie in steps of 16 bytes, of many tiles and of edges, either way round, against f64 references, on up
//! to 4 ranks, which share GPUs where there are fewer; and the portable kernels of the same tiles.

use crate::support::{GpuWorld, threads};
use crate::tuning::row;
use half::{bf16, f16};
use iris_heap::cuda::Cuda;
use iris_ops::tuning::{Tuning, TuningRow};
use iris_ops::{FusedConfig, GatherDim, Tile, Variant};
use iris_testkit::device::{Gpus, wanted};
use iris_testkit::{Exercise, Failure, Op};
use std::sync::Arc;
use std::time::Instant;

/// (m, n, k): depths and widths of whole chunks for up to 4 ranks, rows and tiles as they come. In the last one each of several ranks has rows of
/// tiles of its own, and the others' are so many that they are gone through rank by rank.
const SHAPES: [(usize, usize, usize); 8] = [
    (1, 512, 256),
    (64, 512, 256),
    (100, 768, 1024),
    (130, 64, 64),
    (300, 640, 512),
    (129, 288, 416),
    (517, 1024, 768),
    (1600, 384, 256),
];

fn exercise(op: Op, at: usize) -> Exercise {
    let (m, n, k) = SHAPES[at];
    let calls = vec![m, m.div_ceil(2), 1, m, m];
    let mut exercise = Exercise::new(op, (n, k), Tile { m: 128, n: 128 }, calls);
    exercise.seed = 100 + at as u64;
    exercise.transposed = at % 2 == 1;
    exercise.config = FusedConfig {
        tile: None,
        bias: !at.is_multiple_of(3),
        first: i64::from(i32::MAX) - 3,
        budget: crate::support::budget(),
        ..exercise.config
    };
    exercise
}

fn aligned(world: &GpuWorld, op: Op) -> Result<(), Failure> {
    for at in 0..SHAPES.len() {
        let exercise = exercise(op, at);
        exercise.run_at_once::<bf16, i32, Cuda>(world)?;
        exercise.run_at_once::<f16, i32, Cuda>(world)?;
    }
    Ok(())
}

#[test]
fn aligned_operands_are_right() {
    let Some(gpus) = Gpus::take("fast::aligned", 1) else {
        return;
    };
    for ranks in [1, 2, 3, 4].into_iter().filter(|&ranks| wanted(ranks)) {
        for op in Op::ALL {
            let from = Instant::now();
            threads(ranks, &gpus, |world| aligned(world, op));
            println!(
                "  {ranks} ranks, {op}: {:.1} s",
                from.elapsed().as_secs_f64()
            );
        }
    }
}

/// Every tile there is, whatever the sizes would have chosen.
#[test]
fn every_tile_is_right() {
    let Some(gpus) = Gpus::take("fast::tiles", 1) else {
        return;
    };
    // Only where there are fast kernels are there all of these.
    let hopper = gpus.architecture().starts_with("sm_90");
    let tiles = [64, 128, 192, 256].map(|n| [(64, n), (128, n)]);
    for (m, n) in tiles
        .into_iter()
        .flatten()
        .filter(|(_, n)| hopper || n % 128 == 0)
    {
        for op in Op::ALL {
            threads(2, &gpus, |world| {
                // B lies either way.
                for at in [4, 5] {
                    let mut exercise = exercise(op, at);
                    exercise.config.tile = Some(Tile { m, n });
                    exercise.run_at_once::<bf16, i32, Cuda>(world)?;
                    exercise.config.portable = true;
                    exercise.run_at_once::<bf16, i32, Cuda>(world)?;
                }
                Ok(())
            });
        }
    }
}

/// The tiles for up to so many rows, and whether they are streamed.
const STREAMED: [(usize, [usize; 2], bool); 9] = [
    (20, [64, 64], true),
    (40, [64, 256], true),
    (64, [64, 128], false),
    (90, [128, 64], true),
    (128, [64, 192], true),
    (150, [128, 128], true),
    (200, [128, 256], true),
    (250, [128, 192], true),
    (300, [64, 128], true),
];

/// GPUs for what only kernels of Hopper do.
fn hopper(test: &'static str, what: &str) -> Option<Gpus> {
    let gpus = Gpus::take(test, 1)?;
    let is_hopper = gpus.architecture().starts_with("sm_90");
    if !is_hopper {
        println!("SKIPPED {test}: only kernels of Hopper {what}");
    }
    is_hopper.then_some(gpus)
}

/// Of a few columns and of more than there are multiprocessors, deep and not: many blocks share a tile, or a block ends one and begins
/// another. All tiles in one workspace, in turn, with calls among them that are not streamed.
#[test]
fn streamed_tiles_are_right() {
    let Some(gpus) = hopper("fast::streamed", "stream tiles") else {
        return;
    };
    for ranks in [1, 2, 3, 4].into_iter().filter(|&ranks| wanted(ranks)) {
        threads(ranks, &gpus, |world| {
            for gather in [GatherDim::Rows, GatherDim::Columns] {
                for (n, k) in [(768, 2112), (17408, 192)] {
                    let of = |(m, [tile_m, tile_n], streamed): (usize, [usize; 2], bool)| {
                        let tile = Tile {
                            m: tile_m,
                            n: tile_n,
                        };
                        TuningRow {
                            op: "all_gather_matmul",
                            gather: Some(gather),
                            n,
                            k,
                            streamed: Some(streamed),
                            ..row(world, m, Variant::Auto, false, tile)
                        }
                    };
                    let calls = vec![300, 20, 128, 1, 200, 64, 250, 35, 150, 85, 129, 7, 300, 190];
                    let any = Tile { m: 128, n: 128 };
                    let op = Op::AllGatherMatmul(gather);
                    let mut exercise = Exercise::new(op, (n, k), any, calls);
                    exercise.transposed = gather == GatherDim::Columns;
                    exercise.config.tile = None;
                    exercise.config.budget = crate::support::budget();
                    let table = Tuning::new(STREAMED.map(of));
                    exercise.config = exercise.config.tuning(Arc::new(table));
                    exercise.run_at_once::<bf16, i32, Cuda>(world)?;
                }
            }
            Ok(())
        });
    }
}

/// Rows of A in packets, which each block reads itself: as many as it does for, and calls of more between them; of either tile, streamed and not;
/// deep and wide; A and B with gaps in every other call, which the portable kernel then takes, or B either way.
#[test]
fn few_rows_of_a_in_packets_are_right() {
    let Some(gpus) = hopper("fast::few", "read packets of A by crews") else {
        return;
    };
    for ranks in [2, 4].into_iter().filter(|&ranks| wanted(ranks)) {
        threads(ranks, &gpus, |world| {
            for (at, (n, k)) in [(768, 2112), (17408, 192), (1536, 4104)]
                .into_iter()
                .enumerate()
            {
                for (tile_n, streamed) in [(64, false), (64, true), (128, false), (128, true)] {
                    let of = |m, packets| TuningRow {
                        op: "all_gather_matmul",
                        gather: Some(GatherDim::Rows),
                        n,
                        k,
                        streamed: Some(streamed && packets),
                        ..row(world, m, Variant::Auto, packets, Tile { m: 64, n: tile_n })
                    };
                    let table = Tuning::new([of(16, true), of(40, false)]);
                    let calls = vec![16, 1, 20, 5, 16, 2, 40, 9, 3, 13, 7, 4, 17, 8, 15, 16];
                    let any = Tile { m: 128, n: 128 };
                    let op = Op::AllGatherMatmul(GatherDim::Rows);
                    let mut exercise = Exercise::new(op, (n, k), any, calls);
                    exercise.seed = 300 + at as u64;
                    exercise.transposed = at == 1;
                    exercise.strided = at == 2;
                    exercise.config.tile = None;
                    exercise.config.bias = at != 0;
                    exercise.config.first = i64::from(i32::MAX) - 3;
                    exercise.config.budget = crate::support::budget();
                    exercise.config = exercise.config.tuning(Arc::new(table));
                    match streamed {
                        true => exercise.run_at_once::<bf16, i32, Cuda>(world)?,
                        false => exercise.run_at_once::<f16, i32, Cuda>(world)?,
                    };
                }
            }
            Ok(())
        });
    }
}

/// Blocks in pairs, which calls of up to 128 rows take where their products are deep: of every operation, in words and in packets; more tiles than
/// blocks and fewer, of an odd number and of an even one; deep and wide; A and B with gaps in every other call.
#[test]
fn tiles_made_by_pairs_are_right() {
    let Some(gpus) = hopper("fast::pairs", "go in pairs") else {
        return;
    };
    let tile = Tile { m: 128, n: 64 };
    for ranks in [1, 2, 3, 4].into_iter().filter(|&ranks| wanted(ranks)) {
        threads(ranks, &gpus, |world| {
            let others = [Variant::Auto, Variant::Atomic, Variant::Spinlock].map(Op::AllReduce);
            let ops = Op::ALL.into_iter().filter(|op| !others.contains(op));
            for (at, op) in ops.enumerate() {
                let gathers = matches!(op, Op::AllGatherMatmul(_));
                let [depths, columns] = match op {
                    Op::AllGatherMatmul(_) => [1, ranks],
                    Op::MatmulAllGather => [1, 1],
                    _ => [ranks, 1],
                };
                let most = match op {
                    Op::MatmulAllGather => 128 * ranks,
                    _ => 128,
                };
                // Of the last one there are more tiles than blocks.
                let all = [
                    (72, 4104, vec![most, 1, 77, most, 128, 100, 5]),
                    (600, 4160, vec![most, 9, 100]),
                    (8712, 1856, vec![100, 128]),
                ];
                for (n, k, calls) in all.into_iter().take(if gathers { 3 } else { 2 }) {
                    let sizes = (n * columns, k * depths);
                    let mut exercise = Exercise::new(op, sizes, tile, calls);
                    exercise.seed = 400 + at as u64;
                    exercise.transposed = n == 600;
                    exercise.strided = gathers && n == 72;
                    exercise.config.bias = at % 2 == 0;
                    exercise.config.first = i64::from(i32::MAX) - 3;
                    exercise.config.budget = crate::support::budget();
                    exercise.run_at_once::<bf16, i32, Cuda>(world)?;
                    if n == 72 {
                        exercise.config.packets = false;
                        exercise.run_at_once::<f16, i32, Cuda>(world)?;
                    }
                }
            }
            // An all-reduce in two steps by packets is one that a table asks for.
            let of = |m| TuningRow {
                n: 600,
                k: 4160 * ranks,
                ..row(world, m, Variant::TwoShot, true, tile)
            };
            let op = Op::AllReduce(Variant::Auto);
            let calls = vec![128, 9, 100, 128];
            let mut exercise = Exercise::new(op, (600, 4160 * ranks), tile, calls);
            exercise.config.tile = None;
            exercise.config.budget = crate::support::budget();
            exercise.config = exercise.config.tuning(Arc::new(Tuning::new([of(128)])));
            exercise.run_at_once::<bf16, i32, Cuda>(world)?;
            Ok(())
        });
    }
}
