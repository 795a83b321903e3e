//! The rules as they stand: every operation, in every world, is free of deadlock and of wrong reads.

use crate::check::{Tally, assert_clean};
use crate::engine::Memory;
use crate::operations::*;
use crate::script::{Operation, Rules, World, build};

/// The sizes a model comes in.
#[derive(Clone, Copy)]
struct Size {
    what: &'static str,
    memory: Memory,
    ranks: usize,
    calls: usize,
    /// Every value of the ring as the first, or only those around its end.
    every_start: bool,
}

const SIZES: [Size; 4] = [
    Size {
        what: "2 ranks",
        memory: Memory::Sequential,
        ranks: 2,
        calls: 9,
        every_start: true,
    },
    Size {
        what: "2 ranks, relaxed",
        memory: Memory::Relaxed,
        ranks: 2,
        calls: 5,
        every_start: false,
    },
    Size {
        what: "3 ranks",
        memory: Memory::Sequential,
        ranks: 3,
        calls: 5,
        every_start: false,
    },
    Size {
        what: "3 ranks, relaxed",
        memory: Memory::Relaxed,
        ranks: 3,
        calls: 3,
        every_start: false,
    },
];

fn check(name: &str, operation: Operation, world: impl Fn(usize, usize) -> World) {
    for size in SIZES {
        let mut tally = Tally::default();
        for ring in [7, 9] {
            let starts = if size.every_start {
                1..=ring
            } else {
                ring - 1..=ring
            };
            for first in starts {
                let world = world(size.ranks, size.calls).on(ring, first);
                let what = format!("{name}, {}, ring {ring}, first {first}", size.what);
                let model = build(operation, &world, &Rules::default());
                tally.add(&assert_clean(&what, &model, size.memory));
            }
        }
        tally.print(&format!("{name}, {}", size.what));
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
    ($($operation:ident)*) => {$(
        mod $operation {
            use super::*;

            #[test]
            fn all_alike() {
                check(concat!(stringify!($operation), ", all alike"), $operation, super::all_alike);
            }

            #[test]
            fn one_owner() {
                check(concat!(stringify!($operation), ", one owner"), $operation, super::one_owner);
            }

            #[test]
            fn one_without_depth() {
                check(concat!(stringify!($operation), ", one without depth"), $operation, super::one_without_depth);
            }

            #[test]
            fn one_without_work() {
                check(concat!(stringify!($operation), ", one without work"), $operation, super::one_without_work);
            }

            #[test]
            fn sizes_vary() {
                check(concat!(stringify!($operation), ", sizes vary"), $operation, super::sizes_vary);
            }

            #[test]
            fn sizes_alternate() {
                check(concat!(stringify!($operation), ", sizes alternate"), $operation, super::sizes_alternate);
            }
        }
    )*};
}

worlds! {
    one_shot one_shot_pull two_shot reduce_scatter all_gather_matmul all_gather_matmul_pull matmul_all_gather
    atomic atomic_at_owner spinlock spinlock_at_owner
}

#[test]
fn barrier() {
    check("barrier", crate::operations::barrier, all_alike);
}
