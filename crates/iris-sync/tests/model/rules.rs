//! The rules as they stand: every operation, in every world, is free of deadlock and of wrong reads.

use crate::check::{Tally, assert_clean};
use crate::engine::Memory;
use crate::operations::*;
use crate::packets::{one_shot_packets, packets_or_two_shot};
use crate::script::{Operation, build};
use crate::world::{Rules, World};
use std::ops::RangeInclusive;

/// A size that models come in.
#[derive(Clone, Copy)]
struct Size {
    what: &'static str,
    memory: Memory,
    ranks: usize,
    calls: usize,
    /// The rings, each with the values that its first call has.
    rings: &'static [(u16, RangeInclusive<u16>)],
}

const EVERY_START: &[(u16, RangeInclusive<u16>)] = &[(7, 1..=7), (9, 1..=9)];
/// The first value such that the calls come around.
const AT_THE_END: &[(u16, RangeInclusive<u16>)] = &[(7, 6..=6), (9, 9..=9)];

/// Sequential models of 2 ranks run around the ring of 7 twice, which is when value and bank are both what they were.
const SIZES: [Size; 4] = [
    size("2 ranks, 16 calls", Memory::Sequential, 2, 16, EVERY_START),
    size("3 ranks, 7 calls", Memory::Sequential, 3, 7, EVERY_START),
    size("2 ranks, 6 calls", Memory::Relaxed, 2, 6, AT_THE_END),
    size("3 ranks, 3 calls", Memory::Relaxed, 3, 3, &[(7, 6..=6)]),
];

/// Critical sections multiply the states.
const SIZES_WITH_LOCKS: [Size; 4] = [
    size("2 ranks, 9 calls", Memory::Sequential, 2, 9, EVERY_START),
    size("3 ranks, 4 calls", Memory::Sequential, 3, 4, AT_THE_END),
    size("2 ranks, 5 calls", Memory::Relaxed, 2, 5, AT_THE_END),
    size("3 ranks, 1 call", Memory::Relaxed, 3, 1, &[(7, 7..=7)]),
];

const fn size(
    what: &'static str,
    memory: Memory,
    ranks: usize,
    calls: usize,
    rings: &'static [(u16, RangeInclusive<u16>)],
) -> Size {
    Size {
        what,
        memory,
        ranks,
        calls,
        rings,
    }
}

fn check(name: &str, operation: Operation, sizes: &[Size], world: impl Fn(usize, usize) -> World) {
    for size in sizes {
        let mut tally = Tally::default();
        for (ring, starts) in size.rings {
            for first in starts.clone() {
                let world = world(size.ranks, size.calls).on(*ring, first);
                let what = format!("{name}, {}, ring {ring}, first value {first}", size.what);
                let model = build(operation, &world, &Rules::default());
                tally.add(&assert_clean(&what, &model, size.memory));
            }
        }
        tally.print(&format!("{name}, {}, {:?}", size.what, size.memory));
    }
}

/// Every rank owns a tile.
fn all_alike(ranks: usize, calls: usize) -> World {
    World::new(ranks, calls, &(0..ranks).collect::<Vec<_>>())
}

/// Rank 0 owns the only tile.
fn one_owner(ranks: usize, calls: usize) -> World {
    World::new(ranks, calls, &[0])
}

/// The last rank contributes nothing.
fn one_without_depth(ranks: usize, calls: usize) -> World {
    all_alike(ranks, calls).without_depth(ranks - 1)
}

/// The last rank neither owns nor contributes anything.
fn one_without_work(ranks: usize, calls: usize) -> World {
    one_owner(ranks, calls).without_depth(ranks - 1)
}

/// Calls are large and small in turns of changing length.
fn sizes_vary(ranks: usize, calls: usize) -> World {
    let large: Vec<usize> = (0..ranks).collect();
    let small = [0];
    World::new(ranks, calls, &[]).varying(&[&large, &small, &small, &large, &large, &small, &large])
}

/// The ends of calls that use both tiles and calls that use one fall on each bank.
fn sizes_alternate(ranks: usize, calls: usize) -> World {
    let large: Vec<usize> = (0..ranks).collect();
    World::new(ranks, calls, &[]).varying(&[&[ranks - 1], &large, &large])
}

macro_rules! worlds {
    ($sizes:ident: $($operation:ident)*) => {$(
        mod $operation {
            worlds!(@ $operation, $sizes, all_alike);
            worlds!(@ $operation, $sizes, one_owner);
            worlds!(@ $operation, $sizes, one_without_depth);
            worlds!(@ $operation, $sizes, one_without_work);
            worlds!(@ $operation, $sizes, sizes_vary);
            worlds!(@ $operation, $sizes, sizes_alternate);
        }
    )*};
    (@ $operation:ident, $sizes:ident, $world:ident) => {
        #[test]
        fn $world() {
            let name = concat!(stringify!($operation), ", ", stringify!($world));
            super::check(name, super::$operation, &super::$sizes, super::$world);
        }
    };
}

worlds! { SIZES:
    one_shot one_shot_pull two_shot reduce_scatter all_gather_matmul all_gather_matmul_pull matmul_all_gather
    atomic atomic_at_owner one_shot_packets packets_or_two_shot
}

worlds! { SIZES_WITH_LOCKS: spinlock spinlock_at_owner }

#[test]
fn barrier() {
    check("barrier", crate::operations::barrier, &SIZES, all_alike);
}
