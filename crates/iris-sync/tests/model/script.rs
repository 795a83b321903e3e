//! The protocol's rules as steps that operations are written with, each with the switch that removes it.

use crate::engine::COUNTED;
use crate::machine::{Cell, Cells, Compare, Model, Op};
use iris_sync::{Ring, Signal, SignalCounter, Word, bank, reached};

/// The crate's arithmetic on one ring, for words of a model's size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arithmetic {
    pub(crate) max: u16,
    pub(crate) value: fn(first: u16, index: u64) -> u16,
    pub(crate) reached: fn(u16, u16) -> bool,
}

impl Arithmetic {
    fn of<W: Word>() -> Self {
        Self {
            max: W::MAX as u16,
            value: |first, index| {
                let counter = SignalCounter::<W>::starting_at(i64::from(first));
                counter
                    .expect("a first value on the ring")
                    .value(index)
                    .get() as u16
            },
            reached: |seen, target| {
                let target = Signal::<W>::new(i64::from(target)).expect("a target on the ring");
                reached(i64::from(seen), target)
            },
        }
    }

    /// The ring that ends at `max`; 127 is that of `i8`, on which no model comes around.
    pub(crate) fn ring(max: u16) -> Self {
        match max {
            3 => Self::of::<Ring<3>>(),
            5 => Self::of::<Ring<5>>(),
            7 => Self::of::<Ring<7>>(),
            9 => Self::of::<Ring<9>>(),
            127 => Self::of::<i8>(),
            _ => unreachable!("no model uses a ring of {max}"),
        }
    }
}

/// The ranks of a model and the calls they make.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) ranks: usize,
    pub(crate) ring: Arithmetic,
    /// The value of the first call.
    pub(crate) first: u16,
    /// For each call, the owner of each of its tiles. Which slot a tile has does not depend on the call.
    pub(crate) calls: Vec<Vec<usize>>,
    /// Which ranks have depth, that is, contribute partials.
    pub(crate) depth: Vec<bool>,
    /// A rank that leaves a call out on the device: it writes and signals nothing of it, and its index advances.
    pub(crate) left_out: Option<(usize, usize)>,
}

impl World {
    /// `calls` calls with `owners` in all of them; every rank has depth.
    pub(crate) fn new(ranks: usize, calls: usize, owners: &[usize]) -> Self {
        Self {
            ranks,
            ring: Arithmetic::ring(127),
            first: 1,
            calls: vec![owners.to_vec(); calls],
            depth: vec![true; ranks],
            left_out: None,
        }
    }

    pub(crate) fn on(mut self, ring: u16, first: u16) -> Self {
        self.ring = Arithmetic::ring(ring);
        self.first = first;
        self
    }

    pub(crate) fn without_depth(mut self, rank: usize) -> Self {
        self.depth[rank] = false;
        self
    }

    /// The sizes of the calls vary: `pattern`, over and over.
    pub(crate) fn varying(mut self, pattern: &[&[usize]]) -> Self {
        let calls = self.calls.len();
        self.calls = (pattern.iter().map(|owners| owners.to_vec()))
            .cycle()
            .take(calls)
            .collect();
        self
    }

    pub(crate) fn owns(&self, rank: usize, call: usize) -> bool {
        self.calls[call].contains(&rank)
    }
}

/// Where a call's bank comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BankFrom {
    Index,
    /// The parity of the call's value.
    Value,
    /// A launch argument, captured in a graph of that many calls.
    Capture(usize),
    /// There is one bank only.
    One,
}

/// Where a call's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueFrom {
    Index,
    /// A launch argument, captured in a graph of that many calls.
    Capture(usize),
}

/// Who waits at the gate, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Every rank, for every peer, from index 2 on.
    All,
    /// Only ranks that write staging in this call, for those they write to.
    Writers,
    /// As `All`, but at index 0 and 1 too, for the values two before.
    FromTheStart,
    /// As `All`, but none where the value is 1 or 2.
    ByValue,
    /// As `All` at every index, but a word of 0 opens the gate.
    ByZeroWord,
    None,
}

/// Which ranks say that all they store into a peer's output has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// Every rank in every call, to a peer whose `entered` it has seen.
    All,
    /// Only the call's owners.
    Owners,
    /// Every rank in every call; those that own nothing wait for nothing.
    AllUnseen,
}

