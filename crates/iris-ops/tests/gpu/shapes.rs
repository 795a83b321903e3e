//! Every operation in every variant and dtype on ragged shapes, against f64 references.

use crate::support::{config, devices, gpus, threads, worlds};
use half::{bf16, f16};
use iris_heap::cuda::Cuda;
use iris_ops::{Runs, Tile};
use iris_testkit::{Exercise, Failure, Op};

/// The foundation's, and some of more than a tile each way.
const SHAPES: [(usize, usize, usize); 15] = [
    (1, 1, 1),
    (1, 17, 5),
    (13, 1, 7),
    (7, 5, 1),
    (2, 6, 2),
    (3, 11, 3),
    (5, 13, 17),
    (8, 8, 8),
    (17, 19, 23),
    (29, 31, 4),
    (9, 40, 37),
    (41, 7, 11),
    (300, 137, 70),
    (129, 264, 33),
    (257, 8, 128),
];

fn exercise(op: Op, at: usize) -> Exercise {
    let (m, n, k) = SHAPES[at];
    // The largest, then fewer, then the largest again.
    let calls = vec![m, m.div_ceil(2), 1, m, m];
    let mut exercise = Exercise::new(op, (n, k), Tile { m: 128, n: 128 }, calls);
    exercise.seed = at as u64;
    exercise.strided = at.is_multiple_of(2);
    exercise.config.bias = !at.is_multiple_of(3);
    exercise.config.plain_output = at % 4 == 1;
    exercise.config.first = i64::from(i32::MAX) - 3;
    exercise.config.tile = at.is_multiple_of(5).then_some(Tile { m: 64, n: 128 });
    exercise
}

fn every_shape<B>(world: &iris_heap::World<B>) -> Result<(), Failure>
where
    B: Runs<f32, i32> + Runs<f16, i32> + Runs<bf16, i32>,
{
    for op in Op::ALL {
        for at in 0..SHAPES.len() {
            let exercise = exercise(op, at);
            exercise.run_at_once::<f32, i32, B>(world)?;
            exercise.run_at_once::<f16, i32, B>(world)?;
            exercise.run_at_once::<bf16, i32, B>(world)?;
        }
    }
    Ok(())
}

#[test]
fn threads_are_right_on_ragged_shapes() {
    let gpus = gpus("shapes");
    for ranks in worlds(gpus) {
        let from = std::time::Instant::now();
        for result in threads(ranks, gpus, 64 << 20, every_shape) {
            result.unwrap();
        }
        println!("{ranks} ranks on {gpus} GPUs: {:?}", from.elapsed());
    }
}

/// Bits are the same on all ranks and in two runs where that is promised.
#[test]
fn one_shot_and_two_shot_have_the_same_bits_on_all_ranks_and_in_all_runs() {
    let gpus = gpus("bits");
    for ranks in worlds(gpus).filter(|&ranks| ranks <= 4) {
        for op in Op::ALL.into_iter().filter(|op| op.is_deterministic()) {
            let run = || {
                let mut exercise = Exercise::new(
                    op,
                    (200, 300),
                    Tile { m: 128, n: 128 },
                    vec![150, 3, 150, 1, 129],
                );
                exercise.config.first = i64::from(i32::MAX) - 2;
                threads(ranks, gpus, 64 << 20, |world| {
                    exercise.run_at_once::<bf16, i32, Cuda>(world)
                })
            };
            let hashes = |run: Vec<Result<u64, Failure>>| -> Vec<u64> {
                run.into_iter().map(Result::unwrap).collect()
            };
            let (first, second) = (hashes(run()), hashes(run()));
            assert_eq!(first, second, "{op}: two runs differ in bits");
            if op.share() == iris_testkit::Share::Whole {
                let same = first.iter().all(|hash| *hash == first[0]);
                assert!(same, "{op}: ranks differ in bits: {first:?}");
            }
        }
    }
}

#[test]
fn processes_are_right() {
    let gpus = gpus("processes");
    if gpus == 0 {
        return;
    }
    let ranks = gpus.min(8);
    let test = "shapes::processes_are_right";
    iris_testkit::worlds::processes(test, ranks, &config(), |world| {
        let world = world.on::<Cuda>(&devices(64 << 20, ranks, gpus))?;
        for op in Op::ALL {
            for at in [0, 5, 8, 12, 13] {
                exercise(op, at).run_at_once::<bf16, i32, Cuda>(&world)?;
            }
        }
        Ok(String::new())
    })
    .unwrap();
}
