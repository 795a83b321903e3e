//! Waits that do not end: what they say, whom they take along, and what makes the workspace work again. One thread plays all
//! ranks where none has to wait for another, so that what each sees is the same in every run.

use crate::world::{RankPort, World, rows};
use iris_sync::primitive::Ordering;
use iris_sync::{
    Cause, Fault, Layout, Patience, Pause, Polls, Ring, Rule, SpinLock, Step, Wait, Waiting, Word,
    WordKind,
};
use std::time::{Duration, Instant};

/// A call of a rank that has nothing to do in it.
fn pass<W: Word>(port: &RankPort<'_, W, Polls>) -> Result<(), Fault> {
    let call = port.begin(rows(8))?;
    call.gate(false, |_| 0)?;
    call.finish()
}

/// Passes `calls` calls.
fn pass_all<W: Word>(port: &RankPort<'_, W, Polls>, calls: usize) {
    for _ in 0..calls {
        pass(port).unwrap();
    }
}

fn two<W: Word>(world: &World<W>) -> [RankPort<'_, W, Polls>; 2] {
    [world.port(0, Polls(5)), world.port(1, Polls(5))]
}

/// Checks a fault of rank 0 that waited for rank 1.
fn waited(fault: Fault, index: u64, word: WordKind, expected: i64, seen: i64) {
    let wait = Wait {
        word,
        peer: 1,
        tile: None,
        expected,
        seen,
    };
    assert_eq!(
        (fault.operation, fault.rank, fault.index),
        ("model", 0, index),
        "{fault}"
    );
    assert_eq!(fault.cause, Cause::BudgetEnded { budget_ms: 0 }, "{fault}");
    assert_eq!(fault.wait, Some(wait), "{fault}");
}

fn layout() -> Layout {
    Layout::new(2, 2, 0)
}

/// Rank 1 enters so many calls, and makes all but the last.
fn enter<W: Word>(one: &RankPort<'_, W, Polls>, calls: usize) {
    pass_all(one, calls - 1);
    one.begin(rows(8)).unwrap();
}

#[test]
fn the_first_gate_is_that_of_the_third_call() {
    let world = World::<i8>::new(layout());
    let [zero, one] = two(&world);
    pass_all(&zero, 2);
    // Rank 1 has not been there.
    waited(pass(&zero).unwrap_err(), 2, WordKind::Entered, 2, 0);
    assert_eq!(pass(&one).unwrap_err().cause, Cause::Aborted { by: 0 });
}

#[test]
fn a_gate_does_not_open_for_who_may_still_be_in_the_call_before_the_previous() {
    let world = World::<i8>::new(layout());
    let [zero, one] = two(&world);
    pass_all(&zero, 2);
    // It has made its first call, and not entered the second.
    pass_all(&one, 1);
    waited(pass(&zero).unwrap_err(), 2, WordKind::Entered, 2, 1);

    let world = World::<i8>::new(layout());
    let [zero, one] = two(&world);
    pass_all(&zero, 2);
    enter(&one, 2);
    pass(&zero).unwrap();
}

/// Rank 0 has entered its third call and comes to the gate when rank 1 has entered so many.
fn third_gate<W: Word>(rules: &[Rule], first: i64, entered: usize) -> Result<(), Fault> {
    let world = World::<W>::new(layout()).starting_at(first).without(rules);
    let [zero, one] = two(&world);
    pass_all(&zero, 2);
    let call = zero.begin(rows(8)).unwrap();
    enter(&one, entered);
    call.gate(false, |_| 0)?;
    call.finish()
}

#[test]
fn a_gate_of_equality_misses_who_has_moved_on() {
    let fault = third_gate::<i8>(&[Rule::Reached], 1, 3).unwrap_err();
    waited(fault, 2, WordKind::Entered, 2, 3);
    third_gate::<i8>(&[Rule::Reached], 1, 2).unwrap();
    for entered in 2..=5 {
        third_gate::<i8>(&[], 1, entered).unwrap();
    }
}

#[test]
fn a_gate_of_plain_compares_is_shut_at_the_wrap() {
    let fault = third_gate::<i8>(&[Rule::ReachedOnRing], 126, 3).unwrap_err();
    waited(fault, 2, WordKind::Entered, 127, 1);
    third_gate::<i8>(&[], 126, 3).unwrap();
    third_gate::<i8>(&[Rule::ReachedOnRing], 1, 4).unwrap();
}

#[test]
fn a_ring_of_five_is_too_short() {
    // Rank 1 waits at the gate of its fifth call: three ahead of what rank 0 waits for.
    for first in 1..=5 {
        let fault = third_gate::<Ring<5>>(&[], first, 5).unwrap_err();
        let value = |index| 1 + (first - 1 + index) % 5;
        waited(fault, 2, WordKind::Entered, value(1), value(4));
    }
    for first in 1..=7 {
        third_gate::<Ring<7>>(&[], first, 5).unwrap();
    }
}

