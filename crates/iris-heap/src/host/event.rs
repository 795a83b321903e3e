//! Points in streams that other streams and threads can wait for.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A point in a stream. Clones are the same event.
///
/// Recording it again moves it: who waits afterwards waits for the new point, who waited before still for the old one.
#[derive(Debug, Clone, Default)]
pub struct Event {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    reached: Condvar,
}

/// Recordings are numbered from 1. They need not be reached in that order, since they may be in different streams.
#[derive(Debug, Default)]
struct State {
    recorded: u64,
    /// All recordings up to this one have been reached.
    reached: u64,
    /// Those beyond that have been reached.
    beyond: BTreeSet<u64>,
}

impl State {
    fn has_reached(&self, recording: u64) -> bool {
        recording <= self.reached || self.beyond.contains(&recording)
    }
}

impl Event {
    /// An event that has not been recorded: nobody waits for it.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = &self.shared.state;
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the stream has come to where the event was last recorded.
    pub fn is_reached(&self) -> bool {
        let state = self.state();
        state.has_reached(state.recorded)
    }

    /// Waits until the stream has come to where the event was last recorded.
    pub fn synchronize(&self) {
        self.wait_for(self.latest());
    }

    /// A new recording's number.
    pub(super) fn record(&self) -> u64 {
        let mut state = self.state();
        state.recorded += 1;
        state.recorded
    }

    /// The latest recording's number.
    pub(super) fn latest(&self) -> u64 {
        self.state().recorded
    }

    /// A stream has come to a recording.
    pub(super) fn reach(&self, recording: u64) {
        let mut state = self.state();
        state.beyond.insert(recording);
        while {
            let next = state.reached + 1;
            state.beyond.remove(&next)
        } {
            state.reached += 1;
        }
        self.shared.reached.notify_all();
    }

    pub(super) fn wait_for(&self, recording: u64) {
        let mut state = self.state();
        while !state.has_reached(recording) {
            state = self
                .shared
                .reached
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_are_reached_one_by_one_in_any_order() {
        let event = Event::new();
        assert!(event.is_reached(), "never recorded");
        event.synchronize();
        let (first, second) = (event.record(), event.record());
        event.reach(second);
        assert!(event.is_reached());
        assert!(!event.state().has_reached(first));
        event.reach(first);
        assert!(event.state().has_reached(first));
        assert!(event.state().beyond.is_empty());
    }
}
