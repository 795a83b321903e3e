//! Back-to-back calls as fast as they can be enqueued, with fresh inputs, sizes drawn at random, ranks stalled at random in the
//! midst of their calls, and the counter started just below the wrap.
//!
//! `IRIS_CALLS=10000 cargo test --release -p iris-ops --test stress` is the full count; without the variable it is 1,000.

use iris_heap::{World, WorldConfig};
use iris_ops::{GatherDim, Tile, Variant};
use iris_sync::Phase;
use iris_testkit::{ChosenStall, Exercise, Failure, Op, RandomStalls, Stream, Tensor, worlds};
use std::sync::Arc;
use std::time::Duration;

fn calls() -> usize {
    std::env::var("IRIS_CALLS").map_or(1000, |calls| calls.parse().expect("IRIS_CALLS is a number"))
}

/// More rows than ranks, or fewer; with these tiles each owner has at least three of the largest call.
#[derive(Clone, Copy)]
enum Size {
    ManyRows,
    FewRows,
}

fn stress(world: &World, op: Op, size: Size) -> Result<String, Failure> {
    let (largest, n, k, tile) = match size {
        Size::ManyRows => (17, 6, 9, Tile { m: 2, n: 2 }),
        Size::FewRows => (2, 11, 5, Tile { m: 1, n: 2 }),
    };
    let mut draw = Stream::new(99, 0, 0, Tensor::Plan);
    let rows = (0..calls())
        .map(|_| 1 + draw.below(largest) as usize)
        .collect();
    let mut exercise = Exercise::new(op, (n, k), tile, rows);
    exercise.seed = 7;
    exercise.strided = true;
    exercise.config.m = largest as usize;
    exercise.config.bias = true;
    exercise.config.first = i64::from(i32::MAX) - 3;
    exercise.config.probe = Some(Arc::new(RandomStalls {
        seed: 3,
        one_in: 300,
        longest: Duration::from_millis(1),
    }));
    Ok(exercise.run::<f32, i32>(world)?.to_string())
}

fn config() -> WorldConfig {
    WorldConfig {
        heap_bytes: 4 << 20,
        ..WorldConfig::default()
    }
}

/// Two runs on threads, which agree bit for bit where the operation promises it.
fn on_threads(op: Op) {
    for (ranks, size) in [(4, Size::ManyRows), (3, Size::FewRows)] {
        let run = || worlds::threads(ranks, &config(), |world| stress(world, op, size)).unwrap();
        let first = run();
        same_bits(op, &first, &run());
    }
}

fn on_processes(test: &str, op: Op) {
    for ranks in [4, 3] {
        // A rank's process comes to the first size whatever it was started for: its world tells which it is.
        let said = worlds::processes(test, ranks, &config(), |world| {
            let size = if world.size() == 4 {
                Size::ManyRows
            } else {
                Size::FewRows
            };
            stress(world, op, size)
        })
        .unwrap();
        same_bits(op, &said, &said);
    }
}

/// Two runs of an operation say the same hash, on every rank that gets the whole result.
fn same_bits(op: Op, first: &[String], second: &[String]) {
    if !op.is_deterministic() {
        return;
    }
    assert_eq!(first, second, "{op}: two runs differ in bits");
    if matches!(op, Op::AllReduce(_) | Op::MatmulAllGather) {
        assert!(
            first.iter().all(|hash| *hash == first[0]),
            "{op}: ranks differ in bits: {first:?}"
        );
    }
}

macro_rules! stress {
    ($($name:ident: $op:expr;)*) => {
        mod threads {
            use super::*;
            $(#[test] fn $name() { on_threads($op); })*
        }
        mod processes {
            use super::*;
            $(#[test] fn $name() { on_processes(concat!("processes::", stringify!($name)), $op); })*
        }
    };
}

stress! {
    auto: Op::AllReduce(Variant::Auto);
    one_shot: Op::AllReduce(Variant::OneShot);
    two_shot: Op::AllReduce(Variant::TwoShot);
    atomic: Op::AllReduce(Variant::Atomic);
    spinlock: Op::AllReduce(Variant::Spinlock);
    reduce_scatter: Op::ReduceScatter;
    all_gather_matmul_rows: Op::AllGatherMatmul(GatherDim::Rows);
    all_gather_matmul_columns: Op::AllGatherMatmul(GatherDim::Columns);
    matmul_all_gather: Op::MatmulAllGather;
}

/// With 8-bit words a lap is 127 calls, and (value, bank) come again after 254: a tile used once, left unused for exactly that
/// long, and then used again, must not be believed before it is there.
#[test]
fn a_tile_left_unused_for_two_laps_of_i8_words() {
    for op in Op::ALL {
        let mut rows = vec![8];
        rows.extend([1; 253]);
        rows.extend([8, 1, 8]);
        let mut exercise = Exercise::new(op, (6, 5), Tile { m: 1, n: 2 }, rows);
        exercise.config.first = 125;
        exercise.config.probe = Some(Arc::new(RandomStalls {
            seed: 5,
            one_in: 100,
            longest: Duration::from_micros(300),
        }));
        worlds::threads(3, &config(), |world| {
            exercise.run::<f32, i8>(world).map(|hash| hash.to_string())
        })
        .unwrap();
    }
}

/// `auto` carries small calls out one-shot, in which nobody stores into a peer's output. After 126 of those, the value of a
/// two-shot call comes again: its `gathered` must not be there already.
#[test]
fn a_lap_of_small_calls_between_two_large_ones() {
    let mut rows = vec![2];
    rows.extend([1; 126]);
    rows.push(2);
    let stalled = (rows.len() - 1) as u64;
    let mut exercise = Exercise::new(
        Op::AllReduce(Variant::Auto),
        (4096, 3),
        Tile { m: 1, n: 1024 },
        rows,
    );
    exercise.config.probe = Some(Arc::new(ChosenStall {
        ranks: vec![0],
        calls: vec![stalled],
        phases: vec![Phase::Store],
        tiles: vec![],
        duration: Duration::from_millis(50),
    }));
    worlds::threads(2, &config(), |world| {
        exercise.run::<f32, i8>(world).map(|hash| hash.to_string())
    })
    .unwrap();
}
