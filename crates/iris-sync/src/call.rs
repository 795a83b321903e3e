//! One call of an operation, as its kernel walks through it. Every wait and every signal of every operation is made here.
//!
//! # The order of a call
//!
//! 1. [`Port::begin`] reads the call's index, tells every peer `entered` and what it [announces](Announcement).
//! 2. [`Call::gate`] waits until every peer has entered the previous call: it has then left the one before that, whose bank this
//!    call reuses.
//! 3. The kernel produces all its tiles: data into a peer's staging, then [`Call::push_ready`].
//! 4. The kernel reduces: [`Call::meet`], then [`Call::await_ready`] and the data, tile by tile; what it stores into peers'
//!    outputs it stores where they [announced](Call::announcement) it.
//! 5. [`Call::finish`] waits for what makes this rank's output whole, and advances the index.
//!
//! No step before 4 waits for anything but `entered`, of this call or of the one before, and every rank tells that as it begins, so
//! no rank can wait for one that waits for it: in any set of ranks that wait, the one in the earliest call and the earliest step
//! waits for a signal already sent.
//!
//! # That a rank has left a call
//!
//! it tells nobody: it is told by `entered` of its next one. *Invariant:* calls of a workspace run one after the other, on one
//! thread or ordered like on one; so a rank tells `entered` of a call only when it has read, and cleared, all that it does in the
//! one before.
//!
//! # Memory order
//!
//! Every signal is stored with release order and awaited with acquire order, so whoever has seen a signal sees all that its
//! writer did before it: the data of a tile behind `ready`, all of the call before behind `entered`.

use crate::fault::{Cause, Fault, Wait, WordKind};
use crate::layout::{Announcement, Layout};
use crate::lock::{Held, SpinLock};
use crate::memory::Memory;
use crate::primitive::Ordering;
use crate::probe::{Phase, Point, Probe};
use crate::rules::{Rule, Rules};
use crate::signal::{Signal, SignalCounter, bank, reached};
use crate::wait::{Pause, Step, Waiting};
use crate::word::Word;
use core::cell::Cell;

/// The values of the calls in which every rank tells `gathered` although nobody stores into outputs: those in which kernels on
/// devices clear packets, too.
const SWEEPS: [i64; 2] = [1, 3];

/// One rank's end of a workspace: its view of the words, and how it waits.
pub struct Port<'a, W: Word, M, P> {
    /// The operation's name, for faults.
    pub operation: &'static str,
    /// The words.
    pub memory: M,
    /// The value of the call with index 0.
    pub first: Signal<W>,
    /// How to wait.
    pub waiting: P,
    /// The rules kept: [`Rules::ALL`].
    pub rules: Rules,
    /// Who looks on.
    pub probe: Option<&'a dyn Probe>,
}

impl<'a, W: Word, M: Memory<W>, P: Waiting> Port<'a, W, M, P> {
    /// A port that keeps all rules, starts at value 1, and that nobody looks into.
    pub fn new(operation: &'static str, memory: M, waiting: P) -> Self {
        Self {
            operation,
            memory,
            first: Signal::ONE,
            waiting,
            rules: Rules::ALL,
            probe: None,
        }
    }

    fn layout(&self) -> Layout {
        self.memory.layout()
    }

    fn rank(&self) -> usize {
        self.memory.rank()
    }

    /// The other ranks, beginning with the next one, so that not all ranks turn to rank 0 first.
    pub fn peers(&self) -> impl Iterator<Item = usize> + use<W, M, P> {
        let (rank, world) = (self.rank(), self.layout().world());
        (1..world).map(move |step| (rank + step) % world)
    }

    fn cell(&self, place: usize) -> &crate::primitive::AtomicU64 {
        self.memory.cell(self.rank(), place)
    }

    /// The index of the next call: how many this rank has completed since the last reset.
    pub fn index(&self) -> u64 {
        self.cell(self.layout().index_cell())
            .load(Ordering::Relaxed)
    }

