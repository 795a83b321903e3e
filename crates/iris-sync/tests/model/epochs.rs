//! Reset, faults and memory that is used again: what happens when a workspace's words begin anew.

use crate::check::{Tally, assert_clean, assert_fails};
use crate::engine::{Bad, Memory};
use crate::machine::{Cell, Cells, Compare, Escape, Model, Op};
use crate::operations::*;
use crate::script::{Operation, Script, wait_count};
use crate::world::{Arithmetic, Rules, World};

/// What a reset is made of, besides zeroing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reset {
    pub(crate) barrier_before: bool,
    pub(crate) barrier_after: bool,
}

const RESET: Reset = Reset {
    barrier_before: true,
    barrier_after: true,
};

/// All calls of `world`, a reset, and all calls again. With a fault, that rank gives up before the operation of that number
/// in its first epoch: it says so to its peers, and they leave their waits, and later calls as they begin.
pub(crate) fn epochs(
    operation: Operation,
    world: &World,
    reset: Reset,
    fault: Option<(usize, usize)>,
) -> Model {
    let rules = Rules::default();
    let mut model = Model::new(Cells::default(), world.ring.reached);
    let programs: Vec<[Vec<Vec<Op>>; 2]> = (0..world.ranks)
        .map(|rank| {
            [0, 1].map(|epoch| {
                let call = |i| {
                    let mut script = Script::new(world, &rules, rank, &mut model.cells);
                    script.epoch = epoch;
                    operation(&mut script, i);
                    script.ops
                };
                (0..world.calls.len()).map(call).collect()
            })
        })
        .collect();
    let abort: Vec<Cell> = (0..world.ranks)
        .map(|rank| model.cells.get(rank, "abort"))
        .collect();
    let zeroed = zeroed_by_reset(&model.cells, world.ranks);
    for (rank, [first, second]) in programs.into_iter().enumerate() {
        let mut ops = match fault {
            None => first.concat(),
            Some((faulty, at)) if faulty == rank => {
                let mut ops = first.concat();
                ops.truncate(at);
                let peers = abort.iter().enumerate().filter(|&(peer, _)| peer != rank);
                ops.extend(peers.map(|(_, &cell)| Op::release(cell, 1)));
                ops
            }
            Some(_) => leaving_on(abort[rank], &first),
        };
        if reset.barrier_before {
            ops.push(Op::HostBarrier(0));
        }
        ops.extend(zeroed[rank].iter().map(|&cell| Op::store(cell, 0)));
        ops.push(Op::Join(u32::MAX));
        if reset.barrier_after {
            ops.push(Op::HostBarrier(1));
        }
        ops.extend(second.concat());
        model.actor(format!("rank {rank}"), rank, ops);
    }
    model
}

/// The program of a rank that looks at `abort` at the beginning of each call and in every wait, and then leaves for good.
fn leaving_on(abort: Cell, calls: &[Vec<Op>]) -> Vec<Op> {
    let end = (calls.len() + calls.iter().map(Vec::len).sum::<usize>()) as u16;
    let escape = Some(Escape {
        cell: abort,
        to: end,
    });
    let mut ops = Vec::new();
    for call in calls {
        ops.push(Op::Branch {
            cell: abort,
            value: 0,
            otherwise: end,
        });
        ops.extend(call.iter().cloned().map(|op| match op {
            Op::Wait {
                cell,
                target,
                compare,
                ..
            } => Op::Wait {
                cell,
                target,
                compare,
                escape,
            },
            Op::Lock { cell, .. } => Op::Lock { cell, escape },
            other => other,
        }));
    }
    ops
}

/// What each rank zeroes: words, accumulators and locks. Staging may keep what it holds.
fn zeroed_by_reset(cells: &Cells, ranks: usize) -> Vec<Vec<Cell>> {
    const KEPT: [&str; 6] = ["staging", "output", "m[", "A[", "register", "data"];
    let mut of = vec![Vec::new(); ranks];
    for (number, info) in cells.info.iter().enumerate() {
        if !KEPT.iter().any(|kept| info.name.starts_with(kept)) {
            of[info.home].push(Cell::numbered(number as u16));
        }
    }
    of
}

const OPERATIONS: [(&str, Operation); 7] = [
    ("one_shot", one_shot),
    ("two_shot", two_shot),
    ("reduce_scatter", reduce_scatter),
    ("all_gather_matmul", all_gather_matmul),
    ("matmul_all_gather", matmul_all_gather),
    ("atomic", atomic),
    ("spinlock_at_owner", spinlock_at_owner),
];

