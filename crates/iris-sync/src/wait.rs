//! How a rank waits: spinning, then yielding, then sleeping for bounded times, and not for ever.

/// What a waiting loop does after an unsuccessful poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Poll again.
    Again,
    /// Look whether somebody asked this rank to leave, then poll again.
    Look,
    /// The budget has ended.
    Over,
}

/// One wait in progress.
pub trait Pause {
    /// Passes a moment after an unsuccessful poll, and says what to do next.
    fn pause(&mut self) -> Step;
}

/// How to wait, and for how long.
pub trait Waiting {
    /// One wait in progress.
    type Pause: Pause;
    /// Begins a wait. Cheap: most waits are over at the first poll, and a clock need not be read before the first pause.
    fn begin(&self) -> Self::Pause;
    /// The budget of one wait in milliseconds, for messages.
    fn budget_ms(&self) -> u64;
}

impl<T: Waiting + ?Sized> Waiting for &T {
    type Pause = T::Pause;
    fn begin(&self) -> Self::Pause {
        (**self).begin()
    }
    fn budget_ms(&self) -> u64 {
        (**self).budget_ms()
    }
}

/// A budget counted in polls: for models, and where there is no clock. Looks at the abort words at every pause.
#[derive(Debug, Clone, Copy)]
pub struct Polls(pub u32);

/// A wait that ends after so many polls.
#[derive(Debug)]
pub struct PollsLeft(u32);

impl Waiting for Polls {
    type Pause = PollsLeft;
    fn begin(&self) -> PollsLeft {
        PollsLeft(self.0)
    }
    fn budget_ms(&self) -> u64 {
        0
    }
}

impl Pause for PollsLeft {
    fn pause(&mut self) -> Step {
        if self.0 == 0 {
            return Step::Over;
        }
        self.0 -= 1;
        crate::primitive::yield_now();
        Step::Look
    }
}

#[cfg(feature = "std")]
pub use timed::{Patience, TimedPause};

#[cfg(feature = "std")]
mod timed {
    use super::{Pause, Step, Waiting};
    use crate::primitive::{spin_loop, yield_now};
    use std::time::{Duration, Instant};

    /// Polls that only yield, after the spinning ones.
    const YIELDS: u32 = 256;
    /// The longest sleep between two polls.
    const LONGEST_SLEEP: Duration = Duration::from_micros(100);
    /// How often a spinning wait looks at the clock and at the abort words.
    const LOOK: u32 = 1024;

    /// Waiting with a clock: a number of spinning polls, then some that yield, then sleeps of up to 100 microseconds, until
    /// the budget has passed.
    #[derive(Debug, Clone, Copy)]
    pub struct Patience {
        budget: Duration,
        spins: u32,
    }

    impl Patience {
        /// Waits for up to `budget`, spinning first only if each of `ranks` has a core of its own: where cores are
        /// shared, a spinning rank keeps the one it waits for from running.
        pub fn new(budget: Duration, ranks: usize) -> Self {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            Self {
                budget,
                spins: if ranks <= cores { 4 * LOOK } else { 16 },
            }
        }
    }

    /// A [`Patience`] in progress.
    #[derive(Debug)]
    pub struct TimedPause {
        patience: Patience,
        polls: u32,
        since: Option<Instant>,
    }

    impl Waiting for Patience {
        type Pause = TimedPause;
        fn begin(&self) -> TimedPause {
            TimedPause {
                patience: *self,
                polls: 0,
                since: None,
            }
        }
        fn budget_ms(&self) -> u64 {
            u64::try_from(self.budget.as_millis()).unwrap_or(u64::MAX)
        }
    }

    impl Pause for TimedPause {
        fn pause(&mut self) -> Step {
            let since = *self.since.get_or_insert_with(Instant::now);
            self.polls = self.polls.saturating_add(1);
            let Patience { budget, spins } = self.patience;
            if self.polls <= spins {
                spin_loop();
                if !self.polls.is_multiple_of(LOOK) {
                    return Step::Again;
                }
            } else if self.polls <= spins + YIELDS {
                yield_now();
            } else {
                let nap = Duration::from_micros(u64::from(self.polls - spins - YIELDS));
                std::thread::sleep(nap.min(LONGEST_SLEEP));
            }
            if since.elapsed() >= budget {
                Step::Over
            } else {
                Step::Look
            }
        }
    }
}
