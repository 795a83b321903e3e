//! Running models from tests.

use crate::engine::{Bad, Memory, Outcome, Search};
use crate::machine::Model;
use std::time::Duration;

/// A search of all of a model, which must have come to its end.
pub(crate) fn explore(model: &Model, memory: Memory) -> Outcome {
    let outcome = Search::new(model, memory).run();
    assert!(
        !outcome.truncated,
        "the search was cut off: nothing is proven"
    );
    outcome
}

/// Asserts that a model has no deadlock and reads no wrong data, whatever the interleaving.
pub(crate) fn assert_clean(what: &str, model: &Model, memory: Memory) -> Outcome {
    let outcome = explore(model, memory);
    if let Some(story) = &outcome.deadlock {
        panic!("{what} ({memory:?}) deadlocks:\n{story}");
    }
    if let Some(story) = &outcome.wrong {
        panic!("{what} ({memory:?}) reads wrong data:\n{story}");
    }
    outcome
}

/// Asserts that a model does what it must not, and prints how.
pub(crate) fn assert_fails(what: &str, model: &Model, memory: Memory, bad: Bad) {
    let mut search = Search::new(model, memory);
    search.until = Some(bad);
    let outcome = search.run();
    let story = match bad {
        Bad::Deadlock => &outcome.deadlock,
        Bad::WrongData => &outcome.wrong,
    };
    let Some(story) = story else {
        panic!("{what} ({memory:?}) was expected to end in {bad:?}, but {outcome:?}");
    };
    let states = outcome.states;
    println!("{what} ({memory:?}): {bad:?} as expected, after {states} states:\n{story}");
}

/// Adds up what several searches took.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    models: usize,
    states: usize,
    largest: usize,
    elapsed: Duration,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.models += 1;
        self.states += outcome.states;
        self.largest = self.largest.max(outcome.states);
        self.elapsed += outcome.elapsed;
    }

    pub(crate) fn print(&self, what: &str) {
        println!(
            "{what}: {} models, {} states, the largest {}, {:.2?}",
            self.models, self.states, self.largest, self.elapsed
        );
    }
}