/// Counter and words are cleared together, between two barriers; then all begins anew.
#[test]
fn a_reset_between_barriers_begins_anew() {
    for (name, operation) in OPERATIONS {
        for memory in [Memory::Sequential, Memory::Relaxed] {
            for calls in 1..=4 {
                let world = World::new(2, calls, &[0, 1]).on(7, 6);
                assert_clean(name, &epochs(operation, &world, RESET, None), memory);
            }
        }
        let world = World::new(3, 3, &[0, 1, 2]).on(7, 6).without_depth(2);
        assert_clean(
            name,
            &epochs(operation, &world, RESET, None),
            Memory::Sequential,
        );
    }
}

/// Zeroing before all ranks are through with the last call takes a word away that somebody still waits for, ...
#[test]
fn a_reset_without_the_barrier_before_deadlocks() {
    let reset = Reset {
        barrier_before: false,
        ..RESET
    };
    let world = World::new(2, 3, &[0]).on(7, 1);
    let model = epochs(reduce_scatter, &world, reset, None);
    assert_fails(
        "no barrier before",
        &model,
        Memory::Sequential,
        Bad::Deadlock,
    );
}

/// ... and lets a late word of the old epoch into the new one, where it opens a gate.
#[test]
fn a_reset_without_the_barrier_before_reads_wrong_data() {
    let reset = Reset {
        barrier_before: false,
        ..RESET
    };
    let world = World::new(2, 3, &[0]).on(7, 1);
    assert_clean(
        "both barriers",
        &epochs(all_gather_matmul, &world, RESET, None),
        Memory::Sequential,
    );
    let model = epochs(all_gather_matmul, &world, reset, None);
    assert_fails(
        "no barrier before",
        &model,
        Memory::Sequential,
        Bad::WrongData,
    );
}

/// Going on before all ranks have zeroed loses what a fast rank of the new epoch has said.
#[test]
fn a_reset_without_the_barrier_after_deadlocks() {
    let reset = Reset {
        barrier_after: false,
        ..RESET
    };
    let world = World::new(2, 2, &[0, 1]).on(7, 1);
    for operation in [one_shot as Operation, two_shot, reduce_scatter] {
        let model = epochs(operation, &world, reset, None);
        assert_fails(
            "no barrier after",
            &model,
            Memory::Sequential,
            Bad::Deadlock,
        );
    }
}

/// ... and accumulators that a fast rank of the new epoch has added to.
#[test]
fn a_reset_without_the_barrier_after_reads_wrong_data() {
    let reset = Reset {
        barrier_after: false,
        ..RESET
    };
    let world = World::new(2, 2, &[0]).on(7, 1);
    for operation in [atomic as Operation, atomic_at_owner] {
        assert_clean(
            "both barriers",
            &epochs(operation, &world, RESET, None),
            Memory::Sequential,
        );
        let model = epochs(operation, &world, reset, None);
        assert_fails(
            "no barrier after",
            &model,
            Memory::Sequential,
            Bad::WrongData,
        );
    }
}

/// Every rank drains its stream before the first barrier: a kernel of the old epoch that is still queued would run in the
/// new one. Rank 1's host resets while its stream has not come to its last call.
#[test]
fn a_reset_without_draining_the_stream_reads_wrong_data() {
    let late_kernel = |drained: bool| {
        let mut model = Model::new(Cells::default(), Arithmetic::ring(7).reached);
        let ready = model.cells.get(0, "ready");
        let staging = model.cells.get(0, "staging");
        let ended = model.cells.get(1, "stream drained");
        let send = |data| [Op::store(staging, data), Op::release(ready, 1)];
        let reset = || [Op::HostBarrier(0), Op::HostBarrier(1)];
        let reader = [Op::HostBarrier(0), Op::store(ready, 0), Op::HostBarrier(1)];
        let awaited = [
            Op::wait(ready, 1, Compare::Equal),
            Op::check(staging, 2, "the new epoch's first call"),
        ];
        model.actor("rank 0", 0, [&reader[..], &awaited].concat());
        model.actor(
            "rank 1's old kernel",
            1,
            [
                &send(1)[..],
                &[Op::Arrive {
                    cell: ended,
                    release: true,
                }],
            ]
            .concat(),
        );
        let drain = if drained {
            vec![wait_count(ended, 1)]
        } else {
            Vec::new()
        };
        model.actor(
            "rank 1's host",
            1,
            [&drain[..], &reset(), &send(2)].concat(),
        );
        model
    };
    for memory in [Memory::Sequential, Memory::Relaxed] {
        assert_clean("drained", &late_kernel(true), memory);
        assert_fails("not drained", &late_kernel(false), memory, Bad::WrongData);
    }
}

