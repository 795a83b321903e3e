//! Properties of values, of the *reached* compare and of the counter, against integers that do not wrap.
#![cfg(not(any(loom, shuttle)))]

mod support;

use iris_sync::primitive::Ordering;
use iris_sync::{
    Announcement, Layout, Polls, Port, Ring, Signal, SignalCounter, SpinLock, Word, bank, reached,
};
use proptest::prelude::*;
use std::collections::HashSet;
use support::Words;

/// The value of the call with the unwrapped number `call`, where call 0 signals 1.
fn value<W: Word>(call: i128) -> i64 {
    i64::try_from(1 + call.rem_euclid(i128::from(W::MAX))).expect("at most MAX")
}

/// Half a lap: how far a writer may be ahead or behind for the compare to tell.
fn half<W: Word>() -> i128 {
    i128::from((W::MAX - 1) / 2)
}

/// Checks *reached* for a waiter of call `target` and a writer that stands `ahead` calls further.
fn agrees<W: Word>(target: i128, ahead: i128) {
    let signal = Signal::<W>::new(value::<W>(target)).expect("a value of the ring");
    let seen = value::<W>(target + ahead);
    assert_eq!(
        reached(seen, signal),
        ahead >= 0,
        "{}: target {target} ({signal}), {ahead} calls ahead ({seen})",
        W::NAME
    );
}

/// Every target of two laps, and every distance that half a lap covers: each pair of values of the ring, and no more.
fn agrees_everywhere<W: Word>() {
    let mut pairs = HashSet::new();
    for target in 0..2 * i128::from(W::MAX) {
        for ahead in -half::<W>()..=half::<W>() {
            agrees::<W>(target, ahead);
            pairs.insert((value::<W>(target), value::<W>(target + ahead)));
        }
        let signal = Signal::<W>::new(value::<W>(target)).expect("a value of the ring");
        assert!(
            !reached(0, signal),
            "a word never signalled reaches nothing"
        );
    }
    assert_eq!(pairs.len() as i64, W::MAX * W::MAX);
}

#[test]
fn reached_agrees_with_integers_over_the_whole_ring() {
    agrees_everywhere::<i8>();
    agrees_everywhere::<Ring<7>>();
    agrees_everywhere::<Ring<9>>();
    // The compare itself holds on these too; what they are too short for is the protocol.
    agrees_everywhere::<Ring<3>>();
    agrees_everywhere::<Ring<5>>();
}

/// Integers in `low..=high`, with both edges and what lies beside them drawn often.
fn edgy(low: i128, high: i128) -> impl Strategy<Value = i128> {
    prop_oneof![
        2 => low..=high,
        1 => low..=(low + 3).min(high),
        1 => (high - 3).max(low)..=high,
    ]
}

/// Unwrapped call numbers of the first three laps, those around the wraps drawn often.
fn calls<W: Word>() -> impl Strategy<Value = i128> {
    let lap = i128::from(W::MAX);
    prop_oneof![
        edgy(0, lap - 1),
        edgy(lap, 2 * lap - 1),
        edgy(2 * lap, 3 * lap - 1)
    ]
}

/// How far a writer may stand from the waiter's target, with both edges and the place itself drawn often.
fn distances<W: Word>() -> impl Strategy<Value = i128> {
    prop_oneof![edgy(-half::<W>(), -1), edgy(0, half::<W>())]
}

