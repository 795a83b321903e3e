//! Fewer states, the same verdicts: persistent sets.
//!
//! Let S be some of the actors. If the others, while those of S stand still, can never reach an operation that touches a
//! cell which a step of S touches (two reads, or two adds, do not count), and can never make a disabled step of S possible,
//! then whatever the others do commutes with the steps of S. It is enough to go on with the steps of S alone: every
//! maximal run is equivalent to one that begins with one of them, and equivalent runs read the same values and end in the
//! same state, so no deadlock and no wrong read is lost. There are no cycles in which a step could be put off for ever.
//!
//! How far the others can come is overestimated: all that they could write counts as written, in any order.
//!
//! Under relaxed memory a store that only joins its actor's pending list touches nothing that others see, so it is a
//! persistent set by itself; becoming visible is what touches the cell. And one pending store that becomes visible is one,
//! if nobody can touch its cell before: neither the other actors nor its own, of which no later release store, and no
//! arrival with release, gets past the one that is held back.

use crate::engine::{Kind, Memory, Search, State, Step};
use crate::machine::{Cell, Op};

/// What a step does to a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touch {
    Read,
    Write,
    Add,
}

impl Touch {
    fn conflicts(self, other: Self) -> bool {
        self != other || self == Self::Write
    }
}

/// Scratch memory of the reduction.
#[derive(Default)]
pub(crate) struct Reduction {
    /// What the steps of S touch.
    ours: Vec<(Cell, Touch)>,
    /// What the others could write; `None` stands for any value.
    written: Vec<(Cell, Option<u16>)>,
    /// How far each actor could come.
    reach: Vec<u16>,
}

fn touches(op: &Op, mut touch: impl FnMut(Cell, Touch)) {
    match op {
        Op::Store { cell, .. } => touch(*cell, Touch::Write),
        Op::Add { cell, .. } | Op::Arrive { cell, .. } => touch(*cell, Touch::Add),
        Op::Move { from, to, .. } => {
            touch(*from, Touch::Read);
            touch(*to, Touch::Write);
        }
        Op::Wait { cell, escape, .. } => {
            touch(*cell, Touch::Read);
            if let Some(escape) = escape {
                touch(escape.cell, Touch::Read);
            }
        }
        Op::Check { cell, .. } | Op::Branch { cell, .. } => touch(*cell, Touch::Read),
        Op::Join(_) | Op::HostBarrier(_) => {}
        // Also reads, which a write outweighs in every conflict.
        Op::ArriveLast { cell, .. } => touch(*cell, Touch::Write),
        Op::Lock { cell, escape } => {
            touch(*cell, Touch::Write);
            if let Some(escape) = escape {
                touch(escape.cell, Touch::Read);
            }
        }
    }
}

/// The value an operation writes, where it writes; `None` inside where that depends on the state.
fn writes(op: &Op) -> Option<(Cell, Option<u16>)> {
    match op {
        Op::Store { cell, value, .. } => Some((*cell, Some(*value))),
        Op::Lock { cell, .. } => Some((*cell, Some(1))),
        Op::Add { cell, .. } | Op::Arrive { cell, .. } | Op::ArriveLast { cell, .. } => {
            Some((*cell, None))
        }
        Op::Move { to, .. } => Some((*to, None)),
        _ => None,
    }
}

fn jumps(op: &Op) -> bool {
    matches!(
        op,
        Op::Branch { .. }
            | Op::ArriveLast { .. }
            | Op::Wait {
                escape: Some(_),
                ..
            }
            | Op::Lock {
                escape: Some(_),
                ..
            }
    )
}