/// How accumulators come to be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zeroing {
    /// Two banks, cleared by their reader, awaited by `cleared`.
    ByReader,
    /// One bank, zeroed by the call's own kernel as it begins.
    OwnKernel,
    /// One bank, zeroed by a memset on the own stream before the kernel.
    Memset,
}

/// The rules. The default is all of them; each field but one left at its default is a negative control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) bank: BankFrom,
    pub(crate) value: ValueFrom,
    /// `ready` and `added` have a word for each bank.
    pub(crate) banked_words: bool,
    /// How `ready`, `gathered` and `added` are awaited.
    pub(crate) announced: Compare,
    /// How `entered`, `done` and `cleared` are awaited.
    pub(crate) progress: Compare,
    pub(crate) gate: Gate,
    /// Whether whoever stores into a peer's output first sees its `entered`, as does whoever reads staging.
    pub(crate) entered: bool,
    pub(crate) gathered: Gathered,
    /// How many copies of a peer's size lie beside `entered`.
    pub(crate) size_copies: usize,
    /// Whether a writer clears the `ready` words that the bank's previous call used and this one does not.
    pub(crate) clear_ready: bool,
    /// Whether every rank says `done` in every call, or only those that have read.
    pub(crate) done_by_all: bool,
    /// Whether a rank whose inputs peers pull waits for their `done` before its kernel ends.
    pub(crate) exit_wait: bool,
    /// Whether a signal is a release store.
    pub(crate) release: bool,
    /// Whether a block produces all its tiles before it waits for one to reduce.
    pub(crate) produce_first: bool,
    pub(crate) zeroing: Zeroing,
    /// Whether accumulators are added to again only after their reader has said `cleared`.
    pub(crate) await_cleared: bool,
    /// Whether the spin lock is taken.
    pub(crate) locked: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            bank: BankFrom::Index,
            value: ValueFrom::Index,
            banked_words: true,
            announced: Compare::Equal,
            progress: Compare::Reached,
            gate: Gate::All,
            entered: true,
            gathered: Gathered::All,
            size_copies: 4,
            clear_ready: true,
            done_by_all: true,
            exit_wait: true,
            release: true,
            produce_first: true,
            zeroing: Zeroing::ByReader,
            await_cleared: true,
            locked: true,
        }
    }
}

/// One rank's program while it is written.
pub(crate) struct Script<'a> {
    pub(crate) world: &'a World,
    pub(crate) rules: &'a Rules,
    pub(crate) rank: usize,
    pub(crate) cells: &'a mut Cells,
    pub(crate) ops: Vec<Op>,
    /// Counts the resets before this call: data of different epochs differ.
    pub(crate) epoch: u16,
}