#[test]
fn a_rank_without_work_leaves_the_ring_unless_it_keeps_the_gate() {
    let run = |rules: &[Rule]| {
        let world = World::<Ring<7>>::new(layout()).without(rules);
        let [zero, one] = two(&world);
        pass_all(&zero, 2);
        let calls = (0..6).take_while(|_| pass(&one).is_ok()).count();
        let call = zero.begin(rows(8))?;
        call.gate(true, |_| 0).map(|()| calls)
    };
    waited(
        run(&[Rule::GateOfAll]).unwrap_err(),
        2,
        WordKind::Entered,
        2,
        6,
    );
    // With the rule it is rank 1 that waits, as it should: for rank 0 to enter a third call.
    let fault = run(&[]).unwrap_err();
    assert_eq!(fault.cause, Cause::Aborted { by: 1 });
}

/// A word that has a call's value from a lap ago is not believed: in calls that no rank owns anything in, all tell `gathered` twice a
/// lap. Rank 1 owns something in two calls a lap apart, and is late in the second.
#[test]
fn gathered_of_a_lap_ago_is_believed_unless_swept() {
    let run = |first: i64, rules: &[Rule]| {
        let world = World::<Ring<7>>::new(layout())
            .starting_at(first)
            .without(rules);
        let [zero, one] = two(&world);
        let both = |owned: bool| {
            let calls = [&one, &zero].map(|port| port.begin(rows(8)).unwrap());
            for call in calls {
                call.gate(false, |_| 0).unwrap();
                match owned {
                    true => call.finish_gathered(|owner| owner == 1).unwrap(),
                    false => call.finish_unowned().unwrap(),
                }
            }
        };
        both(true);
        (0..6).for_each(|_| both(false));
        one.begin(rows(8)).unwrap();
        let call = zero.begin(rows(8)).unwrap();
        call.gate(false, |_| 0).unwrap();
        (call.value().get(), call.finish_gathered(|owner| owner == 1))
    };
    for first in 1..=7 {
        let (value, end) = run(first, &[]);
        // The later of the two calls in which it has been told since.
        let seen = if matches!(first, 2 | 3) { 1 } else { 3 };
        waited(end.unwrap_err(), 7, WordKind::Gathered, value, seen);
        assert_eq!(run(first, &[Rule::Clear]), (value, Ok(())));
    }
}

#[test]
fn a_tile_that_does_not_come_is_named() {
    let world = World::<i32>::new(Layout::new(3, 8, 0)).starting_at(i64::from(i32::MAX));
    let ports: Vec<_> = (0..3)
        .map(|rank| world.port(rank, Patience::new(Duration::from_millis(10), 3)))
        .collect();
    let calls: Vec<_> = ports
        .iter()
        .map(|port| port.begin(rows(1)).unwrap())
        .collect();
    calls[2].push_ready(1, 6);
    calls[1].await_ready(2, 6).unwrap();
    let fault = calls[1].await_ready(2, 7).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "model, call 0 (value 2147483647), rank 1: waited 10 ms for `ready` of rank 2 for tile 7: \
         expected 2147483647, seen 0"
    );
    // Rank 0 waits for rank 2 as well, and leaves because of rank 1.
    let fault = calls[0].await_ready(2, 0).unwrap_err();
    assert_eq!(fault.cause, Cause::Aborted { by: 1 });
    assert_eq!(
        fault.to_string(),
        "model, call 0 (value 2147483647), rank 0: aborted by rank 1 while waiting for `ready` of rank 2 for tile 0: \
         expected 2147483647, seen 0"
    );
}

#[test]
fn all_later_calls_of_a_poisoned_workspace_leave_at_once() {
    let world = World::<i8>::new(layout());
    let port = world.port(0, Patience::new(Duration::from_millis(50), 2));
    let call = port.begin(rows(1)).unwrap();
    call.meet().unwrap_err();
    let since = Instant::now();
    for _ in 0..10_000 {
        let fault = port.begin(rows(1)).err().unwrap();
        assert_eq!(
            (fault.cause, fault.index, fault.wait),
            (Cause::Poisoned, 0, None)
        );
    }
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(port.index(), 0);
    // It has signalled nothing after its fault but that: its peer still sees the first call's `entered`.
    let peer = world.port(1, Polls(1));
    assert_eq!(
        peer.begin(rows(1)).err().unwrap().cause,
        Cause::Aborted { by: 0 }
    );
}

#[test]
fn the_host_ends_the_waits_of_its_rank_and_so_of_all() {
    let world = World::<i8>::new(Layout::new(3, 1, 0));
    let faults = std::thread::scope(|scope| {
        let host = world.port(1, Polls(0));
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            host.abort(1);
        });
        // Rank 0 never comes.
        world.run(None, |rank, port| {
            if rank == 0 {
                return None;
            }
            let call = port.begin(rows(4)).unwrap();
            Some(call.meet().unwrap_err())
        })
    });
    for fault in faults.into_iter().flatten() {
        assert_eq!(fault.cause, Cause::Aborted { by: 1 }, "{fault}");
        assert_eq!(fault.wait.unwrap().peer, 0, "{fault}");
    }
}

