//! Signal values, and the counter that gives each call its own.

use crate::word::Word;
use core::fmt;
use core::marker::PhantomData;

/// A value that a call signals with: in `1..=W::MAX`, never 0, which means *never signalled*.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal<W> {
    value: i64,
    word: PhantomData<W>,
}

impl<W: Word> Signal<W> {
    /// The first value of a lap, which is also the constant that kernels whose locks are zeroed by hand signal with.
    pub const ONE: Self = Self {
        value: 1,
        word: PhantomData,
    };

    /// `value` as a signal, or `None` where it does not lie in `1..=W::MAX`.
    pub fn new(value: i64) -> Option<Self> {
        (1..=W::MAX).contains(&value).then_some(Self {
            value,
            word: PhantomData,
        })
    }

    /// The value as an integer.
    pub fn get(self) -> i64 {
        self.value
    }

    /// The signal `calls` calls later; after `W::MAX` comes 1.
    ///
    /// `n + calls` laps around `1..=MAX`: `1 + (n - 1 + calls) mod MAX`.
    pub fn after(self, calls: u64) -> Self {
        // Both summands are below MAX <= 2^63 - 1, so the sum fits u64.
        let max = W::MAX as u64;
        let value = (((self.value - 1) as u64 + calls % max) % max) as i64 + 1;
        Self {
            value,
            word: PhantomData,
        }
    }
}

impl<W: Word> Default for Signal<W> {
    fn default() -> Self {
        Self::ONE
    }
}

impl<W> fmt::Debug for Signal<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({})", self.value)
    }
}

impl<W> fmt::Display for Signal<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.value, f)
    }
}

/// Whether a word that reads `seen` has reached `target`: it holds it, or one of the half lap of values after it.
///
/// `seen != 0 && (seen - target) mod MAX <= (MAX - 1) / 2`.
///
/// For this to mean *the writer has come at least as far as `target`*, the word must be less than half a lap ahead of the target
/// and less than half a lap behind, and the gates see to both. The word is 1 call behind at most, since the gate before was passed,
/// and 3 ahead at most, at a gate, since a writer further on would wait for this rank. (The explicit-state models assert these figures over all states.) A ring of 7 holds them, and no smaller odd one. Equality
/// instead would miss a writer that has moved on, and deadlock; a plain `>=` is false after every wrap.
pub fn reached<W: Word>(seen: i64, target: Signal<W>) -> bool {
    // Both values lie in 0..=MAX, so the difference lies in -MAX..=MAX and does not overflow.
    seen != 0 && (seen - target.value).rem_euclid(W::MAX) <= (W::MAX - 1) / 2
}

/// The two copies of staging memory: call `i` uses bank `i mod 2`.
///
/// The bank follows from the index and not from the value: `MAX` is odd, so two calls in a row, the last of a lap and the
/// first of the next, have values of one parity.
pub fn bank(index: u64) -> usize {
    (index % 2) as usize
}

/// What turns the index of a call into its signal value.
///
/// The index itself is the only state: it lives beside the workspace's words, in the memory of the device, where a
/// captured graph reads it anew at every replay. This type holds the mapping, and a host-side copy of the index for
/// diagnostics and for kernels that are launched by hand; the copy is wrong once a graph has been replayed.
///
/// ```
/// use iris_sync::SignalCounter;
///
/// let mut counter = SignalCounter::<i8>::starting_at(127).unwrap();
/// assert_eq!(counter.next().get(), 127);
/// assert_eq!(counter.next().get(), 1); // never 0
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalCounter<W> {
    first: Signal<W>,
    index: u64,
}

impl<W: Word> SignalCounter<W> {
    /// A counter whose first call signals 1.
    pub fn new() -> Self {
        Self {
            first: Signal::ONE,
            index: 0,
        }
    }

    /// A counter whose first call signals `first`, or `None` where `first` does not lie in `1..=W::MAX`.
    pub fn starting_at(first: i64) -> Option<Self> {
        Some(Self {
            first: Signal::new(first)?,
            index: 0,
        })
    }

    /// The value of the call with index `index`: `1 + (first - 1 + index) mod MAX`.
    pub fn value(&self, index: u64) -> Signal<W> {
        self.first.after(index)
    }

    /// The value that the next call signals with. Until the counter is first advanced that is its first value, so a user
    /// who zeroes words by hand and never touches the counter signals with 1.
    pub fn signal_value(&self) -> Signal<W> {
        self.value(self.index)
    }

    /// The index of the next call.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The bank of the next call.
    pub fn bank(&self) -> usize {
        bank(self.index)
    }

    /// Takes the next call's value and moves on.
    #[allow(clippy::should_implement_trait)] // not an iterator: it never ends and is not consumed
    pub fn next(&mut self) -> Signal<W> {
        let value = self.signal_value();
        self.index += 1;
        value
    }

    /// Back to the first value, together with the words that the counter's values were written to: one without the other
    /// would leave words that a later call takes for its own.
    pub fn clear<'a>(&mut self, words: impl IntoIterator<Item = &'a W::Atomic>) {
        for word in words {
            W::store(word, 0, crate::primitive::Ordering::Release);
        }
        self.index = 0;
    }
}

impl<W: Word> Default for SignalCounter<W> {
    fn default() -> Self {
        Self::new()
    }
}
