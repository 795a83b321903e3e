//! The spin lock: the one word that is not a signal.

use crate::primitive::Ordering;
use crate::wait::{Pause, Step, Waiting};
use crate::word::Word;

/// A lock that is 0 when free and 1 when held. It resets itself, so it needs neither the counter nor zeroing between calls,
/// and no call of it moves the counter.
#[derive(Debug)]
pub struct SpinLock<'a, W: Word> {
    word: &'a W::Atomic,
}

/// A held lock; dropped, it is released.
#[derive(Debug)]
#[must_use = "the lock is released when its guard is dropped"]
pub struct Held<'a, W: Word> {
    word: &'a W::Atomic,
}

impl<'a, W: Word> SpinLock<'a, W> {
    /// The lock in `word`, which is 0 before its first use.
    pub fn new(word: &'a W::Atomic) -> Self {
        Self { word }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<Held<'a, W>> {
        // Acquire: what the last holder wrote is seen. Paired with the release store that frees the lock.
        W::compare_exchange(self.word, 0, 1, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Held { word: self.word })
    }

    /// Takes the lock, waiting for it.
    ///
    /// # Errors
    /// The last step of the wait: [`Step::Over`] when the budget ended, or what `look` returned when it asked to leave.
    pub fn lock<E>(
        &self,
        waiting: &impl Waiting,
        mut look: impl FnMut() -> Result<(), E>,
        over: impl FnOnce() -> E,
    ) -> Result<Held<'a, W>, E> {
        let mut pause = waiting.begin();
        let mut step = Step::Again;
        loop {
            if let Some(held) = self.try_lock() {
                return Ok(held);
            }
            // Only now: the last pause may have been long, and the lock released during it.
            if step == Step::Over {
                return Err(over());
            }
            step = pause.pause();
            if step == Step::Look {
                look()?;
            }
        }
    }
}

impl<W: Word> Drop for Held<'_, W> {
    fn drop(&mut self) {
        W::store(self.word, 0, Ordering::Release);
    }
}
