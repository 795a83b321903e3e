//! Where data that is on its way between ranks lies in symmetric memory.

/// Slots for the tiles (or pieces) that each source hands to a rank, in two banks. The place of a slot does not depend on `m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Staging {
    /// Bytes from the start of the symmetric heap.
    pub offset: usize,
    /// Slots of each source.
    pub slots: usize,
    /// Bytes of a slot.
    pub slot_bytes: usize,
}

impl Staging {
    /// `slots` slots of at least `bytes` bytes; each begins on a cache line of its own.
    pub fn new(offset: usize, slots: usize, bytes: usize) -> Self {
        Self {
            offset,
            slots,
            slot_bytes: bytes.next_multiple_of(64),
        }
    }

    /// The bytes it takes at each rank, or `None` where they do not fit an integer.
    pub fn bytes(&self, world: usize) -> Option<usize> {
        self.slots
            .checked_mul(self.slot_bytes)?
            .checked_mul(world)?
            .checked_mul(2)
    }

    /// Where `source` puts its tile `slot` in `bank` at the rank whose heap begins at `base`.
    pub(crate) fn slot(
        &self,
        base: *mut u8,
        world: usize,
        bank: usize,
        source: usize,
        slot: usize,
    ) -> *mut u8 {
        debug_assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        base.wrapping_add(
            self.offset + ((bank * world + source) * self.slots + slot) * self.slot_bytes,
        )
    }
}

/// f32 sums that all ranks add to, in two banks of `elements` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accumulators {
    /// Bytes from the start of the symmetric heap.
    pub offset: usize,
    /// Elements of a bank.
    pub elements: usize,
}

impl Accumulators {
    /// The bytes they take at each rank, or `None` where they do not fit an integer.
    pub fn bytes(&self) -> Option<usize> {
        self.elements.checked_mul(2 * size_of::<f32>())
    }

    /// The first element of `bank` at the rank whose heap begins at `base`.
    pub(crate) fn bank(&self, base: *mut u8, bank: usize) -> *mut f32 {
        base.wrapping_add(self.offset)
            .cast::<f32>()
            .wrapping_add(bank * self.elements)
    }
}
