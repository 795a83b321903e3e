//! The spin lock, and accumulators that are added to under it and cleared by their reader.

use crate::harness::{
    Data, Failure, RANKS, Rank, Waits, both, explore, fails, stamp, without, world,
};
use iris_sync::{Announcement, Rule, Rules, Word};
use std::sync::Arc;

/// What a rank of these models does when it holds the lock, or ought to.
#[derive(Clone, Copy, PartialEq)]
enum Taken {
    Always,
    Never,
    /// Taken and never released.
    ForEver,
}

/// Both ranks add to one number under the lock of rank 0, `times` each, within one call.
fn count(taken: Taken, times: u64) -> impl Fn() + Send + Sync + 'static {
    move || {
        let sum = Data::new(1);
        let ends =
            world::<i8>(1, Rules::ALL, [Waits::Patiently; RANKS]).map(|rank| (rank, sum.clone()));
        let body = move |(rank, sum): (Rank<i8>, Arc<Data>)| {
            let call = rank.enter(false);
            let value = call.value();
            for _ in 0..times {
                let held = (taken != Taken::Never).then(|| call.lock(0, 0).unwrap());
                sum.write(0, sum.read(0) + 1);
                match taken {
                    Taken::ForEver => std::mem::forget(held),
                    _ => drop(held),
                }
            }
            // The lock's word is no signal: the counter does not know of it.
            assert_eq!((call.index(), call.value()), (0, value));
            call.finish().unwrap();
            assert_eq!(rank.port.index(), 1);
        };
        both(ends, body, body);
        assert_eq!(sum.read(0), RANKS as u64 * times);
    }
}

#[test]
fn a_spin_lock_is_held_by_one_and_resets_itself() {
    explore(None, count(Taken::Always, 1));
    explore(None, count(Taken::Always, 3));
}

#[test]
fn a_lock_not_taken_excludes_nobody() {
    fails(Some(3), Failure::WrongData, count(Taken::Never, 1));
}

#[test]
fn a_lock_not_released_is_never_free() {
    fails(Some(3), Failure::Deadlock, count(Taken::ForEver, 1));
}

/// When the accumulators of a bank are cleared.
#[derive(Clone, Copy, PartialEq)]
enum Cleared {
    /// By their reader, once it has read them.
    ByTheReader,
    /// By their owner, as its call begins.
    AtTheBeginning,
}

/// Both ranks add into the accumulators of rank 0 under its lock; rank 0 reads the sum.
fn accumulate<W: Word>(
    calls: u64,
    cleared: Cleared,
    rules: Rules,
) -> impl Fn() + Send + Sync + 'static {
    move || {
        let sums = Data::new(2);
        let ends = world::<W>(1, rules, [Waits::Patiently; RANKS]).map(|rank| (rank, sums.clone()));
        let body = move |(rank, sums): (Rank<W>, Arc<Data>)| {
            for index in 0..calls {
                let call = rank.port.begin(Announcement::default()).unwrap();
                call.gate(true, |_| 0).unwrap();
                let bank = call.bank();
                let owner = rank.rank() == 0;
                if owner && cleared == Cleared::AtTheBeginning {
                    sums.write(bank, 0);
                }
                let held = call.lock(0, 0).unwrap();
                sums.write(bank, sums.read(bank) + stamp(index));
                drop(held);
                call.push_added();
                if owner {
                    call.await_added().unwrap();
                    assert_eq!(
                        sums.read(bank),
                        2 * stamp(index),
                        "{}",
                        crate::harness::STALE
                    );
                    if cleared == Cleared::ByTheReader {
                        sums.write(bank, 0);
                    }
                }
                call.finish().unwrap();
            }
        };
        both(ends, body, body);
    }
}

#[test]
fn accumulators_are_cleared_by_their_reader() {
    explore(None, accumulate::<i8>(2, Cleared::ByTheReader, Rules::ALL));
    explore(
        Some(3),
        accumulate::<i8>(3, Cleared::ByTheReader, Rules::ALL),
    );
    explore(
        Some(2),
        accumulate::<i8>(4, Cleared::ByTheReader, Rules::ALL),
    );
}

#[test]
fn accumulators_cleared_in_the_own_call_lose_a_fast_peers_additions() {
    fails(
        Some(3),
        Failure::WrongData,
        accumulate::<i8>(2, Cleared::AtTheBeginning, Rules::ALL),
    );
}

#[test]
fn accumulators_are_added_to_while_read_without_gates() {
    fails(
        Some(3),
        Failure::WrongData,
        accumulate::<i8>(3, Cleared::ByTheReader, without(Rule::Gate)),
    );
}

#[test]
fn accumulators_are_read_too_early_without_release() {
    fails(
        Some(3),
        Failure::Race,
        accumulate::<i8>(1, Cleared::ByTheReader, without(Rule::Release)),
    );
}
