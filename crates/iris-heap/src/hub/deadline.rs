//! When a wait ends.

use std::time::{Duration, Instant};

/// When a wait ends that began with this.
///
/// The instant is never worked out: a wait may take any duration, and instants end before the longest does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    begun: Instant,
    timeout: Duration,
}

impl Deadline {
    /// `timeout` from now on.
    pub(super) fn after(timeout: Duration) -> Self {
        Self {
            begun: Instant::now(),
            timeout,
        }
    }

    /// How long it has been waited.
    pub(super) fn waited(&self) -> Duration {
        self.begun.elapsed()
    }

    /// How long may still be waited.
    pub(super) fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.waited())
    }

    /// Whether it has come.
    pub(super) fn is_over(&self) -> bool {
        self.waited() >= self.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_duration_may_be_waited() {
        let never = Deadline::after(Duration::MAX);
        assert!(!never.is_over() && never.left() > Duration::MAX / 2);
        let now = Deadline::after(Duration::ZERO);
        assert!(now.is_over() && now.left().is_zero());
    }
}
