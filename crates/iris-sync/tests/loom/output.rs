//! Stores into a peer's output, which its user reads between calls.

use crate::harness::{Failure, Rank, STALE, explore, fails, ranks, stamp, without};
use iris_sync::{Ring, Rule, Rules, Word};

/// Rank 0 stores each call's result into the output of rank 1, whose user reads it after each call.
fn results<W: Word, const CALLS: u64>(rank: Rank<W>) {
    for index in 0..CALLS {
        let call = rank.enter(false);
        if rank.rank() == 0 {
            rank.store(&call);
        }
        call.finish_gathered(|owner| owner == 0).unwrap();
        if rank.rank() == 1 {
            assert_eq!(rank.output(), stamp(index), "{STALE}");
        }
    }
}

#[test]
fn an_output_belongs_to_its_user_between_calls() {
    explore(None, ranks(1, Rules::ALL, results::<i8, 2>));
    explore(Some(3), ranks(1, Rules::ALL, results::<i8, 3>));
}

#[test]
fn an_output_belongs_to_its_user_across_the_wrap() {
    for first in [6, 7] {
        explore(Some(3), ranks(first, Rules::ALL, results::<Ring<7>, 3>));
    }
}

#[test]
fn an_output_is_stored_into_too_early_without_entered() {
    let rules = without(Rule::Entered);
    fails(
        Some(3),
        Failure::WrongData,
        ranks(1, rules, results::<i8, 2>),
    );
}

#[test]
fn entered_is_missed_where_it_is_an_equality() {
    // Rank 1 stores into nobody's output and is told of nobody's stores, so it may enter the next call before rank 0 looks.
    let model = |rank: Rank<i8>| {
        for _ in 0..2 {
            let call = rank.enter(false);
            if rank.rank() == 0 {
                call.meet().unwrap();
            }
            call.finish().unwrap();
        }
    };
    explore(None, ranks(1, Rules::ALL, model));
    fails(
        Some(3),
        Failure::Deadlock,
        ranks(1, without(Rule::Reached), model),
    );
}

#[test]
fn an_output_is_read_too_early_without_gathered() {
    let rules = without(Rule::Gathered);
    fails(
        Some(3),
        Failure::WrongData,
        ranks(1, rules, results::<i8, 1>),
    );
}

#[test]
fn an_output_is_read_too_early_without_release() {
    let rules = without(Rule::Release);
    fails(Some(3), Failure::Race, ranks(1, rules, results::<i8, 1>));
}
