//! The lock and the barrier.

use crate::support::Words;
use crate::world::{Data, LONG, World, rows};
use iris_sync::{
    Barrier, Cause, Layout, Mapped, Patience, Polls, Rules, Signal, SpinLock, Word, WordKind,
};
use std::time::Duration;

#[test]
fn a_lock_is_held_by_one_at_a_time() {
    const RANKS: usize = 4;
    const TIMES: u64 = 5_000;
    let world = World::<i8>::new(Layout::new(RANKS, 0, 2));
    let sums = Data::new(2);
    world.run(None, |_, port| {
        let call = port.begin(rows(0)).unwrap();
        for turn in 0..TIMES as usize {
            let held = call.lock(3, turn % 2).unwrap();
            // Not an atomic addition: only the lock keeps it whole.
            sums.write(turn % 2, sums.read(turn % 2) + 1);
            drop(held);
        }
        assert_eq!((call.index(), call.value().get()), (0, 1));
        call.finish().unwrap();
        assert_eq!(port.index(), 1);
    });
    for lock in 0..2 {
        assert_eq!(sums.read(lock), RANKS as u64 * TIMES / 2);
    }
}

#[test]
fn a_lock_that_stays_held_ends_the_budget() {
    let world = World::<i16>::new(Layout::new(2, 0, 3));
    let holder = world.port(0, Polls(3));
    let call = holder.begin(rows(0)).unwrap();
    let held = call.lock(1, 2).unwrap();
    let budget = Duration::from_millis(20);
    let other = world.port(1, Patience::new(budget, 2));
    let waiting = other.begin(rows(0)).unwrap();
    drop(waiting.lock(1, 1).unwrap());
    let fault = waiting.lock(1, 2).unwrap_err();
    assert_eq!(fault.cause, Cause::BudgetEnded { budget_ms: 20 });
    let wait = fault.wait.unwrap();
    assert_eq!(
        (wait.word, wait.peer, wait.tile),
        (WordKind::Lock, 1, Some(2))
    );
    assert_eq!((wait.expected, wait.seen), (0, 1));
    assert!(other.is_poisoned());
    drop(held);
    // The one who waited has taken its peer along.
    let fault = holder.begin(rows(0)).err().unwrap();
    assert_eq!(fault.cause, Cause::Aborted { by: 1 });
}

#[test]
fn a_lock_outside_of_any_call() {
    let word = i64::atomic(0);
    let lock = SpinLock::<i64>::new(&word);
    let held = lock.lock(&Polls(0), || Ok(()), || "over").unwrap();
    assert!(lock.try_lock().is_none());
    assert_eq!(
        lock.lock(&Polls(2), || Ok(()), || "over").unwrap_err(),
        "over"
    );
    assert_eq!(
        lock.lock(&Polls(2), || Err("leave"), || "over")
            .unwrap_err(),
        "leave"
    );
    drop(held);
    assert!(lock.try_lock().is_some());
}

/// `rounds` rounds of 4 threads, from a few values before the wrap: what each wrote before a barrier, all read after it.
fn rounds<W: Word>(rounds: u64) {
    const RANKS: usize = 4;
    let words = Words::<W>::new(Barrier::<W, Mapped<'_, W>, Patience>::layout(RANKS));
    let first = Signal::new(W::MAX - 2).unwrap();
    // Two places, for a rank writes the next round's while others still read this one's.
    let data = Data::new(2 * RANKS);
    std::thread::scope(|scope| {
        for rank in 0..RANKS {
            let (words, data) = (&words, &data);
            scope.spawn(move || {
                let waiting = Patience::new(LONG, RANKS);
                let barrier = Barrier::starting_at(words.view(rank), waiting, first, Rules::ALL);
                for round in 1..=rounds {
                    let place = (round % 2) as usize * RANKS;
                    data.write(place + rank, round);
                    barrier.wait().unwrap();
                    for peer in 0..RANKS {
                        assert_eq!(
                            data.read(place + peer),
                            round,
                            "{} of {peer} at {rank}",
                            W::NAME
                        );
                    }
                }
            });
        }
    });
}

#[test]
fn a_barrier_is_reusable() {
    rounds::<i8>(10_000);
    rounds::<i32>(10_000);
}

#[test]
fn a_barrier_that_a_rank_does_not_come_to_ends_the_budget() {
    let words = Words::<i32>::new(Barrier::<i32, Mapped<'_, i32>, Polls>::layout(3));
    let barriers: Vec<_> = (0..3)
        .map(|rank| Barrier::new(words.view(rank), Polls(2)))
        .collect();
    let fault = barriers[1].wait().unwrap_err();
    assert_eq!(
        (fault.operation, fault.rank, fault.index),
        ("barrier", 1, 0)
    );
    assert_eq!(fault.cause, Cause::BudgetEnded { budget_ms: 0 });
    let wait = fault.wait.unwrap();
    assert_eq!((wait.word, wait.peer), (WordKind::Barrier, 2));
    assert_eq!((wait.expected, wait.seen), (1, 0));
    // Who comes later leaves at once, and says because of whom: of all that have left, the first.
    for (late, by) in [(0, 1), (2, 0)] {
        let fault = barriers[late].wait().unwrap_err();
        assert_eq!(fault.cause, Cause::Aborted { by });
    }
}