    /// Whether a call has faulted since the last reset.
    pub fn is_poisoned(&self) -> bool {
        self.cell(self.layout().poison_cell())
            .load(Ordering::Acquire)
            != 0
    }

    /// Asks this rank, on behalf of rank `by`, to leave whatever call it is in, and not to begin another: what a host does
    /// that has seen a peer die.
    pub fn abort(&self, by: usize) {
        let word = self.memory.word(self.rank(), self.layout().abort(by));
        W::store(word, 1, Ordering::Release);
    }

    /// Zeroes this rank's words and cells: its part of a reset.
    ///
    /// A reset needs a barrier of all ranks before it, so that no late signal of the old calls falls on a zeroed word, and one
    /// after it, so that no early signal of the new ones is zeroed. Either alone is not enough.
    pub fn zero(&self) {
        let layout = self.layout();
        for place in 0..layout.words() {
            W::store(self.memory.word(self.rank(), place), 0, Ordering::Release);
        }
        for place in 0..layout.cells() {
            self.cell(place).store(0, Ordering::Release);
        }
    }

    /// Begins a call: takes its index, and tells every peer that this rank has entered it.
    ///
    /// # Errors
    /// If the workspace is poisoned, or somebody has asked this rank to leave.
    pub fn begin(&self, announcement: Announcement) -> Result<Call<'_, W, M, P>, Fault> {
        let index = self.index();
        let counter = SignalCounter::starting_at(self.first.get()).unwrap_or_default();
        let value = if self.rules.keeps(Rule::ValueFromIndex) {
            counter.value(index)
        } else {
            self.first
        };
        let bank = if !self.rules.keeps(Rule::TwoBanks) {
            0
        } else if self.rules.keeps(Rule::BankFromIndex) {
            bank(index)
        } else {
            (value.get() % 2) as usize
        };
        let call = Call {
            port: self,
            index,
            value,
            bank,
            announcement,
            met: Cell::new(false),
        };
        if self.is_poisoned() {
            return Err(call.describe(Cause::Poisoned, None));
        }
        call.look(None)?;
        call.probe(Phase::Begin, None);
        for peer in self.peers() {
            let place = self.layout().announced_cell(index, self.rank());
            for (offset, cell) in announcement.to_cells().into_iter().enumerate() {
                // Published by the release store of `entered` below.
                self.memory
                    .cell(peer, place + offset)
                    .store(cell, Ordering::Relaxed);
            }
            call.signal(
                peer,
                self.layout().word(WordKind::Entered, self.rank()),
                value,
            );
        }
        call.probe(Phase::Gate, None);
        Ok(call)
    }
}

/// A call in progress.
pub struct Call<'p, W: Word, M, P> {
    port: &'p Port<'p, W, M, P>,
    index: u64,
    value: Signal<W>,
    bank: usize,
    announcement: Announcement,
    /// Whether `entered` of every peer has been seen.
    met: Cell<bool>,
}

impl<'p, W: Word, M: Memory<W>, P: Waiting> Call<'p, W, M, P> {
    /// The call's index.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The call's signal value.
    pub fn value(&self) -> Signal<W> {
        self.value
    }

    /// The bank of staging memory this call uses.
    pub fn bank(&self) -> usize {
        self.bank
    }

    /// The other ranks; see [`Port::peers`].
    pub fn peers(&self) -> impl Iterator<Item = usize> + use<W, M, P> {
        self.port.peers()
    }

