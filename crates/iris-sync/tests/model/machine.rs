//! What a model is made of: cells, operations on them, and the actors that run through their operations in order.

use std::collections::HashMap;

/// A word or a piece of data in the memory of one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cell(u16);

impl Cell {
    pub(crate) fn at(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn number(self) -> u16 {
        self.0
    }

    pub(crate) fn numbered(number: u16) -> Self {
        Self(number)
    }
}

/// When a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// The crate's own compare, on the model's ring.
    Reached,
    /// The word is the target.
    Equal,
    /// The word is not 0 and not below the target. Also what a wait for a counter uses.
    AtLeast,
    /// The word is 0, or has reached the target.
    ZeroOpens,
    /// The word is a packet whose flag is the target.
    Flag,
}

/// A packet: data, and the value of its call beside them.
pub(crate) fn packet(flag: u16, data: u16) -> u16 {
    assert!(data < PACKET);
    flag * PACKET + data
}

/// Beyond all data.
const PACKET: u16 = 1000;

/// Where a wait goes when the actor leaves it: `cell` is not 0, go on at `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Escape {
    pub(crate) cell: Cell,
    pub(crate) to: u16,
}

/// One indivisible step of an actor. Jumps go forward only, so every run of a model ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// A store; with `release`, one that becomes visible only after all earlier stores of this actor.
    Store {
        cell: Cell,
        value: u16,
        release: bool,
    },
    /// A relaxed atomic add without a result.
    Add { cell: Cell, value: u16 },
    /// `to = from + plus`, where one of the two is private to the actor: half of a read-modify-write that is not atomic.
    Move { from: Cell, to: Cell, plus: u16 },
    /// An acquire wait.
    Wait {
        cell: Cell,
        target: u16,
        compare: Compare,
        escape: Option<Escape>,
    },
    /// A read of data that must see `value`.
    Check {
        cell: Cell,
        value: u16,
        what: String,
    },
    /// The end of a kernel: all actors of the rank meet, and the rank's stores to its own memory are visible.
    Join(u32),
    /// All actors that have it meet with their streams drained: every store is visible.
    HostBarrier(u32),
    /// Compare-and-swap from 0 to 1, acquire; waits until it succeeds.
    Lock { cell: Cell, escape: Option<Escape> },
    /// A block adds itself to the arrival count; with `release`, after all its stores are visible.
    Arrive { cell: Cell, release: bool },
    /// The same, but the last of `of` blocks resets the count and goes on; the others jump to `otherwise`.
    ArriveLast {
        cell: Cell,
        of: u16,
        release: bool,
        otherwise: u16,
    },
    /// Goes on where the cell holds `value`, else at `otherwise`.
    Branch {
        cell: Cell,
        value: u16,
        otherwise: u16,
    },
}

impl Op {
    pub(crate) fn store(cell: Cell, value: u16) -> Self {
        Self::Store {
            cell,
            value,
            release: false,
        }
    }

    pub(crate) fn release(cell: Cell, value: u16) -> Self {
        Self::Store {
            cell,
            value,
            release: true,
        }
    }

    pub(crate) fn wait(cell: Cell, target: u16, compare: Compare) -> Self {
        Self::Wait {
            cell,
            target,
            compare,
            escape: None,
        }
    }

    pub(crate) fn lock(cell: Cell) -> Self {
        Self::Lock { cell, escape: None }
    }

    pub(crate) fn check(cell: Cell, value: u16, what: impl Into<String>) -> Self {
        Self::Check {
            cell,
            value,
            what: what.into(),
        }
    }
}

/// A cell as the model knows it.
#[derive(Debug)]
pub(crate) struct CellInfo {
    pub(crate) name: String,
    /// The rank in whose memory it lies.
    pub(crate) home: usize,
    pub(crate) initial: u16,
}

/// The cells of a model, made when first named.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    by_name: HashMap<(usize, String), Cell>,
    pub(crate) info: Vec<CellInfo>,
}

impl Cells {
    /// The cell called `name` at rank `home`; new ones hold 0.
    pub(crate) fn get(&mut self, home: usize, name: impl Into<String>) -> Cell {
        self.get_or(home, name, 0)
    }

    /// The same; a new one holds `initial`.
    pub(crate) fn get_or(&mut self, home: usize, name: impl Into<String>, initial: u16) -> Cell {
        let name = name.into();
        let next = Cell(u16::try_from(self.info.len()).expect("fewer than 65536 cells"));
        *self.by_name.entry((home, name.clone())).or_insert_with(|| {
            self.info.push(CellInfo {
                name,
                home,
                initial,
            });
            next
        })
    }

    pub(crate) fn name(&self, cell: Cell) -> String {
        let info = &self.info[cell.at()];
        format!("{} at rank {}", info.name, info.home)
    }
}

/// A sequence of operations that runs at its own pace: a rank, or one of its blocks.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) rank: usize,
    pub(crate) ops: Vec<Op>,
}

/// Actors over cells, and the ring that `Compare::Reached` means.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) cells: Cells,
    pub(crate) actors: Vec<Actor>,
    pub(crate) reached: fn(u16, u16) -> bool,
}

impl Model {
    pub(crate) fn new(cells: Cells, reached: fn(u16, u16) -> bool) -> Self {
        Self {
            cells,
            actors: Vec::new(),
            reached,
        }
    }

    pub(crate) fn actor(&mut self, name: impl Into<String>, rank: usize, ops: Vec<Op>) {
        self.actors.push(Actor {
            name: name.into(),
            rank,
            ops,
        });
    }

    /// Whether a word that holds `seen` ends a wait for `target`.
    pub(crate) fn holds(&self, compare: Compare, seen: u16, target: u16) -> bool {
        match compare {
            Compare::Reached => (self.reached)(seen, target),
            Compare::Equal => seen == target,
            Compare::AtLeast => seen != 0 && seen >= target,
            Compare::Flag => seen / PACKET == target,
            Compare::ZeroOpens => seen == 0 || (self.reached)(seen, target),
        }
    }

    /// An operation in words.
    pub(crate) fn describe(&self, op: &Op) -> String {
        let name = |cell: &Cell| self.cells.name(*cell);
        match op {
            Op::Store {
                cell,
                value,
                release,
            } => {
                let kind = if *release { "release" } else { "store" };
                format!("{kind} {value} to {}", name(cell))
            }
            Op::Add { cell, value } => format!("add {value} to {}", name(cell)),
            Op::Move { from, to, plus } => format!("{} = {} + {plus}", name(to), name(from)),
            Op::Wait {
                cell,
                target,
                compare,
                ..
            } => format!("wait for {}: {compare:?} {target}", name(cell)),
            Op::Check { cell, value, what } => {
                format!("read {}, must be {value} ({what})", name(cell))
            }
            Op::Join(id) => format!("kernel end {id}"),
            Op::HostBarrier(id) => format!("host barrier {id}"),
            Op::Lock { cell, .. } => format!("lock {}", name(cell)),
            Op::Arrive { cell, .. } => format!("arrive at {}", name(cell)),
            Op::ArriveLast { cell, of, .. } => format!("arrive at {}, one of {of}", name(cell)),
            Op::Branch { cell, value, .. } => format!("is {} equal to {value}?", name(cell)),
        }
    }
}