macro_rules! for_each_word {
    ($($module:ident: $word:ty),*) => {$(
        mod $module {
            use super::*;

            type W = $word;
            const MAX: i64 = <W as Word>::MAX;

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(4096))]

                #[test]
                fn reached_agrees_with_integers(target in calls::<W>(), ahead in distances::<W>()) {
                    agrees::<W>(target, ahead);
                }

                #[test]
                fn reached_is_never_reached_by_zero(target in calls::<W>()) {
                    let signal = Signal::<W>::new(value::<W>(target)).unwrap();
                    prop_assert!(!reached(0, signal));
                }

                #[test]
                fn value_and_bank_follow_from_the_index(first in calls::<W>(), index: u64) {
                    let first = value::<W>(first);
                    let counter = SignalCounter::<W>::starting_at(first).unwrap();
                    let expected = value::<W>(i128::from(first) - 1 + i128::from(index));
                    let got = counter.value(index).get();
                    prop_assert_eq!(got, expected);
                    prop_assert!((1..=MAX).contains(&got), "never 0");
                    prop_assert_eq!(bank(index) as u64, index % 2);
                }

                #[test]
                fn no_value_repeats_within_a_lap(first in calls::<W>(), index in 0..=u64::MAX / 2, later in edgy(1, i128::from(MAX) - 1)) {
                    let counter = SignalCounter::<W>::starting_at(value::<W>(first)).unwrap();
                    let later = index + u64::try_from(later).unwrap();
                    prop_assert_ne!(counter.value(index), counter.value(later));
                    // It does a lap later: the bound is sharp.
                    prop_assert_eq!(counter.value(index), counter.value(index + MAX as u64));
                }

                #[test]
                fn a_value_is_a_signal_if_it_lies_on_the_ring(value in prop_oneof![any::<i64>(), -3..4_i64, MAX - 3..=MAX]) {
                    let on_the_ring = (1..=MAX).contains(&value);
                    prop_assert_eq!(Signal::<W>::new(value).map(Signal::get), on_the_ring.then_some(value));
                    prop_assert_eq!(SignalCounter::<W>::starting_at(value).is_some(), on_the_ring);
                }

                #[test]
                fn clearing_resets_counter_and_words_together(first in calls::<W>(), calls in 0..300_usize, words in 0..8_usize) {
                    let mut counter = SignalCounter::<W>::starting_at(value::<W>(first)).unwrap();
                    let fresh = counter;
                    let words: Vec<_> = (0..words).map(|_| W::atomic(0)).collect();
                    for call in 0..calls {
                        let value = counter.next();
                        if let Some(word) = words.get(call % 8) {
                            W::store(word, value.get(), Ordering::Release);
                        }
                    }
                    prop_assert_eq!(counter.index(), calls as u64);
                    counter.clear(&words);
                    prop_assert_eq!(counter, fresh);
                    prop_assert_eq!((counter.index(), counter.bank()), (0, 0));
                    prop_assert_eq!(counter.signal_value().get(), value::<W>(first));
                    for word in &words {
                        prop_assert_eq!(W::load(word, Ordering::Acquire), 0);
                    }
                }
            }

            #[test]
            fn one_follows_the_largest_value() {
                let mut counter = SignalCounter::<W>::starting_at(MAX).unwrap();
                assert_eq!(counter.next().get(), MAX);
                assert_eq!(counter.next().get(), 1);
                assert_eq!(counter.signal_value().get(), 2);
                assert_eq!(Signal::<W>::new(MAX).unwrap().after(1), Signal::ONE);
            }

            #[test]
            fn the_parity_of_the_value_is_not_the_bank_across_a_wrap() {
                let counter = SignalCounter::<W>::new();
                let last = MAX as u64 - 1;
                // The last call of a lap and the first of the next: odd values both, and different banks.
                assert_eq!(counter.value(last).get() % 2, counter.value(last + 1).get() % 2);
                assert_ne!(bank(last), bank(last + 1));
            }

            #[test]
            fn who_never_touches_the_counter_signals_with_one() {
                let counter = SignalCounter::<W>::new();
                let word = W::atomic(0);
                for _ in 0..3 {
                    assert_eq!(counter.signal_value(), Signal::ONE);
                    W::store(&word, counter.signal_value().get(), Ordering::Release);
                    assert!(reached(W::load(&word, Ordering::Acquire), counter.signal_value()));
                    W::store(&word, 0, Ordering::Release); // by hand
                    assert!(!reached(W::load(&word, Ordering::Acquire), counter.signal_value()));
                }
                assert_eq!(SignalCounter::<W>::default().signal_value().get(), 1);
            }
        }
    )*};
}

