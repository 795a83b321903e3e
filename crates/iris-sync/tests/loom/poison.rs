//! A rank whose wait does not end leaves, takes its peers along, and begins nothing before the next reset.

use crate::harness::{Failure, RANKS, Rank, Waits, both, explore, fails, world};
use crate::reset::reset;
use iris_sync::{Cause, Fault, Rules, WordKind};
use std::sync::{Arc, Mutex};

/// Two calls in which each rank hands a tile to the other, for as long as none of them faults.
fn exchange_twice(rank: &Rank<i8>) -> Result<(), Fault> {
    for _ in 0..2 {
        let call = rank.try_enter(true)?;
        rank.hand_over(&call);
        rank.take_over(&call)?;
        call.finish()?;
    }
    Ok(())
}

/// Rank 0 waits for a single poll and then gives up; rank 1 waits as `other` does.
fn impatient(other: Waits) -> impl Fn() + Send + Sync + 'static {
    move || {
        let faults = [Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None))];
        let [zero, one] = world(1, Rules::ALL, [Waits::Polls(1), other]);
        let body = |(rank, fault): (Rank<i8>, Arc<Mutex<Option<Fault>>>)| {
            let Err(first) = exchange_twice(&rank) else {
                return;
            };
            // It begins nothing more, whoever has left meanwhile.
            let again = rank.try_enter(true).err().expect("a poisoned workspace");
            assert_eq!(again.cause, Cause::Poisoned);
            *fault.lock().unwrap() = Some(first);
        };
        let ends = [(zero, faults[0].clone()), (one, faults[1].clone())];
        both(ends, body, body);
        let [zero, one] = faults.map(|fault| *fault.lock().unwrap());
        if let Some(zero) = zero {
            let wait = zero.wait.expect("it waited");
            assert_eq!(zero.cause, Cause::BudgetEnded { budget_ms: 0 });
            assert_eq!((zero.rank, wait.peer, wait.word), (0, 1, WordKind::Ready));
            // It signals nothing more, so its peer does not get through the call after the one it left.
            assert!(zero.index == 1 || one.is_some());
        }
        if let Some(one) = one {
            let zero = zero.expect("rank 1 leaves for no reason of its own");
            assert_eq!((one.rank, one.cause), (1, Cause::Aborted { by: 0 }));
            assert!(one.index <= zero.index + 1);
        }
    }
}

#[test]
fn a_rank_that_gives_up_takes_its_peer_along() {
    explore(None, impatient(Waits::Looking));
}

#[test]
fn a_peer_that_does_not_look_waits_for_ever() {
    fails(Some(3), Failure::Deadlock, impatient(Waits::Patiently));
}

/// What a model fails with whose workspace does not work after its reset.
const AGAIN: &str = "a reset workspace works";

/// Both ranks wait for a tile that nobody hands over, until the host of rank 0, if it is there, asks its rank to leave.
/// Then a reset, with or without its first barrier, and a call that works.
fn aborted(host: bool, before: bool) -> impl Fn() + Send + Sync + 'static {
    move || {
        let ends = world::<i8>(1, Rules::ALL, [Waits::Looking; RANKS]);
        let host = host.then(|| {
            let port = ends[0].host();
            loom::thread::spawn(move || port.abort(0))
        });
        let body = move |rank: Rank<i8>| {
            let call = rank.try_enter(false);
            let fault = call.and_then(|call| rank.take_over(&call)).unwrap_err();
            assert_eq!(
                (fault.rank, fault.cause),
                (rank.rank(), Cause::Aborted { by: 0 })
            );
            assert!(rank.port.is_poisoned());
            reset(&rank, before, true);
            let call = rank.try_enter(true).expect(AGAIN);
            rank.hand_over(&call);
            rank.take_over(&call).expect(AGAIN);
            call.finish().expect(AGAIN);
        };
        both(ends, body, body);
        if let Some(host) = host {
            host.join().unwrap();
        }
    }
}

#[test]
fn an_abort_by_the_host_ends_all_waits_until_the_reset() {
    explore(Some(3), aborted(true, true));
}

#[test]
fn without_the_abort_nobody_leaves() {
    fails(Some(2), Failure::Deadlock, aborted(false, true));
}

#[test]
fn a_late_abort_outlives_a_reset_without_the_barrier_before() {
    fails(Some(2), Failure::Message(AGAIN), aborted(true, false));
}
