//! The barrier, used again and again: data written before it is seen after it.

use crate::harness::{
    Data, Failure, RANKS, STALE, View, Waits, both, explore, fails, stamp, without,
};
use iris_sync::{Barrier, Memory, Ring, Rule, Rules, Signal, Word};
use std::sync::Arc;

/// In each round each rank writes, passes the barrier, and reads what the other wrote. There are two places to write to, for
/// the other rank still reads while this one writes for the next round.
fn rounds<W: Word, const ROUNDS: u64>(
    first: i64,
    rules: Rules,
) -> impl Fn() + Send + Sync + 'static {
    move || {
        let data = Data::new(2 * RANKS);
        let first = Signal::new(first).expect("a value of the ring");
        let ends = View::<W>::of_all(Barrier::<W, View<W>, Waits>::layout(RANKS))
            .map(|view| (view, data.clone()));
        let body = move |(view, data): (View<W>, Arc<Data>)| {
            let rank = view.rank();
            let barrier = Barrier::starting_at(view, Waits::Patiently, first, rules);
            for round in 0..ROUNDS {
                let place = (round as usize % 2) * RANKS;
                data.write(place + rank, stamp(round));
                barrier.wait().unwrap();
                assert_eq!(data.read(place + 1 - rank), stamp(round), "{STALE}");
            }
        };
        both(ends, body, body);
    }
}

#[test]
fn a_barrier_is_reusable() {
    explore(None, rounds::<i8, 2>(1, Rules::ALL));
    explore(Some(3), rounds::<i8, 3>(1, Rules::ALL));
}

#[test]
fn a_barrier_is_reusable_across_the_wrap() {
    for first in [6, 7] {
        explore(Some(3), rounds::<Ring<7>, 3>(first, Rules::ALL));
    }
}

#[test]
fn a_barrier_of_equality_misses_who_has_moved_on() {
    fails(
        Some(3),
        Failure::Deadlock,
        rounds::<i8, 2>(1, without(Rule::Reached)),
    );
}

#[test]
fn a_barrier_of_plain_compares_is_open_at_the_wrap() {
    fails(
        Some(3),
        Failure::WrongData,
        rounds::<Ring<7>, 2>(7, without(Rule::ReachedOnRing)),
    );
}

#[test]
fn a_barrier_with_a_frozen_value_is_open_from_the_second_round_on() {
    fails(
        Some(3),
        Failure::WrongData,
        rounds::<i8, 2>(1, without(Rule::ValueFromIndex)),
    );
}

#[test]
fn a_barrier_that_nobody_waits_at_is_none() {
    fails(
        Some(3),
        Failure::WrongData,
        rounds::<i8, 1>(1, without(Rule::Entered)),
    );
}

#[test]
fn a_barrier_without_release_shows_no_data() {
    fails(
        Some(3),
        Failure::Race,
        rounds::<i8, 1>(1, without(Rule::Release)),
    );
}
