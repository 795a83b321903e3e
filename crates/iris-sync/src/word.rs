//! The words signals are made of, and the ring their values lie on.

use crate::primitive::{AtomicI8, AtomicI16, AtomicI32, AtomicI64, Ordering};
use core::fmt::Debug;

mod sealed {
    pub trait Sealed {}
}

/// An integer type whose positive values are the ring `1..=MAX` that signals run around.
///
/// `MAX` is odd for every implementation, so the parity of a value is not the parity of the call that carries it: the
/// bank of a call must come from its index. The compare of [`reached`](crate::reached) needs `MAX >= 7`.
///
/// Values cross this trait as `i64`, which holds every ring exactly, so that the protocol is written once for all.
pub trait Word: sealed::Sealed + Copy + Debug + Send + Sync + 'static {
    /// The atomic this word is kept in.
    type Atomic: Debug + Send + Sync;
    /// The largest value; the one after it is 1.
    const MAX: i64;
    /// The word's name, for messages.
    const NAME: &'static str;
    /// A new word, for models and tests; operations find theirs in symmetric memory.
    fn atomic(value: i64) -> Self::Atomic;
    /// Loads the word.
    fn load(atomic: &Self::Atomic, order: Ordering) -> i64;
    /// Stores `value`, which lies in `0..=MAX`.
    fn store(atomic: &Self::Atomic, value: i64, order: Ordering);
    /// Exchanges `old` for `new`; the error holds what was seen instead.
    ///
    /// # Errors
    /// The value found, where it is not `old`.
    fn compare_exchange(
        atomic: &Self::Atomic,
        old: i64,
        new: i64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<i64, i64>;
}

macro_rules! word {
    ($([$($generic:tt)*] $word:ty, $int:ty, $atomic:ty, $max:expr, $name:expr);* $(;)?) => {$(
        impl<$($generic)*> sealed::Sealed for $word {}
        impl<$($generic)*> Word for $word {
            type Atomic = $atomic;
            const MAX: i64 = { let max = $max as i64; assert!(max % 2 == 1, "the ring must be odd"); max };
            const NAME: &'static str = $name;
            fn atomic(value: i64) -> $atomic { <$atomic>::new(value as $int) }
            fn load(atomic: &$atomic, order: Ordering) -> i64 { i64::from(atomic.load(order)) }
            fn store(atomic: &$atomic, value: i64, order: Ordering) {
                debug_assert!((0..=<Self as Word>::MAX).contains(&value), "{value} is not on the ring");
                atomic.store(value as $int, order);
            }
            fn compare_exchange(atomic: &$atomic, old: i64, new: i64, success: Ordering, failure: Ordering) -> Result<i64, i64> {
                atomic.compare_exchange(old as $int, new as $int, success, failure).map(i64::from).map_err(i64::from)
            }
        }
    )*};
}

/// A word whose ring ends at `MAX`, far below what its memory could hold: for models, where a lap must be short.
///
/// `Ring<3>` and `Ring<5>` exist to be seen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring<const MAX: i8> {}

word! {
    [] i8, i8, AtomicI8, i8::MAX, "i8";
    [] i16, i16, AtomicI16, i16::MAX, "i16";
    [] i32, i32, AtomicI32, i32::MAX, "i32";
    [] i64, i64, AtomicI64, i64::MAX, "i64";
    [const M: i8] Ring<M>, i8, AtomicI8, M, "ring";
}