/// An operation: what a rank does in the call of that index.
pub(crate) type Operation = fn(&mut Script<'_>, usize);

/// The ranks of `world`, each making all calls of `operation`.
pub(crate) fn build(operation: Operation, world: &World, rules: &Rules) -> Model {
    let mut model = Model::new(Cells::default(), world.ring.reached);
    for rank in 0..world.ranks {
        let mut script = Script {
            world,
            rules,
            rank,
            cells: &mut model.cells,
            ops: Vec::new(),
            epoch: 0,
        };
        (0..world.calls.len())
            .filter(|&i| world.left_out != Some((rank, i)))
            .for_each(|i| operation(&mut script, i));
        let ops = script.ops;
        model.actor(format!("rank {rank}"), rank, ops);
    }
    model
}

impl Script<'_> {
    pub(crate) fn peers(&self) -> Vec<usize> {
        let ranks = self.world.ranks;
        (1..ranks).map(|k| (self.rank + k) % ranks).collect()
    }

    /// What the data of call `i` look like: no two calls' are alike.
    pub(crate) fn token(&self, i: usize) -> u16 {
        self.epoch * 100 + i as u16 + 1
    }

    /// The value that call `i` signals with.
    pub(crate) fn value(&self, i: usize) -> u16 {
        let index = match self.rules.value {
            ValueFrom::Index => i,
            ValueFrom::Capture(calls) => i % calls,
        };
        (self.world.ring.value)(self.world.first, index as u64)
    }

    /// The value of the call two before call `i`, also where there was none.
    fn value_two_before(&self, i: usize) -> u16 {
        if i >= 2 && self.rules.value == ValueFrom::Index {
            return self.value(i - 2);
        }
        let lap = u64::from(self.world.ring.max);
        (self.world.ring.value)(self.value(i), lap - 2)
    }

    pub(crate) fn bank(&self, i: usize) -> usize {
        match self.rules.bank {
            BankFrom::Index => bank(i as u64),
            BankFrom::Value => usize::from(self.value(i) % 2),
            BankFrom::Capture(calls) => bank((i % calls) as u64),
            BankFrom::One => 0,
        }
    }

    /// `word` that `from` writes at rank `home`.
    pub(crate) fn word(&mut self, home: usize, word: &str, from: usize) -> Cell {
        self.cells.get(home, format!("{word}[from {from}]"))
    }

    /// The same in the bank of call `i`, where words are banked.
    pub(crate) fn banked_word(&mut self, home: usize, word: &str, from: usize, i: usize) -> Cell {
        let bank = if self.rules.banked_words {
            self.bank(i)
        } else {
            0
        };
        let name = format!("{word}[bank {bank}][from {from}]");
        self.cells.get(home, name)
    }

    fn ready(&mut self, home: usize, from: usize, tile: usize, i: usize) -> Cell {
        self.banked_word(home, &format!("ready[tile {tile}]"), from, i)
    }

    pub(crate) fn staging(&mut self, home: usize, from: usize, tile: usize, i: usize) -> Cell {
        let bank = self.bank(i);
        let name = format!("staging[bank {bank}][from {from}][tile {tile}]");
        self.cells.get(home, name)
    }

    fn size(&mut self, home: usize, from: usize, i: usize) -> Cell {
        let copy = i % self.rules.size_copies;
        self.cells.get(home, format!("m[copy {copy}][from {from}]"))
    }

    pub(crate) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    pub(crate) fn signal(&mut self, cell: Cell, i: usize) {
        let value = self.value(i);
        self.push(Op::Store {
            cell,
            value,
            release: self.rules.release,
        });
    }

    fn wait_progress(&mut self, cell: Cell, value: u16) {
        self.push(Op::wait(cell, value, self.rules.progress));
    }

    pub(crate) fn wait_announced(&mut self, cell: Cell, i: usize) {
        let value = self.value(i);
        self.push(Op::wait(cell, value, self.rules.announced));
    }

    pub(crate) fn kernel_end(&mut self, i: usize) {
        let id = u32::from(self.epoch) << 16 | (i as u32) << 4;
        self.push(Op::Join(id));
    }

    /// The end of what else the stream runs between call `i` and the next: a kernel of the user's.
    pub(crate) fn user_end(&mut self, i: usize) {
        let id = u32::from(self.epoch) << 16 | (i as u32) << 4 | 1;
        self.push(Op::Join(id));
    }

    /// The first block tells every peer that this rank has begun the call, and with how many rows.
    pub(crate) fn begin(&mut self, i: usize) {
        let token = self.token(i);
        for peer in self.peers() {
            let size = self.size(peer, self.rank, i);
            self.push(Op::store(size, token));
            let entered = self.word(peer, "entered", self.rank);
            self.signal(entered, i);
        }
    }

    /// The gate: the bank's previous readers are through. `slots` are those of peers that this call writes.
    pub(crate) fn gate(&mut self, i: usize, slots: &[(usize, usize)]) {
        let two_before = self.value_two_before(i);
        let (closed, compare) = match self.rules.gate {
            Gate::All | Gate::Writers => (i >= 2, self.rules.progress),
            Gate::FromTheStart => (true, self.rules.progress),
            Gate::ByValue => (self.value(i) > 2, self.rules.progress),
            Gate::ByZeroWord => (true, Compare::ZeroOpens),
            Gate::None => (false, self.rules.progress),
        };
        if !closed {
            return;
        }
        for peer in self.peers() {
            if self.rules.gate == Gate::Writers && slots.iter().all(|slot| slot.0 != peer) {
                continue;
            }
            let done = self.word(self.rank, "done", peer);
            self.push(Op::wait(done, two_before, compare));
        }
    }

    /// Behind the gate, `ready` words that the bank's previous call used and this one does not go back to 0.
    pub(crate) fn clear_unused(
        &mut self,
        i: usize,
        slots: fn(&World, usize, usize) -> Vec<(usize, usize)>,
    ) {
        if i < 2 || !self.rules.clear_ready {
            return;
        }
        let now = slots(self.world, self.rank, i);
        for slot in slots(self.world, self.rank, i - 2) {
            if !now.contains(&slot) {
                let word = self.ready(slot.0, self.rank, slot.1, i);
                self.push(Op::store(word, 0));
            }
        }
    }

    /// The gate and what stands behind it, for an operation that writes `slots` of peers.
    pub(crate) fn open_bank(
        &mut self,
        i: usize,
        slots: fn(&World, usize, usize) -> Vec<(usize, usize)>,
    ) {
        let now = slots(self.world, self.rank, i);
        self.gate(i, &now);
        self.clear_unused(i, slots);
    }

    /// A tile goes to a peer's staging and is announced there.
    pub(crate) fn send(&mut self, peer: usize, tile: usize, i: usize) {
        let token = self.token(i);
        let staging = self.staging(peer, self.rank, tile, i);
        self.push(Op::store(staging, token));
        self.announce(peer, tile, i);
    }

    pub(crate) fn announce(&mut self, peer: usize, tile: usize, i: usize) {
        let ready = self.ready(peer, self.rank, tile, i);
        self.signal(ready, i);
    }

    pub(crate) fn await_ready(&mut self, peer: usize, tile: usize, i: usize) {
        let ready = self.ready(self.rank, peer, tile, i);
        self.wait_announced(ready, i);
    }

    /// A peer's tile is awaited and read from the own staging.
    pub(crate) fn receive(&mut self, peer: usize, tile: usize, i: usize) {
        self.await_ready(peer, tile, i);
        let staging = self.staging(self.rank, peer, tile, i);
        let what = format!("call {i}: tile {tile} of rank {peer}");
        self.push(Op::check(staging, self.token(i), what));
    }

    /// Sees that every peer has begun this call, with the same number of rows.
    pub(crate) fn meet(&mut self, i: usize) {
        if !self.rules.entered {
            return;
        }
        for peer in self.peers() {
            let entered = self.word(self.rank, "entered", peer);
            let value = self.value(i);
            self.wait_progress(entered, value);
            let size = self.size(self.rank, peer, i);
            let what = format!("call {i}: m of rank {peer}");
            self.push(Op::check(size, self.token(i), what));
        }
    }

    /// All that this rank stores into its peers' outputs has been stored, and what its peers store here has arrived.
    pub(crate) fn push_gathered(&mut self, i: usize) {
        let speaks = self.rules.gathered != Gathered::Owners || self.world.owns(self.rank, i);
        for peer in self.peers() {
            if speaks {
                let gathered = self.word(peer, "gathered", self.rank);
                self.signal(gathered, i);
            }
        }
    }

    pub(crate) fn await_gathered(&mut self, i: usize) {
        for peer in self.peers() {
            if self.world.owns(peer, i) {
                let gathered = self.word(self.rank, "gathered", peer);
                self.wait_announced(gathered, i);
            }
        }
    }

    /// This rank has read what it reads of call `i`; `reads` where it reads anything.
    pub(crate) fn done(&mut self, i: usize, reads: bool) {
        if reads || self.rules.done_by_all {
            for peer in self.peers() {
                let done = self.word(peer, "done", self.rank);
                self.signal(done, i);
            }
        }
    }

    /// Waits until every peer has read what it reads of this call itself.
    pub(crate) fn exit_wait(&mut self, i: usize) {
        if self.rules.exit_wait {
            for peer in self.peers() {
                let done = self.word(self.rank, "done", peer);
                let value = self.value(i);
                self.wait_progress(done, value);
            }
        }
    }

    /// Accumulators of a peer may be added to again.
    pub(crate) fn await_cleared(&mut self, peer: usize, i: usize) {
        if i >= 2 && self.rules.await_cleared {
            let cleared = self.word(self.rank, "cleared", peer);
            let value = self.value_two_before(i);
            self.wait_progress(cleared, value);
        }
    }
}

/// A wait for a counter of the rank's own.
pub(crate) fn wait_count(cell: Cell, count: u16) -> Op {
    Op::wait(cell, count, COUNTED)
}