impl Reduction {
    /// Leaves only the steps of a persistent set in `steps`, of as few actors as it finds.
    pub(crate) fn keep_enough(
        &mut self,
        search: &Search<'_>,
        state: &State,
        steps: &mut Vec<Step>,
    ) {
        if steps.len() < 2 {
            return;
        }
        if search.memory == Memory::Relaxed {
            let issue = steps.iter().copied().find(|&step| {
                matches!(step, Step::Run(actor)
                    if matches!(search.next_op(state, actor), Some(Op::Store { .. } | Op::Add { .. })))
            });
            if let Some(issue) = issue {
                steps.clear();
                steps.push(issue);
                return;
            }
        }
        if let Some(&commit) = (steps.iter())
            .find(|&&step| matches!(step, Step::Commit(actor, k) if self.commutes(search, state, actor, k)))
        {
            steps.clear();
            steps.push(commit);
            return;
        }
        let actors = search.model.actors.len();
        for members in 1..actors.min(4) as u32 {
            for set in 1_u32..(1 << actors) - 1 {
                let inside = |step: &Step| set & (1 << step.actor()) != 0;
                if set.count_ones() == members
                    && steps.iter().any(inside)
                    && self.persistent(search, state, set, steps)
                {
                    steps.retain(inside);
                    return;
                }
            }
        }
    }

    /// Whether a pending store can become visible before all else that could happen.
    fn commutes(&mut self, search: &Search<'_>, state: &State, actor: usize, k: usize) -> bool {
        let p = state.pending[actor][k];
        self.ours.clear();
        self.ours.push((p.cell, touch_of(p.kind)));
        self.others_keep_off(
            search,
            state,
            &Still {
                set: 0,
                held: Some((actor, k)),
            },
        )
    }

    fn persistent(&mut self, search: &Search<'_>, state: &State, set: u32, steps: &[Step]) -> bool {
        let actors = search.model.actors.len();
        let still = Still { set, held: None };
        let inside = |actor| still.has(actor);
        self.ours.clear();
        for step in steps.iter().filter(|step| inside(step.actor())) {
            if let Step::Commit(actor, k) = *step {
                let p = state.pending[actor][k];
                self.ours.push((p.cell, touch_of(p.kind)));
            }
        }
        for actor in (0..actors).filter(|&actor| inside(actor)) {
            let Some(op) = search.next_op(state, actor) else {
                continue;
            };
            match op {
                Op::Store { .. } | Op::Add { .. } if search.memory == Memory::Relaxed => {}
                // A meeting that is held up must be held up by S itself, or the others could call it.
                Op::Join(_) | Op::HostBarrier(_) => {
                    let group = search.group_of[actor][usize::from(state.at[actor])];
                    let group = &search.groups[usize::from(group)];
                    let held = |&&(a, at): &&(usize, u16)| search.holds_up(state, a, at, op);
                    let mut holders = group.iter().filter(held).peekable();
                    if holders.peek().is_some() && !holders.any(|&(a, _)| inside(a)) {
                        return false;
                    }
                }
                // Enabled or not: a write by others to what a disabled step waits for could enable it.
                op => touches(op, |cell, touch| self.ours.push((cell, touch))),
            }
        }
        self.others_keep_off(search, state, &still)
    }

    /// Lets the others run as far as they could, and says whether they keep off what stands still.
    fn others_keep_off(&mut self, search: &Search<'_>, state: &State, still: &Still) -> bool {
        let others = (0..search.model.actors.len()).filter(|&actor| !still.has(actor));
        self.reach.clone_from(&state.at);
        self.written.clear();
        for actor in others.clone() {
            for (k, p) in state.pending[actor].iter().enumerate() {
                if still.holds_back(state, actor, k) {
                    continue;
                }
                if self.clashes(p.cell, touch_of(p.kind)) {
                    return false;
                }
                let value = (p.kind != Kind::Add).then_some(p.value);
                self.written.push((p.cell, value));
            }
        }
        loop {
            let mut moved = false;
            for actor in others.clone() {
                let ops = &search.model.actors[actor].ops;
                let mut free = false;
                while let Some(op) = ops.get(usize::from(self.reach[actor])) {
                    // Behind a jump every later operation counts as within reach.
                    free |= jumps(op);
                    if !free && !self.could_run(search, state, actor, op, still) {
                        break;
                    }
                    let mut clash = false;
                    touches(op, |cell, touch| {
                        clash |= self.clashes(cell, touch) && !still.hides(state, actor, op, cell);
                    });
                    if clash {
                        return false;
                    }
                    let seen = writes(op).filter(|w| !still.hides(state, actor, op, w.0));
                    self.written.extend(seen);
                    self.reach[actor] += 1;
                    moved = true;
                }
            }
            if !moved {
                return true;
            }
        }
    }