#[test]
fn a_reset_makes_a_poisoned_workspace_work_again() {
    const RANKS: usize = 3;
    let world = World::<i8>::new(Layout::new(RANKS, 1, 0)).starting_at(127);
    // A call in which each rank waits for all.
    let exchange = |port: &RankPort<'_, i8>| {
        let call = port.begin(rows(4))?;
        call.gate(true, |_| 1)?;
        for peer in call.peers() {
            call.push_ready(peer, 0);
        }
        for peer in call.peers() {
            call.await_ready(peer, 0)?;
        }
        call.finish_gathered(|_| true)
    };
    world.run(None, |rank, port| {
        let barrier = world.barrier(rank);
        for turn in 0..60 {
            // So many calls that work, then one that a rank does not make, for its host has asked it to leave. Its peers may
            // hear of that while they still wait in a call before.
            let good = turn % 4;
            let mut calls = 0;
            let fault = loop {
                if calls == good && rank == turn % RANKS {
                    port.abort(rank);
                }
                match exchange(&port) {
                    Ok(()) => calls += 1,
                    Err(fault) => break fault,
                }
            };
            assert!(matches!(fault.cause, Cause::Aborted { .. }), "{fault}");
            assert!(calls <= good, "a call without rank {}", turn % RANKS);
            assert_eq!(port.index(), calls as u64);
            assert!(port.is_poisoned());
            assert_eq!(exchange(&port).unwrap_err().cause, Cause::Poisoned);
            barrier.wait().unwrap();
            port.zero();
            barrier.wait().unwrap();
            assert!(!port.is_poisoned());
            assert_eq!(port.index(), 0);
        }
    });
}

#[test]
fn another_m_names_both() {
    let differ = |rules: &[Rule]| {
        let world = World::<i32>::new(layout()).without(rules);
        let [zero, one] = two(&world);
        let other = one.begin(rows(96)).unwrap();
        let call = zero.begin(rows(64)).unwrap();
        let met = call.meet();
        let theirs = other.meet();
        (met, theirs, zero.is_poisoned())
    };
    let (ours, theirs, poisoned) = differ(&[]);
    let fault = ours.unwrap_err();
    assert_eq!(
        fault.cause,
        Cause::Mismatch {
            ours: 64,
            theirs: 96
        }
    );
    assert_eq!(
        fault.to_string(),
        "model, call 0 (value 1), rank 0: field `m` differs: 64 here, 96 on rank 1"
    );
    assert!(poisoned);
    assert_eq!(
        theirs.unwrap_err().cause,
        Cause::Mismatch {
            ours: 96,
            theirs: 64
        }
    );

    let (ours, theirs, poisoned) = differ(&[Rule::Compare]);
    assert_eq!((ours, theirs, poisoned), (Ok(()), Ok(()), false));
}

#[test]
fn a_rank_two_calls_ahead_is_compared_with_the_same_call() {
    let world = World::<i8>::new(layout());
    let [zero, one] = two(&world);
    for index in 0..2 {
        let call = one.begin(rows(10 + index)).unwrap();
        call.gate(false, |_| 0).unwrap();
        call.finish().unwrap();
    }
    let ahead = one.begin(rows(12)).unwrap();
    for index in 0..3 {
        let call = zero.begin(rows(10 + index)).unwrap();
        call.gate(false, |_| 0).unwrap();
        call.meet().unwrap();
        assert_eq!(call.announcement(1), rows(10 + index));
        call.finish().unwrap();
    }
    ahead.meet().unwrap();
}

/// A wait whose only pause outlasts its budget, and during which the signal comes: as where all ranks' processes are stopped
/// for a while.
struct Stopped<'a>(&'a (dyn Fn() + Sync));

impl<'a> Waiting for Stopped<'a> {
    type Pause = Self;
    fn begin(&self) -> Self {
        Self(self.0)
    }
    fn budget_ms(&self) -> u64 {
        1
    }
}

impl Pause for Stopped<'_> {
    fn pause(&mut self) -> Step {
        (self.0)();
        Step::Over
    }
}

#[test]
fn a_signal_that_came_before_the_budget_was_seen_to_end_counts() {
    let world = World::<i8>::new(layout());
    let signal = || {
        world.port(1, Polls(0)).begin(rows(8)).unwrap();
    };
    let stopped = world.port(0, Stopped(&signal));
    stopped.begin(rows(8)).unwrap().meet().unwrap();

    let word = i8::atomic(1);
    let release = || i8::store(&word, 0, Ordering::Release);
    let lock = SpinLock::<i8>::new(&word);
    let held = lock.lock(&Stopped(&release), || Ok(()), || "over");
    assert!(held.is_ok());
}
