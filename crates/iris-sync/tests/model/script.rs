//! The protocol's rules as steps that operations are written with, each with the switch that removes it.

use crate::machine::{Cell, Cells, Compare, Model, Op, packet};
use crate::world::{BankFrom, Gate, Gathered, Rules, ValueFrom, World};
use iris_sync::bank;

/// One rank's program while it is written.
pub(crate) struct Script<'a> {
    pub(crate) world: &'a World,
    pub(crate) rules: &'a Rules,
    pub(crate) rank: usize,
    pub(crate) cells: &'a mut Cells,
    pub(crate) ops: Vec<Op>,
    /// Counts the resets before this call: data of different epochs differ.
    pub(crate) epoch: u16,
    /// Of how many calls peers have been told `entered`.
    told: usize,
}

/// An operation: what a rank does in the call of that index.
pub(crate) type Operation = fn(&mut Script<'_>, usize);

/// The ranks of `world`, each making all calls of `operation`.
pub(crate) fn build(operation: Operation, world: &World, rules: &Rules) -> Model {
    let mut model = Model::new(Cells::default(), world.ring.reached);
    for rank in 0..world.ranks {
        let mut script = Script::new(world, rules, rank, &mut model.cells);
        (0..world.calls.len())
            .filter(|&i| world.left_out != Some((rank, i)))
            .for_each(|i| operation(&mut script, i));
        let ops = script.ops;
        model.actor(format!("rank {rank}"), rank, ops);
    }
    model
}

impl<'a> Script<'a> {
    pub(crate) fn new(
        world: &'a World,
        rules: &'a Rules,
        rank: usize,
        cells: &'a mut Cells,
    ) -> Self {
        Self {
            world,
            rules,
            rank,
            cells,
            ops: Vec::new(),
            epoch: 0,
            told: 0,
        }
    }

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

    /// The value of the call that comes so many before call `i`, also where there was none.
    fn value_before(&self, i: usize, calls: usize) -> u16 {
        if i >= calls && self.rules.value == ValueFrom::Index {
            return self.value(i - calls);
        }
        let lap = u64::from(self.world.ring.max);
        (self.world.ring.value)(self.value(i), lap - calls as u64)
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
        if i >= self.told {
            self.tell_entered(i);
        }
    }

    fn tell_entered(&mut self, i: usize) {
        self.told = i + 1;
        let token = self.token(i);
        for peer in self.peers() {
            let size = self.size(peer, self.rank, i);
            self.push(Op::store(size, token));
            let entered = self.word(peer, "entered", self.rank);
            self.signal(entered, i);
        }
    }

    /// The gate: every peer has entered the call before, and so left the one before that, whose bank this is. `slots` are those
    /// of peers that this call writes.
    pub(crate) fn gate(&mut self, i: usize, slots: &[(usize, usize)]) {
        let before = match self.rules.gate {
            Gate::TwoBefore => self.value_before(i, 2),
            _ => self.value_before(i, 1),
        };
        let (closed, compare) = match self.rules.gate {
            Gate::All | Gate::Writers | Gate::TwoBefore => (i >= 2, self.rules.progress),
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
            let entered = self.word(self.rank, "entered", peer);
            self.push(Op::wait(entered, before, compare));
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

    /// The cells of a packet: one, or without the rule one of its flag and one of its data.
    fn packet(&mut self, home: usize, from: usize, tile: usize, i: usize) -> (Cell, Option<Cell>) {
        let name = format!("packet[tile {tile}]");
        let flag = self.banked_word(home, &name, from, i);
        let data = (!self.rules.whole).then(|| self.staging(home, from, tile, i));
        (flag, data)
    }

    /// A tile goes to a peer in a packet. Nothing is released.
    pub(crate) fn send_packet(&mut self, peer: usize, tile: usize, i: usize) {
        let (value, token) = (self.value(i), self.token(i));
        match self.packet(peer, self.rank, tile, i) {
            (both, None) => self.push(Op::store(both, packet(value, token))),
            (flag, Some(data)) => {
                self.push(Op::store(data, token));
                self.push(Op::store(flag, packet(value, 0)));
            }
        }
    }

    /// A peer's packet is awaited, and has been read with that.
    pub(crate) fn receive_packet(&mut self, peer: usize, tile: usize, i: usize) {
        let (value, token) = (self.value(i), self.token(i));
        let what = format!("call {i}: packet of tile {tile} of rank {peer}");
        let (flag, data) = self.packet(self.rank, peer, tile, i);
        self.push(Op::wait(flag, value, Compare::Flag));
        match data {
            None => self.push(Op::check(flag, packet(value, token), what)),
            Some(data) => self.push(Op::check(data, token, what)),
        }
    }

    /// Behind the gate of some calls, packets that the call does not fill go back to 0: of `all`, those that are not in `filled`.
    pub(crate) fn clear_packets(
        &mut self,
        i: usize,
        all: &[(usize, usize)],
        filled: &[(usize, usize)],
    ) {
        if !self.rules.clear_packets.contains(&self.value(i)) {
            return;
        }
        for slot in all.iter().filter(|slot| !filled.contains(slot)) {
            let (flag, _) = self.packet(slot.0, self.rank, slot.1, i);
            self.push(Op::store(flag, 0));
        }
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
            if self.rules.check_size {
                let size = self.size(self.rank, peer, i);
                let what = format!("call {i}: m of rank {peer}");
                self.push(Op::check(size, self.token(i), what));
            }
        }
        if !self.rules.entered_when_left && i + 1 < self.world.calls.len() {
            self.tell_entered(i + 1);
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

    /// The end of a call in which nobody stores into outputs, though owners do in others of the workspace: nobody awaits `gathered`
    /// here, and all that needs to be done is that no word of a lap ago is left.
    pub(crate) fn sweep_gathered(&mut self, i: usize) {
        if self.rules.sweep_gathered.contains(&self.value(i)) {
            self.push_gathered(i);
        }
    }

    pub(crate) fn await_gathered(&mut self, i: usize) {
        for peer in self.peers() {
            if self.rules.await_gathered && self.world.owns(peer, i) {
                let gathered = self.word(self.rank, "gathered", peer);
                self.wait_announced(gathered, i);
            }
        }
    }

    /// Where peers read this rank's own memory: they tell it that they have read what they read of this call, ...
    pub(crate) fn tell_read(&mut self, i: usize) {
        for peer in self.peers() {
            let read = self.word(peer, "read", self.rank);
            self.signal(read, i);
        }
    }

    /// ... and it waits for that before its kernel ends.
    pub(crate) fn exit_wait(&mut self, i: usize) {
        if self.rules.exit_wait {
            for peer in self.peers() {
                let read = self.word(self.rank, "read", peer);
                let value = self.value(i);
                self.wait_progress(read, value);
            }
        }
    }
}

/// A wait for a counter of the rank's own.
pub(crate) fn wait_count(cell: Cell, count: u16) -> Op {
    Op::wait(cell, count, Compare::AtLeast)
}
