//! The protocol's rules by name, so that a test can take one out and be seen to fail.

/// A rule of the protocol, named by what it keeps from happening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// From index 2 on, a rank waits for `entered` of `i - 1` from every peer, which has then left call `i - 2`, before it signals
    /// anything of call `i` but `entered`. Without: a bank is overwritten while a slow reader still reads it.
    Gate,
    /// Ranks that neither write nor read in a call keep the gate too. Without: they run ahead of the ring.
    GateOfAll,
    /// Nobody stores into a peer's output before having seen its `entered`. Without: the user's next kernel reads an
    /// output that already belongs to the next call.
    Entered,
    /// Gates and `entered` are over once the word has *reached* the value. Without (equality): a writer that has moved on
    /// is never seen.
    Reached,
    /// *Reached* is a compare on the ring. Without (a plain `>=`): it is false after every wrap.
    ReachedOnRing,
    /// The bank follows from the index. Without (from the value): two calls in a row share a bank at the wrap.
    BankFromIndex,
    /// There are two banks. Without: a fast peer overwrites what a slow reader still reads.
    TwoBanks,
    /// The value follows from the index in device memory. Without (frozen, as by a captured launch argument): later calls
    /// believe the words of earlier ones.
    ValueFromIndex,
    /// `ready` words that a call leaves unused are cleared by their writer, and `gathered` is told twice a lap at least. Without: a
    /// word from two laps ago is believed, or from one.
    Clear,
    /// A call ends only when every owner's stores into this rank's output are announced. Without: the user reads an
    /// output with holes.
    Gathered,
    /// Signals are stored with release order. Without: they overtake the data they announce.
    Release,
    /// What a peer announces is compared with this rank's call. Without: ranks with different `m` go unnoticed.
    Compare,
    /// A packet's data and flag are stored as one. Without: the flag is seen, and data of another call beside it. Only kernels on
    /// devices have packets.
    Whole,
}

/// Which rules are kept: all, but in a negative control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    removed: u32,
}

impl Rules {
    /// The protocol.
    pub const ALL: Self = Self { removed: 0 };

    /// The protocol without some of its rules, for negative controls.
    ///
    /// # Safety
    /// Without its rules the protocol does not keep ranks from reading and writing the same memory at once, which is
    /// undefined behaviour wherever that memory is not itself atomic. Only for tests that are ready for wrong data and for
    /// waits that end by their budget.
    pub const unsafe fn without(rules: &[Rule]) -> Self {
        let mut removed = 0;
        let mut at = 0;
        while at < rules.len() {
            removed |= 1 << rules[at] as u32;
            at += 1;
        }
        Self { removed }
    }

    /// The rules taken out, a bit each: how kernels on devices are told.
    pub const fn removed(self) -> u32 {
        self.removed
    }

    /// Whether `rule` is kept.
    pub const fn keeps(self, rule: Rule) -> bool {
        self.removed & (1 << rule as u32) == 0
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::ALL
    }
}
