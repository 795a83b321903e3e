//! Stores into a peer's output, which its user reads between calls.

use crate::harness::{Failure, Rank, STALE, explore, fails, ranks, stamp, without};
use iris_sync::{Announcement, Ring, Rule, Rules, Word};

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

/// The ranks take turns in storing the result into the other's output. Who has no turn tells `gathered` all the same, which
/// must not fall on the one that the other still waits for.
fn taking_turns<W: Word, const CALLS: u64>(rank: Rank<W>) {
    for index in 0..CALLS {
        let call = rank.enter(false);
        let turn = (index % 2) as usize;
        if rank.rank() == turn {
            rank.store(&call);
        }
        call.finish_gathered(|owner| owner == turn).unwrap();
        if rank.rank() != turn {
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

#[test]
fn ranks_take_turns_in_storing() {
    explore(None, ranks(1, Rules::ALL, taking_turns::<i8, 2>));
    explore(Some(3), ranks(7, Rules::ALL, taking_turns::<Ring<7>, 3>));
    fails(
        Some(3),
        Failure::Deadlock,
        ranks(1, without(Rule::Entered), taking_turns::<i8, 3>),
    );
}

/// Rank 1 may be two calls ahead of rank 0 when rank 0 reads what rank 1 announced.
fn announcing<const CALLS: u64>(rank: Rank<i8>) {
    for index in 0..CALLS {
        let announcement = Announcement {
            m: stamp(index),
            ..Announcement::default()
        };
        let call = rank.port.begin(announcement).unwrap();
        call.gate(false, |_| 0).unwrap();
        if rank.rank() == 0 {
            call.meet().expect(STALE);
            assert_eq!(call.announcement(1), announcement, "{STALE}");
        }
        call.finish().unwrap();
    }
}

#[test]
fn what_a_rank_ahead_announced_is_read_of_the_same_call() {
    explore(None, ranks(1, Rules::ALL, announcing::<2>));
    explore(Some(3), ranks(1, Rules::ALL, announcing::<3>));
    fails(
        Some(3),
        Failure::WrongData,
        ranks(1, without(Rule::Release), announcing::<1>),
    );
}
