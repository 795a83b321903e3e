//! A collective reset: barrier, zero, barrier. Either barrier alone is not enough.

use crate::harness::{Failure, Rank, STALE, explore, fails, ranks, stamp};
use iris_sync::{Rules, Word};

/// Resets this rank, with or without the barrier `before` and the one `after` zeroing.
pub(crate) fn reset<W: Word>(rank: &Rank<W>, before: bool, after: bool) {
    if before {
        rank.barrier.wait().unwrap();
    }
    rank.port.zero();
    if after {
        rank.barrier.wait().unwrap();
    }
    assert_eq!(rank.port.index(), 0);
}

/// A call in which nobody waits, so that its last signals may be late; a reset; a call in which rank 0 stores into the
/// output of rank 1, whose user read it before.
fn reset_and_store(rank: Rank<i8>, before: bool, after: bool) {
    rank.enter(false).finish().unwrap();
    reset(&rank, before, after);
    if rank.rank() == 1 {
        assert_eq!(rank.output(), 0);
    }
    let call = rank.enter(false);
    if rank.rank() == 0 {
        rank.store(&call);
    }
    call.finish_gathered(|owner| owner == 0).unwrap();
    if rank.rank() == 1 {
        assert_eq!(rank.output(), stamp(0), "{STALE}");
    }
}

#[test]
fn a_reset_workspace_works_again() {
    explore(
        None,
        ranks(1, Rules::ALL, |rank| reset_and_store(rank, true, true)),
    );
}

#[test]
fn a_late_signal_falls_on_a_zeroed_word_without_the_barrier_before() {
    fails(
        Some(3),
        Failure::WrongData,
        ranks(1, Rules::ALL, |rank| reset_and_store(rank, false, true)),
    );
}

#[test]
fn an_early_signal_is_zeroed_without_the_barrier_after() {
    fails(
        Some(3),
        Failure::Deadlock,
        ranks(1, Rules::ALL, |rank| reset_and_store(rank, true, false)),
    );
}
