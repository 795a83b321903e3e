//! A progress bar for work that takes long.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use iris::heap::World;

/// Work that is done before this needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts steps; on rank 0, and where stderr is a terminal, it shows them once the work has taken a while.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    done: u64,
    steps: u64,
    /// When to show the bar; never on other ranks.
    show_at: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// For so many steps of a world.
    pub(crate) fn new(world: &World, what: &'static str, steps: u64) -> Self {
        Self::shown(world.rank() == 0, what, steps)
    }

    /// For so many steps of this process by itself.
    pub(crate) fn alone(what: &'static str, steps: u64) -> Self {
        Self::shown(true, what, steps)
    }

    fn shown(shown: bool, what: &'static str, steps: u64) -> Self {
        Self {
            what,
            done: 0,
            steps,
            show_at: shown.then(|| Instant::now() + PATIENCE),
            bar: None,
        }
    }

    /// A step is done.
    pub(crate) fn step(&mut self) {
        self.done += 1;
        let Some(show_at) = self.show_at else {
            return;
        };
        if self.bar.is_none() && Instant::now() >= show_at {
            // Draws to stderr, and only if that is a terminal.
            let bar = ProgressBar::new(self.steps);
            if let Ok(style) =
                ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {eta} left")
            {
                bar.set_style(style);
            }
            bar.set_message(self.what);
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