    /// Waits until this call's bank may be written, and clears what this call leaves unused in it.
    ///
    /// From index 2 on, every rank waits for every peer's `entered` of index `i - 1`, also a rank that neither writes nor reads in
    /// this call: it would otherwise run ahead of the ring. (Calls 0 and 1 have banks that nobody has read.) `writes` says whether this rank writes, and `used(p)` how many
    /// `ready` words it will use at `p` in this call, from the first on. The words beyond, which the bank's previous call used,
    /// are cleared here, behind the gate, so that the words of a bank that are not 0 are always those of its latest call, and
    /// none is ever old enough to be believed again.
    ///
    /// # Errors
    /// See [`Call::await_ready`].
    pub fn gate(&self, writes: bool, used: impl Fn(usize) -> usize) -> Result<(), Fault> {
        let (rules, layout) = (self.port.rules, self.port.layout());
        let gated =
            rules.keeps(Rule::Gate) && (writes || rules.keeps(Rule::GateOfAll)) && self.index >= 2;
        if gated {
            // MAX - 1 calls after the value of `i` is the value of `i - 1`.
            let previous = self.value.after((W::MAX - 1) as u64);
            for peer in self.port.peers() {
                let place = layout.word(WordKind::Entered, peer);
                self.wait(WordKind::Entered, peer, None, place, previous, |seen| {
                    self.reached(seen, previous)
                })?;
            }
        }
        for peer in self.port.peers() {
            let cell = self.port.cell(layout.used_cell(self.bank, peer));
            let previous = cell.load(Ordering::Relaxed) as usize;
            let now = used(peer);
            if rules.keeps(Rule::Clear) {
                for tile in now..previous {
                    let place = layout.ready(self.bank, self.port.rank(), tile);
                    W::store(self.port.memory.word(peer, place), 0, self.release());
                }
            }
            if now != previous {
                cell.store(now as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Tells `peer` that this rank's tile `tile` lies in its staging. All stores of the tile's data come before.
    pub fn push_ready(&self, peer: usize, tile: usize) {
        self.probe(Phase::Ready, Some(tile as u64));
        if peer != self.port.rank() {
            let place = self.port.layout().ready(self.bank, self.port.rank(), tile);
            self.signal(peer, place, self.value);
        }
    }

    /// Waits until tile `tile` of `source` lies in this rank's staging. A rank does not wait for itself.
    ///
    /// # Errors
    /// When the budget ends, when a peer or the host asked this rank to leave, or when the call differs from a peer's: the
    /// workspace is then poisoned, and all peers are asked to leave.
    pub fn await_ready(&self, source: usize, tile: usize) -> Result<(), Fault> {
        self.probe(Phase::Reduce, Some(tile as u64));
        if source != self.port.rank() {
            let place = self.port.layout().ready(self.bank, source, tile);
            // Equality: the word is banked with its data, so nothing newer can stand in it before this call is done here, and
            // a call that a fault left out is not taken for its successor.
            self.wait(
                WordKind::Ready,
                source,
                Some(tile as u64),
                place,
                self.value,
                |seen| seen == self.value.get(),
            )?;
        }
        self.probe(Phase::Read, Some(tile as u64));
        Ok(())
    }

    /// Waits until every peer has entered this call, and compares what each announced with this rank's own call.
    ///
    /// Whoever reads staging or stores into outputs does this first. Rank 0 owns rows in every call, so it always does, and a
    /// peer with another `m` is always found.
    ///
    /// # Errors
    /// See [`Call::await_ready`].
    pub fn meet(&self) -> Result<(), Fault> {
        self.meet_as(WordKind::Entered)
    }

    /// [`Call::meet`], in whose faults the awaited word is called `kind`.
    pub(crate) fn meet_as(&self, kind: WordKind) -> Result<(), Fault> {
        if self.met.get() || !self.port.rules.keeps(Rule::Entered) {
            return Ok(());
        }
        for peer in self.port.peers() {
            let place = self.port.layout().word(kind, peer);
            let wait = self.wait(kind, peer, None, place, self.value, |seen| {
                self.reached(seen, self.value)
            })?;
            let theirs = self.announcement(peer).m;
            let ours = self.announcement.m;
            if ours != theirs && self.port.rules.keeps(Rule::Compare) {
                return Err(self.fault(Cause::Mismatch { ours, theirs }, Some(wait)));
            }
        }
        self.met.set(true);
        Ok(())
    }

    /// What `rank` announced of this call; of a peer only after [`Call::meet`].
    pub fn announcement(&self, rank: usize) -> Announcement {
        if rank == self.port.rank() || !self.port.rules.keeps(Rule::Entered) {
            return self.announcement;
        }
        let place = self.port.layout().announced_cell(self.index, rank);
        Announcement::from_cells(core::array::from_fn(|offset| {
            self.port.cell(place + offset).load(Ordering::Relaxed)
        }))
    }

    /// Comes before tile `tile` is stored into peers' outputs. A peer that has left the call may use its output again, so this looks whether one has,
    /// as a wait does: so no more than one tile is stored after it has said so.
    ///
    /// # Errors
    /// A fault, where a peer has asked this rank to leave.
    pub fn before_store(&self, tile: usize) -> Result<(), Fault> {
        self.probe(Phase::Store, Some(tile as u64));
        self.look(None)
    }

    /// Tells every peer that this rank has added all it adds to its accumulators in this call.
    pub fn push_added(&self) {
        self.probe(Phase::Added, None);
        let place = self.port.layout().added(self.bank, self.port.rank());
        for peer in self.port.peers() {
            self.signal(peer, place, self.value);
        }
    }

    /// Waits until every peer has added all it adds to this rank's accumulators in this call.
    ///
    /// # Errors
    /// See [`Call::await_ready`].
    pub fn await_added(&self) -> Result<(), Fault> {
        for peer in self.port.peers() {
            let place = self.port.layout().added(self.bank, peer);
            self.wait(WordKind::Added, peer, None, place, self.value, |seen| {
                seen == self.value.get()
            })?;
        }
        self.probe(Phase::Read, None);
        Ok(())
    }

    /// Takes spin lock `lock` in the memory of `rank`.
    ///
    /// # Errors
    /// See [`Call::await_ready`].
    pub fn lock(&self, rank: usize, lock: usize) -> Result<Held<'_, W>, Fault> {
        let wait = Wait {
            word: WordKind::Lock,
            peer: rank,
            tile: Some(lock as u64),
            expected: 0,
            seen: 1,
        };
        let place = self.port.layout().lock(lock);
        SpinLock::new(self.port.memory.word(rank, place)).lock(
            &self.port.waiting,
            || self.look(Some(wait)),
            || self.fault(self.budget_ended(), Some(wait)),
        )
    }

    /// Ends a call in which nobody stores into a peer's output, of an operation in which nobody ever does. Nothing is told: that
    /// this rank has read all it reads, and cleared all it clears, its peers hear by `entered` of its next call.
    ///
    /// # Errors
    /// None today: the signature is that of [`Call::finish_gathered`].
    pub fn finish(self) -> Result<(), Fault> {
        self.leave();
        Ok(())
    }

    /// Ends a call in which nobody stores into a peer's output, while owners do in other calls on the workspace.
    ///
    /// Nobody waits for `gathered` here. But it is awaited by equality, and no word may be a lap old when it is, so every rank tells
    /// it in the calls of two values of each lap. One value would not do: between two calls of that value there is no other of it.
    ///
    /// # Errors
    /// See [`Call::await_ready`].
    pub fn finish_unowned(self) -> Result<(), Fault> {
        if SWEEPS.contains(&self.value.get()) && self.port.rules.keeps(Rule::Clear) {
            self.meet()?;
            self.push_gathered();
        }
        self.leave();
        Ok(())
    }

    /// Ends a call in which owners store into their peers' outputs: waits until this rank's output is whole, which it is
    /// once every rank for which `owns` is true has told so.
    ///
    /// Every rank tells `gathered` in every such call, also one that stored nothing, and to no peer before having seen its
    /// `entered`. So the word is never a lap old (see [`Call::finish_unowned`]), and never overwritten before the peer has left the
    /// call it waits for it in.
    ///
    /// # Errors
    /// See [`Call::await_ready`].
    pub fn finish_gathered(self, owns: impl Fn(usize) -> bool) -> Result<(), Fault> {
        self.meet()?;
        self.push_gathered();
        if self.port.rules.keeps(Rule::Gathered) {
            for owner in self.port.peers().filter(|&peer| owns(peer)) {
                let place = self.port.layout().word(WordKind::Gathered, owner);
                self.wait(WordKind::Gathered, owner, None, place, self.value, |seen| {
                    seen == self.value.get()
                })?;
            }
        }
        self.leave();
        Ok(())
    }

    /// Tells every peer, all of which have been met, that what this rank stores into its output in this call has arrived.
    fn push_gathered(&self) {
        self.probe(Phase::Gathered, None);
        let place = (self.port.layout()).word(WordKind::Gathered, self.port.rank());
        for peer in self.port.peers() {
            self.signal(peer, place, self.value);
        }
    }

    fn leave(self) {
        self.probe(Phase::Leave, None);
        self.port
            .cell(self.port.layout().index_cell())
            .store(self.index + 1, Ordering::Release);
    }

    fn probe(&self, phase: Phase, tile: Option<u64>) {
        if let Some(probe) = self.port.probe {
            probe.at(Point {
                rank: self.port.rank(),
                index: self.index,
                phase,
                tile,
            });
        }
    }

    fn release(&self) -> Ordering {
        if self.port.rules.keeps(Rule::Release) {
            Ordering::Release
        } else {
            Ordering::Relaxed
        }
    }

    fn signal(&self, peer: usize, place: usize, value: Signal<W>) {
        W::store(
            self.port.memory.word(peer, place),
            value.get(),
            self.release(),
        );
    }

    fn reached(&self, seen: i64, target: Signal<W>) -> bool {
        let rules = self.port.rules;
        if !rules.keeps(Rule::Reached) {
            seen == target.get()
        } else if !rules.keeps(Rule::ReachedOnRing) {
            seen != 0 && seen >= target.get()
        } else {
            reached(seen, target)
        }
    }

    /// Waits for the word at `place` of this rank's memory, and returns what it waited for.
    fn wait(
        &self,
        word: WordKind,
        peer: usize,
        tile: Option<u64>,
        place: usize,
        expected: Signal<W>,
        over: impl Fn(i64) -> bool,
    ) -> Result<Wait, Fault> {
        let atomic = self.port.memory.word(self.port.rank(), place);
        let mut wait = Wait {
            word,
            peer,
            tile,
            expected: expected.get(),
            seen: W::load(atomic, Ordering::Acquire),
        };
        if over(wait.seen) {
            return Ok(wait);
        }
        let mut pause = self.port.waiting.begin();
        loop {
            let step = pause.pause();
            if step == Step::Look {
                self.look(Some(wait))?;
            }
            wait.seen = W::load(atomic, Ordering::Acquire);
            if over(wait.seen) {
                return Ok(wait);
            }
            // Only now: the pause may have been long, as where the process was stopped, and the signal come during it.
            if step == Step::Over {
                return Err(self.fault(self.budget_ended(), Some(wait)));
            }
        }
    }

    fn budget_ended(&self) -> Cause {
        Cause::BudgetEnded {
            budget_ms: self.port.waiting.budget_ms(),
        }
    }

    /// Looks whether somebody asked this rank to leave.
    fn look(&self, wait: Option<Wait>) -> Result<(), Fault> {
        let layout = self.port.layout();
        for by in 0..layout.world() {
            let word = self.port.memory.word(self.port.rank(), layout.abort(by));
            if W::load(word, Ordering::Acquire) != 0 {
                return Err(self.fault(Cause::Aborted { by }, wait));
            }
        }
        Ok(())
    }

    fn describe(&self, cause: Cause, wait: Option<Wait>) -> Fault {
        Fault {
            operation: self.port.operation,
            index: self.index,
            value: self.value.get(),
            rank: self.port.rank(),
            wait,
            cause,
        }
    }

    /// Poisons the workspace and asks all peers to leave. The rank signals nothing more until the next reset.
    fn fault(&self, cause: Cause, wait: Option<Wait>) -> Fault {
        let layout = self.port.layout();
        self.port
            .cell(layout.poison_cell())
            .store(1, Ordering::Release);
        for peer in self.port.peers() {
            let word = self.port.memory.word(peer, layout.abort(self.port.rank()));
            W::store(word, 1, Ordering::Release);
        }
        self.describe(cause, wait)
    }
}
