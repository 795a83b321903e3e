//! The protocols of ROCm/iris and of its pull request 529: one tile, back-to-back calls, no host barrier between them but
//! where zeroing has one. Each rank keeps its partial in its own buffer and signals on its own lock, which its peers poll.
//!
//! | protocol | every rank reads | only the owner reads |
//! |---|---|---|
//! | signal `n`, wait `== n`, one bank (the pull request) | deadlock and wrong data | deadlock and wrong data |
//! | signal `n`, wait `>= n`, one bank | wrong data | wrong data |
//! | `== n`, two data banks, words not banked, no gate | deadlock | deadlock and wrong data |
//! | `>= n`, two banks, no gate | clean | wrong data |
//! | zero locks, then barrier (asynchronous use) | deadlock and wrong data | deadlock and wrong data |
//! | counter frozen by graph capture | wrong data | wrong data |
//! | the rules of this crate | clean | clean |

use crate::check::explore;
use crate::engine::Memory;
use crate::machine::{Cells, Compare, Model, Op};
use crate::operations::{one_shot, reduce_scatter};
use crate::script::build;
use crate::world::{Arithmetic, Rules, World};

const CALLS: u16 = 4;

#[derive(Debug, Clone, Copy)]
struct Protocol {
    compare: Compare,
    banks: u16,
    /// The signal is a constant, and before every call but the first each rank zeroes its lock and its partial and meets the others.
    zeroed: bool,
    /// The value was captured in a graph of one call.
    frozen: bool,
}

const PULL_REQUEST: Protocol = Protocol {
    compare: Compare::Equal,
    banks: 1,
    zeroed: false,
    frozen: false,
};

fn model(ranks: usize, owner_only: bool, protocol: Protocol) -> Model {
    let mut model = Model::new(Cells::default(), Arithmetic::ring(127).reached);
    for rank in 0..ranks {
        let mut ops = Vec::new();
        for n in 1..=CALLS {
            let signal = match protocol {
                Protocol { zeroed: true, .. } => 1,
                Protocol { frozen: true, .. } => 5,
                _ => n,
            };
            let bank = n % protocol.banks;
            let partial =
                |cells: &mut Cells, rank| cells.get(rank, format!("partial[bank {bank}]"));
            let lock = model.cells.get(rank, "lock");
            if protocol.zeroed && n > 1 {
                ops.push(Op::store(lock, 0));
                ops.push(Op::store(partial(&mut model.cells, rank), 0));
                ops.push(Op::HostBarrier(u32::from(n)));
            }
            ops.push(Op::store(partial(&mut model.cells, rank), n));
            ops.push(Op::release(lock, signal));
            let peers = (0..ranks).filter(|&peer| peer != rank);
            for peer in peers.filter(|_| rank == 0 || !owner_only) {
                ops.push(Op::wait(
                    model.cells.get(peer, "lock"),
                    signal,
                    protocol.compare,
                ));
                let theirs = partial(&mut model.cells, peer);
                ops.push(Op::check(
                    theirs,
                    n,
                    format!("call {n}: partial of rank {peer}"),
                ));
            }
        }
        model.actor(format!("rank {rank}"), rank, ops);
    }
    model
}

/// Asserts which of (deadlock, wrong data) a protocol shows where every rank reads, and where only the owner does.
fn shows(protocol: Protocol, every_rank: (bool, bool), owner_only: (bool, bool)) {
    for ranks in [2, 3] {
        for (only, expected) in [(false, every_rank), (true, owner_only)] {
            let outcome = explore(&model(ranks, only, protocol), Memory::Sequential);
            let seen = (outcome.deadlock.is_some(), outcome.wrong.is_some());
            assert_eq!(
                seen, expected,
                "{ranks} ranks, owner only: {only}, {protocol:?}"
            );
            println!(
                "{ranks} ranks, owner only: {only}: {} states, {:.2?}",
                outcome.states, outcome.elapsed
            );
        }
    }
}

#[test]
fn equality_in_one_bank_deadlocks_and_reads_wrong_data() {
    shows(PULL_REQUEST, (true, true), (true, true));
}

#[test]
fn at_least_in_one_bank_reads_wrong_data() {
    let protocol = Protocol {
        compare: Compare::AtLeast,
        ..PULL_REQUEST
    };
    shows(protocol, (false, true), (false, true));
}

#[test]
fn equality_in_two_banks_deadlocks() {
    shows(
        Protocol {
            banks: 2,
            ..PULL_REQUEST
        },
        (true, false),
        (true, true),
    );
}

#[test]
fn at_least_in_two_banks_reads_wrong_data_where_only_the_owner_reads() {
    let protocol = Protocol {
        compare: Compare::AtLeast,
        banks: 2,
        ..PULL_REQUEST
    };
    shows(protocol, (false, false), (false, true));
}

#[test]
fn zeroing_then_barrier_deadlocks_and_reads_wrong_data() {
    shows(
        Protocol {
            zeroed: true,
            ..PULL_REQUEST
        },
        (true, true),
        (true, true),
    );
}

#[test]
fn a_frozen_counter_reads_wrong_data() {
    shows(
        Protocol {
            frozen: true,
            ..PULL_REQUEST
        },
        (false, true),
        (false, true),
    );
}

#[test]
fn the_rules_are_clean() {
    for ranks in [2, 3] {
        let world = World::new(ranks, usize::from(CALLS), &[0]).on(7, 5);
        for operation in [one_shot, reduce_scatter] {
            let outcome = explore(
                &build(operation, &world, &Rules::default()),
                Memory::Sequential,
            );
            assert_eq!(
                (outcome.deadlock, outcome.wrong),
                (None, None),
                "{ranks} ranks"
            );
        }
    }
}
