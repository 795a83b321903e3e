//! Every operation in every variant, on ragged shapes, against f64 references.

use half::{bf16, f16};
use iris_heap::{World, WorldConfig};
use iris_ops::Tile;
use iris_testkit::{Exercise, Op};

/// (m, n, k): sizes of one, fewer rows or depth than ranks, primes, more than a tile each way.
const SHAPES: [(usize, usize, usize); 12] = [
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
];

fn every_shape(world: usize) {
    let config = WorldConfig {
        heap_bytes: 8 << 20,
        ..WorldConfig::default()
    };
    let results = World::threads(world, &config, |world| {
        for op in Op::ALL {
            for (at, (m, n, k)) in SHAPES.into_iter().enumerate() {
                // The largest, then fewer, then the largest again.
                let calls = vec![m, m.div_ceil(2), 1, m, m];
                let tile = Tile { m: 4, n: 6 };
                let mut exercise = Exercise::new(op, (n, k), tile, calls);
                exercise.seed = at as u64;
                exercise.strided = at % 2 == 0;
                exercise.config.bias = at % 3 != 0;
                exercise.config.plain_output = at % 4 == 1;
                if at % 5 == 0 {
                    exercise.config.tile = None;
                }
                exercise.run::<f32, i32>(&world)?;
                exercise.run::<f16, i32>(&world)?;
                exercise.run::<bf16, i32>(&world)?;
            }
        }
        Ok::<(), iris_testkit::Failure>(())
    });
    for result in results.unwrap() {
        result.unwrap();
    }
}

#[test]
fn one_rank() {
    every_shape(1);
}

#[test]
fn two_ranks() {
    every_shape(2);
}

#[test]
fn three_ranks() {
    every_shape(3);
}

#[test]
fn four_ranks() {
    every_shape(4);
}

#[test]
fn five_ranks() {
    every_shape(5);
}

#[test]
fn eight_ranks() {
    every_shape(8);
}
