//! Breadth-first search over every interleaving of a model's actors.
//!
//! Memory is one of two:
//!
//! * [`Memory::Sequential`]: a store is visible to all at once.
//! * [`Memory::Relaxed`]: a store joins its actor's pending list and becomes visible at any later time, except that two
//!   stores of an actor to one cell keep their order, and that a release store waits until all earlier stores of its actor
//!   are visible. Nothing else drains the list: the end of a kernel drains what the rank stored to its own memory, a host
//!   barrier drains everything.
//!
//! A state is the position of every actor, the content of every cell and the pending lists, packed into bytes. Every run
//! ends, since actors only move forward, so the graph of states has no cycles.

use crate::machine::{Cell, Escape, Model, Op};
use crate::reduce::Reduction;
use crate::visited::{Visited, pack, unpack};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Sequential,
    Relaxed,
}

/// What a model may do that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    Deadlock,
    WrongData,
}

/// A store that is not yet visible to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) cell: Cell,
    pub(crate) value: u16,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Release,
    Add,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Where each actor stands.
    pub(crate) at: Vec<u16>,
    pub(crate) cells: Vec<u16>,
    pub(crate) pending: Vec<Vec<Pending>>,
}

/// One way a state can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The actor runs its next operation.
    Run(usize),
    /// The actor leaves its wait by its escape.
    Escape(usize),
    /// The actor's pending store of that number becomes visible.
    Commit(usize, usize),
}

impl Step {
    pub(crate) fn actor(self) -> usize {
        match self {
            Self::Run(actor) | Self::Escape(actor) | Self::Commit(actor, _) => actor,
        }
    }
}

/// How far a word was from what was waited for, over all states: (word - target) as call indices.
pub(crate) type Distances = BTreeMap<String, (i32, i32)>;

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) states: usize,
    pub(crate) elapsed: Duration,
    /// The search ended at its limit, so nothing is proven.
    pub(crate) truncated: bool,
    /// The first deadlock found: how it came about, and who waits for what.
    pub(crate) deadlock: Option<String>,
    /// The first wrong read found, and how it came about.
    pub(crate) wrong: Option<String>,
    pub(crate) distances: Distances,
}

impl Outcome {
    pub(crate) fn shows(&self, bad: Bad) -> bool {
        match bad {
            Bad::Deadlock => self.deadlock.is_some(),
            Bad::WrongData => self.wrong.is_some(),
        }
    }
}

/// A model and how to search it.
pub(crate) struct Search<'m> {
    pub(crate) model: &'m Model,
    pub(crate) memory: Memory,
    /// Whether to leave out interleavings that differ only in the order of independent steps.
    pub(crate) reduce: bool,
    /// The search ends once this has been seen.
    pub(crate) until: Option<Bad>,
    /// Whether to note distances, which needs values that do not wrap.
    pub(crate) measure: bool,
    /// The most states to visit.
    pub(crate) limit: usize,
    /// Who meets at each kernel end and host barrier: (actor, position).
    pub(crate) groups: Vec<Vec<(usize, u16)>>,
    /// The group of each operation that has one.
    pub(crate) group_of: Vec<Vec<u16>>,
}