/// Symmetric memory is freed only when all ranks are through with it, and memory for words is zeroed, and a barrier passed,
/// before its first use. Rank 1's last push of the old operation may still be on its way when rank 0 makes a new one there.
fn word_made_of_freed_memory(zeroed: bool, barriers: bool) -> Model {
    let mut model = Model::new(Cells::default(), Arithmetic::ring(7).reached);
    // What the old operation left in the word; it is about to push the same again, a lap later.
    let ready = model.cells.get_or(0, "ready", 1);
    let staging = model.cells.get(0, "staging");
    let barrier = |id| {
        if barriers {
            vec![Op::HostBarrier(id)]
        } else {
            Vec::new()
        }
    };
    let zero = if zeroed {
        vec![Op::store(ready, 0)]
    } else {
        Vec::new()
    };
    let reader = [
        Op::wait(ready, 1, Compare::Equal),
        Op::check(staging, 1, "the new operation's first call"),
    ];
    let mut ops = barrier(0);
    ops.extend(zero);
    ops.extend(barrier(1));
    ops.extend(reader);
    model.actor("rank 0", 0, ops);
    let mut ops = vec![Op::release(ready, 1)];
    ops.extend(barrier(0));
    ops.extend(barrier(1));
    ops.extend([Op::store(staging, 1), Op::release(ready, 1)]);
    model.actor("rank 1", 1, ops);
    model
}

#[test]
fn freed_memory_that_is_not_zeroed_reads_wrong_data() {
    for memory in [Memory::Sequential, Memory::Relaxed] {
        assert_clean(
            "zeroed between barriers",
            &word_made_of_freed_memory(true, true),
            memory,
        );
        assert_fails(
            "not zeroed",
            &word_made_of_freed_memory(false, true),
            memory,
            Bad::WrongData,
        );
    }
}

#[test]
fn freed_memory_that_is_zeroed_without_barriers_reads_wrong_data_or_deadlocks() {
    let model = word_made_of_freed_memory(true, false);
    for memory in [Memory::Sequential, Memory::Relaxed] {
        assert_fails("no barriers", &model, memory, Bad::WrongData);
        assert_fails("no barriers", &model, memory, Bad::Deadlock);
    }
}

/// A rank gives up anywhere in any of its calls, also while it holds a lock of a peer's: the others leave, nobody reads
/// wrong data before the reset, and after it the workspace works again.
fn every_fault(memory: Memory, world: &World) {
    for (name, operation) in OPERATIONS {
        let mut tally = Tally::default();
        let whole = epochs(operation, world, RESET, None);
        for rank in 0..world.ranks {
            let mut ops = whole.actors[rank].ops.iter();
            let length = ops.position(|op| matches!(op, Op::HostBarrier(0)));
            for at in 0..=length.expect("a reset") {
                let model = epochs(operation, world, RESET, Some((rank, at)));
                let what = format!("{name}, rank {rank} gives up at {at}");
                tally.add(&assert_clean(&what, &model, memory));
            }
        }
        tally.print(&format!(
            "{name}, a fault anywhere, {} ranks, {memory:?}",
            world.ranks
        ));
    }
}

#[test]
fn a_fault_anywhere_ends_all_ranks_and_a_reset_repairs_it() {
    every_fault(Memory::Sequential, &World::new(2, 4, &[0, 1]).on(7, 6));
}

#[test]
fn a_fault_anywhere_ends_all_ranks_and_a_reset_repairs_it_where_one_owns_all() {
    every_fault(Memory::Sequential, &World::new(2, 4, &[0]).on(7, 6));
}

#[test]
fn a_fault_anywhere_ends_all_ranks_and_a_reset_repairs_it_relaxed() {
    every_fault(Memory::Relaxed, &World::new(2, 3, &[0]).on(7, 6));
}

#[test]
fn a_fault_anywhere_ends_three_ranks_and_a_reset_repairs_it() {
    every_fault(Memory::Sequential, &World::new(3, 1, &[0]).on(7, 6));
}
