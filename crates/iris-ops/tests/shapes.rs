//! Every operation in every variant, on ragged shapes, against f64 references.

use half::{bf16, f16};
use iris_heap::{World, WorldConfig};
use iris_ops::Tile;
use iris_testkit::{Exercise, Op, RAGGED};

fn every_shape(world: usize) {
    let config = WorldConfig {
        heap_bytes: 8 << 20,
        ..WorldConfig::default()
    };
    let results = World::threads(world, &config, |world| {
        for op in Op::ALL {
            for (at, (m, n, k)) in RAGGED.into_iter().enumerate() {
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