impl<'m> Search<'m> {
    pub(crate) fn new(model: &'m Model, memory: Memory) -> Self {
        let mut groups: Vec<Vec<(usize, u16)>> = Vec::new();
        let mut keys = BTreeMap::new();
        let mut group_of = Vec::new();
        for (actor, a) in model.actors.iter().enumerate() {
            let mut of = vec![u16::MAX; a.ops.len()];
            for (at, op) in a.ops.iter().enumerate() {
                let key = match op {
                    Op::Join(id) => (true, a.rank, *id),
                    Op::HostBarrier(id) => (false, 0, *id),
                    _ => continue,
                };
                let group = *keys.entry(key).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                });
                groups[group].push((actor, u16::try_from(at).expect("a short program")));
                of[at] = u16::try_from(group).expect("few groups");
            }
            group_of.push(of);
        }
        Self {
            model,
            memory,
            reduce: true,
            until: None,
            measure: false,
            limit: 20_000_000,
            groups,
            group_of,
        }
    }

    pub(crate) fn next_op(&self, state: &State, actor: usize) -> Option<&'m Op> {
        self.model.actors[actor]
            .ops
            .get(usize::from(state.at[actor]))
    }

    fn initial(&self) -> State {
        State {
            at: vec![0; self.model.actors.len()],
            cells: self.model.cells.info.iter().map(|c| c.initial).collect(),
            pending: vec![Vec::new(); self.model.actors.len()],
        }
    }

    /// What `actor` itself reads from `cell`: its own latest store, visible or not.
    fn read(state: &State, actor: usize, cell: Cell) -> u16 {
        let own = state.pending[actor]
            .iter()
            .rev()
            .find(|p| p.cell == cell && p.kind != Kind::Add);
        own.map_or(state.cells[cell.at()], |p| p.value)
    }

    /// Whether a participant holds up the meeting at its position `at`.
    pub(crate) fn holds_up(&self, state: &State, actor: usize, at: u16, op: &Op) -> bool {
        if state.at[actor] != at {
            return state.at[actor] < at;
        }
        match op {
            // Kernel end: what the rank stored to its own memory is out.
            Op::Join(_) => state.pending[actor]
                .iter()
                .any(|p| self.model.cells.info[p.cell.at()].home == self.model.actors[actor].rank),
            _ => !state.pending[actor].is_empty(),
        }
    }

    /// Adds every step that `actor` can take.
    pub(crate) fn steps(&self, state: &State, actor: usize, out: &mut Vec<Step>) {
        let pending = &state.pending[actor];
        for (k, p) in pending.iter().enumerate() {
            let behind = p.kind == Kind::Release && k > 0;
            if !behind && pending[..k].iter().all(|earlier| earlier.cell != p.cell) {
                out.push(Step::Commit(actor, k));
            }
        }
        let Some(op) = self.next_op(state, actor) else {
            return;
        };
        let seen = |cell: Cell| state.cells[cell.at()];
        let mut leave = |escape: &Option<Escape>| {
            if escape.is_some_and(|e| seen(e.cell) != 0) {
                out.push(Step::Escape(actor));
            }
        };
        let runs = match op {
            Op::Store { .. } | Op::Add { .. } | Op::Move { .. } | Op::Branch { .. } => true,
            Op::Wait {
                cell,
                target,
                compare,
                escape,
            } => {
                leave(escape);
                self.model.holds(*compare, seen(*cell), *target)
            }
            // An actor's own add to a cell comes before its read of it.
            Op::Check { cell, .. } => {
                !(pending.iter()).any(|p| p.cell == *cell && p.kind == Kind::Add)
            }
            Op::Join(_) | Op::HostBarrier(_) => {
                let group = self.group_of[actor][usize::from(state.at[actor])];
                let waits_for = |&(a, at): &(usize, u16)| self.holds_up(state, a, at, op);
                !self.groups[usize::from(group)].iter().any(waits_for)
            }
            Op::Lock { cell, escape } => {
                leave(escape);
                seen(*cell) == 0
            }
            Op::Arrive { release, .. } | Op::ArriveLast { release, .. } => {
                !release || pending.is_empty()
            }
        };
        if runs {
            out.push(Step::Run(actor));
        }
    }

    fn put(&self, state: &mut State, actor: usize, cell: Cell, value: u16, kind: Kind) {
        match (self.memory, kind) {
            (Memory::Relaxed, _) => state.pending[actor].push(Pending { cell, value, kind }),
            (Memory::Sequential, Kind::Add) => {
                state.cells[cell.at()] = state.cells[cell.at()].wrapping_add(value);
            }
            (Memory::Sequential, _) => state.cells[cell.at()] = value,
        }
    }

    /// Takes a step that `steps` gave. Returns what a read saw where it was not what it must see.
    pub(crate) fn apply(&self, state: &mut State, step: Step) -> Option<u16> {
        let actor = step.actor();
        if let Step::Commit(_, k) = step {
            let p = state.pending[actor].remove(k);
            let cell = &mut state.cells[p.cell.at()];
            *cell = match p.kind {
                Kind::Add => cell.wrapping_add(p.value),
                _ => p.value,
            };
            return None;
        }
        let op = self.next_op(state, actor).expect("a step of an operation");
        let mut next = state.at[actor] + 1;
        let mut wrong = None;
        match op {
            Op::Store {
                cell,
                value,
                release,
            } => {
                let kind = if *release { Kind::Release } else { Kind::Plain };
                self.put(state, actor, *cell, *value, kind);
            }
            Op::Add { cell, value } => self.put(state, actor, *cell, *value, Kind::Add),
            Op::Move { from, to, plus } => {
                let value = Self::read(state, actor, *from).wrapping_add(*plus);
                self.put(state, actor, *to, value, Kind::Plain);
            }
            Op::Wait { escape, .. } => {
                if let (Step::Escape(_), Some(escape)) = (step, escape) {
                    next = escape.to;
                }
            }
            Op::Check { cell, value, .. } => {
                let seen = Self::read(state, actor, *cell);
                wrong = (seen != *value).then_some(seen);
            }
            Op::Join(_) | Op::HostBarrier(_) => {}
            Op::Lock { cell, escape } => match (step, escape) {
                (Step::Escape(_), Some(escape)) => next = escape.to,
                _ => state.cells[cell.at()] = 1,
            },
            Op::Arrive { cell, .. } => state.cells[cell.at()] += 1,
            Op::ArriveLast {
                cell,
                of,
                otherwise,
                ..
            } => {
                let count = &mut state.cells[cell.at()];
                *count += 1;
                if *count == *of {
                    *count = 0;
                } else {
                    next = *otherwise;
                }
            }
            Op::Branch {
                cell,
                value,
                otherwise,
            } => {
                if Self::read(state, actor, *cell) != *value {
                    next = *otherwise;
                }
            }
        }
        debug_assert!(next > state.at[actor], "jumps go forward");
        state.at[actor] = next;
        wrong
    }

    /// Visits every reachable state.
    pub(crate) fn run(&self) -> Outcome {
        let begun = Instant::now();
        let mut visited = Visited::new();
        let mut outcome = Outcome {
            states: 0,
            elapsed: Duration::ZERO,
            truncated: false,
            deadlock: None,
            wrong: None,
            distances: Distances::new(),
        };
        let mut reduction = Reduction::default();
        let (mut state, mut next) = (self.initial(), State::default());
        let (mut steps, mut bytes) = (Vec::new(), Vec::new());
        pack(&state, &mut bytes);
        visited.insert(&bytes, 0);
        let mut current = 0;
        while current < visited.len() {
            if self.until.is_some_and(|bad| outcome.shows(bad)) {
                break;
            }
            if visited.len() > self.limit {
                outcome.truncated = true;
                break;
            }
            self.unpack(&visited, current, &mut state);
            if self.measure {
                self.note_distances(&state, &mut outcome.distances);
            }
            steps.clear();
            for actor in 0..self.model.actors.len() {
                self.steps(&state, actor, &mut steps);
            }
            if steps.is_empty() && self.unfinished(&state) && outcome.deadlock.is_none() {
                outcome.deadlock = Some(self.tell_deadlock(&visited, current, &state));
            }
            if self.reduce {
                reduction.keep_enough(self, &state, &mut steps);
            }
            for &step in &steps {
                next.clone_from(&state);
                if let (Some(seen), None) = (self.apply(&mut next, step), &outcome.wrong) {
                    let mut story = self.trace(&visited, current);
                    let _ = writeln!(story, "  {} <- saw {seen}", self.tell(&state, step));
                    outcome.wrong = Some(story);
                }
                pack(&next, &mut bytes);
                visited.insert(&bytes, current);
            }
            current += 1;
        }
        outcome.states = visited.len();
        outcome.elapsed = begun.elapsed();
        outcome
    }

    /// The state of that number.
    pub(crate) fn unpack(&self, visited: &Visited, number: usize, state: &mut State) {
        let (actors, cells) = (self.model.actors.len(), self.model.cells.info.len());
        unpack(visited.get(number), actors, cells, state);
    }

    fn unfinished(&self, state: &State) -> bool {
        (self.model.actors.iter().zip(&state.at)).any(|(a, at)| usize::from(*at) < a.ops.len())
    }

    fn note_distances(&self, state: &State, distances: &mut Distances) {
        for actor in 0..self.model.actors.len() {
            let Some(Op::Wait { cell, target, .. }) = self.next_op(state, actor) else {
                continue;
            };
            let seen = state.cells[cell.at()];
            if seen == 0 {
                continue;
            }
            let distance = i32::from(seen) - i32::from(*target);
            let name = &self.model.cells.info[cell.at()].name;
            let word = name.split(['[', ' ']).next().unwrap_or(name);
            let range = distances
                .entry(word.to_owned())
                .or_insert((distance, distance));
            *range = (range.0.min(distance), range.1.max(distance));
        }
    }
}
