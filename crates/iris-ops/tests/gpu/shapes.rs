//! Every operation in every variant and dtype on ragged shapes, against f64 references.

use crate::support::{GpuWorld, budget, compile_ahead, on_gpus, processes_all, threads, worlds};
use half::{bf16, f16};
use iris_heap::cuda::Cuda;
use iris_ops::Tile;
use iris_testkit::device::Gpus;
use iris_testkit::{Exercise, Failure, Op, RAGGED, Share};
use std::time::Instant;

/// (m, n, k) of more than a tile each way.
const TILED: [(usize, usize, usize); 3] = [(300, 137, 70), (129, 264, 33), (257, 8, 128)];

/// The number of [`shape`]s.
const SHAPES: usize = RAGGED.len() + TILED.len();

fn shape(at: usize) -> (usize, usize, usize) {
    *RAGGED
        .iter()
        .chain(&TILED)
        .nth(at)
        .expect("a number of a shape")
}

const TILES: [Tile; 2] = [Tile { m: 128, n: 128 }, Tile { m: 64, n: 128 }];

fn exercise(op: Op, (m, n, k): (usize, usize, usize), calls: Vec<usize>) -> Exercise {
    let mut exercise = Exercise::new(op, (n, k), TILES[0], calls);
    exercise.config.m = m;
    exercise.config.budget = budget();
    exercise.config.first = i64::from(i32::MAX) - 3;
    exercise
}

/// Bias, strides, outputs and tiles change from shape to shape.
fn ragged(op: Op, at: usize) -> Exercise {
    let (m, n, k) = shape(at);
    // The largest, then fewer, then the largest again.
    let mut exercise = exercise(op, (m, n, k), vec![m, m.div_ceil(2), 1, m, m]);
    exercise.seed = at as u64;
    exercise.strided = at.is_multiple_of(2);
    exercise.config.bias = !at.is_multiple_of(3);
    exercise.config.plain_output = at % 4 == 1;
    exercise.config.tile = at.is_multiple_of(5).then_some(TILES[1]);
    exercise
}

fn every_dtype(world: &GpuWorld, exercise: &Exercise) -> Result<(), Failure> {
    exercise.run_at_once::<f32, i32, Cuda>(world)?;
    exercise.run_at_once::<f16, i32, Cuda>(world)?;
    exercise.run_at_once::<bf16, i32, Cuda>(world)?;
    Ok(())
}

fn every_shape(world: &GpuWorld) -> Result<(), Failure> {
    for op in Op::ALL {
        for at in 0..SHAPES {
            every_dtype(world, &ragged(op, at))?;
        }
    }
    Ok(())
}

#[test]
fn threads_are_right_on_ragged_shapes() {
    let Some(gpus) = Gpus::take("shapes::threads", 1) else {
        return;
    };
    let from = Instant::now();
    compile_ahead(&gpus, &TILES);
    println!("  compiled: {:.1} s", from.elapsed().as_secs_f64());
    for ranks in worlds(&gpus) {
        let from = Instant::now();
        threads(ranks, &gpus, every_shape);
        let took = from.elapsed().as_secs_f64();
        println!(
            "  {ranks} ranks on {} GPUs: {took:.1} s",
            gpus.devices().len()
        );
    }
}

#[test]
fn processes_are_right_on_ragged_shapes() {
    processes_all(
        "shapes::processes_are_right_on_ragged_shapes",
        |gpus| gpus.min(8),
        |world| {
            every_shape(&on_gpus(world)?)?;
            Ok(String::new())
        },
    );
}

/// Processes that share GPUs run in turns: each wait takes a turn of the other.
#[test]
fn processes_that_share_gpus_are_right() {
    processes_all(
        "shapes::processes_that_share_gpus_are_right",
        |gpus| gpus + 1,
        |world| {
            let world = on_gpus(world)?;
            for op in Op::ALL {
                for at in [5, 13] {
                    ragged(op, at).run_at_once::<bf16, i32, Cuda>(&world)?;
                }
            }
            Ok(String::new())
        },
    );
}

/// A few calls of every operation, a process each rank: for tools that slow kernels down.
#[test]
fn few_by_processes() {
    processes_all(
        "shapes::few_by_processes",
        |gpus| gpus.min(2),
        |world| {
            let world = on_gpus(world)?;
            for op in Op::ALL {
                let mut exercise = exercise(op, (33, 70, 40), vec![33, 1, 33]);
                exercise.strided = true;
                exercise.config.bias = true;
                exercise.run_at_once::<f32, i32, Cuda>(&world)?;
                exercise.run_at_once::<bf16, i32, Cuda>(&world)?;
            }
            Ok(String::new())
        },
    );
}

/// Bits are the same on all ranks, in two runs, and in two worlds, where that is promised.
#[test]
fn one_shot_and_two_shot_have_the_same_bits_on_all_ranks_and_in_all_runs() {
    let Some(gpus) = Gpus::take("shapes::bits", 1) else {
        return;
    };
    let ops: Vec<_> = Op::ALL
        .into_iter()
        .filter(|op| op.is_deterministic())
        .collect();
    for ranks in worlds(&gpus).into_iter().filter(|&ranks| ranks <= 4) {
        let hashes = || {
            threads(ranks, &gpus, |world| {
                let twice = ops.iter().map(|&op| {
                    let exercise = exercise(op, (150, 200, 300), vec![150, 3, 150, 1, 129]);
                    let run = || exercise.run_at_once::<bf16, i32, Cuda>(world);
                    Ok((run()?, run()?))
                });
                twice.collect::<Result<Vec<_>, Failure>>()
            })
        };
        let (first, second) = (hashes(), hashes());
        for (at, op) in ops.iter().enumerate() {
            for (rank, (one, other)) in first.iter().zip(&second).enumerate() {
                let (hash, runs) = (one[at].0, [one[at].1, other[at].0, other[at].1]);
                assert_eq!(
                    runs, [hash; 3],
                    "{op}: runs differ in bits, rank {rank} of {ranks}"
                );
                if op.share() == Share::Whole {
                    assert_eq!(
                        hash, first[0][at].0,
                        "{op}: rank {rank} of {ranks} differs in bits"
                    );
                }
            }
        }
    }
}
