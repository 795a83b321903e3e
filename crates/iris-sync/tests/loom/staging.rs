//! Data that goes through staging: the first use of each bank, the reuse of a bank under its gate, and ranks that run ahead.

use crate::harness::{Failure, Rank, explore, fails, ranks, without};
use iris_sync::{Ring, Rule, Rules, Word};

/// Each rank hands a tile to the other in each call.
pub(crate) fn exchange<W: Word, const CALLS: u64>(rank: Rank<W>) {
    for _ in 0..CALLS {
        let call = rank.enter(true);
        rank.hand_over(&call);
        rank.take_over(&call).unwrap();
        call.finish().unwrap();
    }
}

/// Rank 1 hands a tile to rank 0 in each call, and waits for nothing in return: it finishes early, and only the gate keeps
/// it from writing where rank 0 still reads.
pub(crate) fn hand_over<W: Word, const CALLS: u64>(rank: Rank<W>) {
    for _ in 0..CALLS {
        let call = rank.enter(rank.rank() == 1);
        match rank.rank() {
            0 => rank.take_over(&call).unwrap(),
            _ => rank.hand_over(&call),
        }
        call.finish().unwrap();
    }
}

/// Nobody hands anything to anybody, as where one rank owns all rows and the other has none: what is left of a call is its
/// gate.
fn owe_nothing<W: Word, const CALLS: u64>(rank: Rank<W>) {
    for _ in 0..CALLS {
        rank.enter(false).finish().unwrap();
    }
}

#[test]
fn first_use_of_each_bank() {
    explore(None, ranks(1, Rules::ALL, exchange::<i8, 2>));
    explore(None, ranks(1, Rules::ALL, hand_over::<i8, 2>));
}

#[test]
fn first_use_of_each_bank_fails_with_one_bank() {
    let rules = without(Rule::TwoBanks);
    fails(
        Some(3),
        Failure::WrongData,
        ranks(1, rules, exchange::<i8, 2>),
    );
    fails(
        Some(3),
        Failure::WrongData,
        ranks(1, rules, hand_over::<i8, 2>),
    );
}

#[test]
fn first_use_of_each_bank_fails_without_release() {
    let rules = without(Rule::Release);
    fails(Some(3), Failure::Race, ranks(1, rules, exchange::<i8, 1>));
}

#[test]
fn reuse_of_a_bank_under_its_gate() {
    explore(Some(3), ranks(1, Rules::ALL, exchange::<i8, 4>));
    explore(Some(3), ranks(1, Rules::ALL, hand_over::<i8, 4>));
}

#[test]
fn reuse_of_a_bank_fails_without_a_gate() {
    // Where each rank waits for the other's tile, that wait says what the gate says. So not by `exchange`.
    let rules = without(Rule::Gate);
    fails(
        Some(3),
        Failure::WrongData,
        ranks(1, rules, hand_over::<i8, 3>),
    );
}

#[test]
fn reuse_of_a_bank_fails_where_the_gate_is_an_equality() {
    let rules = without(Rule::Reached);
    fails(
        Some(3),
        Failure::Deadlock,
        ranks(1, rules, hand_over::<i8, 3>),
    );
}

#[test]
fn reuse_of_a_bank_fails_with_a_frozen_value() {
    let rules = without(Rule::ValueFromIndex);
    fails(
        Some(3),
        Failure::WrongData,
        ranks(1, rules, hand_over::<i8, 3>),
    );
}

/// As `owe_nothing`, but rank 0 counts as one that writes.
fn one_writes<W: Word, const CALLS: u64>(rank: Rank<W>) {
    for _ in 0..CALLS {
        rank.enter(rank.rank() == 0).finish().unwrap();
    }
}

#[test]
fn a_rank_that_owes_nothing_stays_within_the_ring() {
    explore(Some(3), ranks(1, Rules::ALL, owe_nothing::<Ring<7>, 4>));
    explore(Some(2), ranks(1, Rules::ALL, owe_nothing::<Ring<7>, 5>));
    explore(Some(2), ranks(1, Rules::ALL, owe_nothing::<Ring<9>, 4>));
    explore(Some(1), ranks(1, Rules::ALL, one_writes::<Ring<7>, 6>));
}

#[test]
fn a_rank_that_owes_nothing_leaves_the_ring_without_a_gate_of_its_own() {
    let rules = without(Rule::GateOfAll);
    let model = ranks(1, rules, one_writes::<Ring<7>, 6>);
    fails(Some(1), Failure::Deadlock, model);
}

#[test]
fn a_ring_of_five_or_three_is_too_short() {
    fails(
        Some(3),
        Failure::Deadlock,
        ranks(1, Rules::ALL, owe_nothing::<Ring<5>, 5>),
    );
    fails(
        Some(3),
        Failure::Deadlock,
        ranks(1, Rules::ALL, owe_nothing::<Ring<3>, 4>),
    );
}