for_each_word!(word_i8: i8, word_i16: i16, word_i32: i32, word_i64: i64, ring_7: Ring<7>, ring_9: Ring<9>);

#[test]
fn after_int32_max_comes_one() {
    let mut counter = SignalCounter::<i32>::starting_at(2_147_483_646).unwrap();
    let values: Vec<_> = (0..4).map(|_| counter.next().get()).collect();
    assert_eq!(values, [2_147_483_646, 2_147_483_647, 1, 2]);
}

/// Walks a counter for two laps and sees each value of the ring once in each, in order.
fn walks<W: Word>() {
    let mut counter = SignalCounter::<W>::new();
    for lap in 0..2 {
        for expected in 1..=W::MAX {
            let index = (lap * W::MAX + expected - 1) as u64;
            assert_eq!(
                (counter.index(), counter.bank()),
                (index, (index % 2) as usize)
            );
            assert_eq!(counter.next().get(), expected, "{} at {index}", W::NAME);
        }
    }
}

#[test]
fn a_lap_has_each_value_once() {
    walks::<i8>();
    walks::<i16>();
    walks::<Ring<7>>();
    walks::<Ring<9>>();
}

/// What may happen to a counter and to spin locks beside it.
#[derive(Debug, Clone, Copy)]
enum Step {
    Call,
    TryLock(usize),
    LockFor(usize, u32),
    Unlock(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Call),
        (0..3_usize).prop_map(Step::TryLock),
        (0..3_usize, 0..3_u32).prop_map(|(lock, polls)| Step::LockFor(lock, polls)),
        (0..3_usize).prop_map(Step::Unlock),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn spin_locks_leave_the_counter_alone(steps in steps(), first in 1..=127_i64) {
        let mut counter = SignalCounter::<i8>::starting_at(first).unwrap();
        let words: Vec<_> = (0..3).map(|_| i8::atomic(0)).collect();
        let mut held = [const { None }; 3];
        let mut calls = 0;
        for step in steps {
            match step {
                Step::Call => {
                    let expected = value::<i8>(i128::from(first) - 1 + calls);
                    prop_assert_eq!(counter.next().get(), expected);
                    calls += 1;
                }
                Step::TryLock(lock) => {
                    let got = SpinLock::<i8>::new(&words[lock]).try_lock();
                    prop_assert_eq!(got.is_some(), held[lock].is_none());
                    held[lock] = held[lock].take().or(got);
                }
                Step::LockFor(lock, polls) => {
                    let got = SpinLock::<i8>::new(&words[lock]).lock(&Polls(polls), || Ok(()), || "over");
                    prop_assert_eq!(got.is_ok(), held[lock].is_none());
                    held[lock] = held[lock].take().or(got.ok());
                }
                Step::Unlock(lock) => held[lock] = None,
            }
            for (held, word) in held.iter().zip(&words) {
                prop_assert_eq!(i8::load(word, Ordering::Acquire), i64::from(held.is_some()));
            }
            prop_assert_eq!(i128::from(counter.index()), calls);
        }
    }

    #[test]
    fn a_call_takes_value_and_bank_from_the_index_in_memory(first in 1..=127_i64, locks in prop::collection::vec(0..4_usize, 1..400)) {
        let words = Words::<i8>::new(Layout::new(1, 0, 4));
        let mut port = Port::new("alone", words.view(0), Polls(0));
        port.first = Signal::new(first).unwrap();
        for (index, locks) in locks.into_iter().enumerate() {
            prop_assert_eq!(port.index(), index as u64);
            let call = port.begin(Announcement::default()).unwrap();
            call.gate(true, |_| 0).unwrap();
            for lock in 0..locks {
                drop(call.lock(0, lock).unwrap());
                prop_assert_eq!(port.index(), index as u64);
            }
            prop_assert_eq!(call.index(), index as u64);
            prop_assert_eq!(call.bank(), index % 2);
            prop_assert_eq!(call.value().get(), value::<i8>(i128::from(first) - 1 + index as i128));
            call.finish().unwrap();
        }
    }
}
