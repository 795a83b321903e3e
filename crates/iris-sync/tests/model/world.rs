//! The ranks of a model, the calls they make, and which rules they keep.

use crate::machine::Compare;
use iris_sync::{Ring, Signal, SignalCounter, Word, reached};

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
    /// Every rank, for every peer to have entered the call before, from index 2 on.
    All,
    /// Only ranks that write staging in this call, for those they write to.
    Writers,
    /// As `All`, but at index 0 and 1 too.
    FromTheStart,
    /// As `All`, but none where the value is 1 or 2.
    ByValue,
    /// As `All` at every index, but a word of 0 opens the gate.
    ByZeroWord,
    /// As `All`, but for peers that have entered the call two before, and not the one before.
    TwoBefore,
    None,
}

/// Which ranks say that all they store into a peer's output has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// Every rank in every call that has owners, to a peer whose `entered` it has seen.
    All,
    /// Only the call's owners.
    Owners,
    /// Every rank in every call that has owners; those that own nothing wait for nothing.
    AllUnseen,
}

/// How accumulators come to be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zeroing {
    /// Two banks, cleared by their reader, behind the same gate as all else.
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
    /// How `entered` is awaited, here and at the gate.
    pub(crate) progress: Compare,
    pub(crate) gate: Gate,
    /// Whether whoever stores into a peer's output first sees its `entered`, as does whoever reads staging.
    pub(crate) entered: bool,
    /// Whether a rank says `entered` of a call only when it has left the one before: else as soon as it has met its peers there.
    pub(crate) entered_when_left: bool,
    pub(crate) gathered: Gathered,
    /// The values of those calls in which every rank says `gathered` although nobody stores into outputs; 0 is none's.
    pub(crate) sweep_gathered: [u16; 2],
    /// Whether a call ends only once every owner has said `gathered`.
    pub(crate) await_gathered: bool,
    /// Whether who has seen a peer's `entered` then reads the m beside it.
    pub(crate) check_size: bool,
    /// How many copies of a peer's m lie beside `entered`.
    pub(crate) size_copies: usize,
    /// Whether a writer clears the `ready` words that the bank's previous call used and this one does not.
    pub(crate) clear_ready: bool,
    /// Whether a packet's data and flag are stored, and loaded, as one.
    pub(crate) whole: bool,
    /// The values of the calls in which a rank clears those of its packets in the bank that the call does not fill.
    pub(crate) clear_packets: &'static [u16],
    /// Whether every call does that, or those alone that have packets.
    pub(crate) clear_packets_in_all: bool,
    /// Whether a rank whose inputs peers pull waits until they have read them before its kernel ends.
    pub(crate) exit_wait: bool,
    /// Whether a signal is a release store.
    pub(crate) release: bool,
    /// Whether a block produces all its tiles before it waits for one to reduce.
    pub(crate) produce_first: bool,
    pub(crate) zeroing: Zeroing,
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
            entered_when_left: true,
            gathered: Gathered::All,
            sweep_gathered: [1, 3],
            await_gathered: true,
            check_size: true,
            size_copies: 4,
            clear_ready: true,
            whole: true,
            clear_packets: &[1, 3],
            clear_packets_in_all: true,
            exit_wait: true,
            release: true,
            produce_first: true,
            zeroing: Zeroing::ByReader,
            locked: true,
        }
    }
}