    fn clashes(&self, cell: Cell, touch: Touch) -> bool {
        (self.ours.iter()).any(|&(ours, t)| ours == cell && t.conflicts(touch))
    }

    /// Whether the others, having written what they could so far, could make this operation possible.
    fn could_run(
        &self,
        search: &Search<'_>,
        state: &State,
        actor: usize,
        op: &Op,
        still: &Still,
    ) -> bool {
        let could_hold = |cell: &Cell, good: &dyn Fn(u16) -> bool| {
            good(state.cells[cell.at()])
                || (self.written.iter()).any(|(c, value)| c == cell && value.is_none_or(good))
        };
        match op {
            Op::Wait {
                cell,
                target,
                compare,
                ..
            } => could_hold(cell, &|seen| search.model.holds(*compare, seen, *target)),
            Op::Lock { cell, .. } => could_hold(cell, &|seen| seen == 0),
            Op::Arrive { release, .. } => !(*release && still.is_held(actor)),
            Op::Join(_) | Op::HostBarrier(_) => {
                let group = search.group_of[actor][usize::from(self.reach[actor])];
                (search.groups[usize::from(group)].iter()).all(|&(a, at)| {
                    if still.has(a) {
                        !search.holds_up(state, a, at, op)
                    } else {
                        self.reach[a] >= at && !still.holds_up(search, state, a, at, op)
                    }
                })
            }
            _ => true,
        }
    }
}

/// What does not move while the others are followed.
struct Still {
    /// These actors.
    set: u32,
    /// This pending store of an actor that is not one of them.
    held: Option<(usize, usize)>,
}

impl Still {
    fn has(&self, actor: usize) -> bool {
        self.set & (1 << actor) != 0
    }

    fn is_held(&self, actor: usize) -> bool {
        self.held.is_some_and(|(a, _)| a == actor)
    }

    /// Whether a pending store is the one held, or must stay behind it.
    fn holds_back(&self, state: &State, actor: usize, k: usize) -> bool {
        let pending = &state.pending[actor];
        self.held.is_some_and(|(a, held)| {
            a == actor
                && k >= held
                && (pending[k].kind == Kind::Release || pending[k].cell == pending[held].cell)
        })
    }

    /// Whether what an operation does to `cell` is out of the others' sight: its actor's store is held, and it is a store
    /// that must stay behind the held one, or a read of the held one's cell, which sees that very store in any case.
    fn hides(&self, state: &State, actor: usize, op: &Op, cell: Cell) -> bool {
        self.held.is_some_and(|(a, k)| {
            let own = !matches!(op, Op::Wait { .. } | Op::Lock { .. });
            let release = matches!(op, Op::Store { release: true, .. });
            a == actor && (release || (own && cell == state.pending[a][k].cell))
        })
    }

    /// Whether the held store keeps its actor from a meeting at its position `at`.
    fn holds_up(&self, search: &Search<'_>, state: &State, actor: usize, at: u16, op: &Op) -> bool {
        self.held.is_some_and(|(a, k)| {
            let home = search.model.cells.info[state.pending[a][k].cell.at()].home;
            let drains = match op {
                Op::Join(_) => home == search.model.actors[actor].rank,
                _ => true,
            };
            a == actor && state.at[actor] <= at && drains
        })
    }
}

fn touch_of(kind: Kind) -> Touch {
    match kind {
        Kind::Add => Touch::Add,
        Kind::Plain | Kind::Release => Touch::Write,
    }
}
