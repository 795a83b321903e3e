//! How a bad state came about, in words.

use crate::engine::{Search, State, Step};
use crate::machine::Op;
use crate::visited::{Visited, pack};
use std::fmt::Write as _;

impl Search<'_> {
    pub(crate) fn tell(&self, state: &State, step: Step) -> String {
        let name = &self.model.actors[step.actor()].name;
        match step {
            Step::Commit(actor, k) => {
                let p = state.pending[actor][k];
                let cell = self.model.cells.name(p.cell);
                format!("({name}'s store of {} to {cell} becomes visible)", p.value)
            }
            Step::Run(actor) | Step::Escape(actor) => {
                let op = self.next_op(state, actor).expect("a step of an operation");
                let left = if matches!(step, Step::Escape(_)) {
                    "leaves "
                } else {
                    ""
                };
                format!("{name}: {left}{}", self.model.describe(op))
            }
        }
    }

    /// The way to a state, one step a line. Breadth-first search makes it as short as any that was searched.
    pub(crate) fn trace(&self, visited: &Visited, to: usize) -> String {
        let mut path = vec![to];
        while let Some(&last) = path.last().filter(|&&last| last != 0) {
            path.push(visited.parent(last));
        }
        path.reverse();
        let mut story = String::new();
        let (mut state, mut bytes) = (State::default(), Vec::new());
        for pair in path.windows(2) {
            self.unpack(visited, pair[0], &mut state);
            let mut steps = Vec::new();
            for actor in 0..self.model.actors.len() {
                self.steps(&state, actor, &mut steps);
            }
            let taken = steps.into_iter().find(|&step| {
                let mut next = state.clone();
                self.apply(&mut next, step);
                pack(&next, &mut bytes);
                bytes == visited.get(pair[1])
            });
            let taken = taken.expect("a state follows from its parent");
            let _ = writeln!(story, "  {}", self.tell(&state, taken));
        }
        story
    }

    pub(crate) fn tell_deadlock(&self, visited: &Visited, at: usize, state: &State) -> String {
        let mut story = self.trace(visited, at);
        for (actor, a) in self.model.actors.iter().enumerate() {
            let stuck = match self.next_op(state, actor) {
                None => "has ended".to_owned(),
                Some(op @ (Op::Wait { cell, .. } | Op::Lock { cell, .. })) => format!(
                    "stuck in {}, which holds {}",
                    self.model.describe(op),
                    state.cells[cell.at()]
                ),
                Some(op) => format!("stuck in {}", self.model.describe(op)),
            };
            let _ = writeln!(story, "  => {} {stuck}", a.name);
        }
        story
    }
}
