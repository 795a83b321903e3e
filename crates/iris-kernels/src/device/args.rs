//! What the host passes to a kernel and gets back: the twins of `hip/iris/args.h`.

/// The most ranks a kernel's arguments have room for.
pub const MAX_RANKS: usize = 16;

/// The one argument of every kernel: one rank's side of one call. Sizes count elements and are those of the whole problem;
/// addresses are the device's; *offsets* are bytes from the start of a rank's symmetric heap, the same at every rank.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Args {
    /// Where this device sees each rank's symmetric heap.
    pub heap: [u64; MAX_RANKS],
    /// The number of ranks.
    pub world: u64,
    /// This rank.
    pub rank: u64,
    /// The blocks of this launch: all are resident at once.
    pub blocks: u64,
    /// Rows of this call.
    pub m: u64,
    /// Columns.
    pub n: u64,
    /// Depth.
    pub k: u64,
    /// The largest part of `m` that falls to a rank; see [`Args::with_shares`].
    pub m_share: u64,
    /// Of `n`.
    pub n_share: u64,
    /// Of `k`.
    pub k_share: u64,
    /// Into how many parts the depth of a piece is cut where ranks have rows of A, and how deep each is.
    pub row_parts: u64,
    /// See `row_parts`.
    pub row_part: u64,
    /// The same where they have columns of it.
    pub col_parts: u64,
    /// See `col_parts`.
    pub col_part: u64,
    /// How many rows of tiles come first in an all-gather first, of this rank's own rows of A; see [`Args::gathering`].
    pub rows_first: u64,
    /// Whether its part of A goes to one peer after the other.
    pub in_turn: u64,
    /// Whether blocks send before they multiply anything.
    pub sends_first: u64,
    /// Clock cycles, at least, from one step of what is sent to the next.
    pub apart: u64,
    /// Whether `a` is a matrix to be exchanged as it is, in place of a product.
    pub given: u64,
    /// A: its address, and elements from one row and one column to the next.
    pub a: u64,
    /// See `a`.
    pub a_row: u64,
    /// See `a`.
    pub a_col: u64,
    /// B, likewise.
    pub b: u64,
    /// See `b`.
    pub b_row: u64,
    /// See `b`.
    pub b_col: u64,
    /// The address of the bias, or 0.
    pub bias: u64,
    /// The address of C.
    pub c: u64,
    /// Elements from one row of C to the next.
    pub c_row: u64,
    /// Where peers store into C: its offset.
    pub output: u64,
    /// Elements from one row of that to the next.
    pub output_row: u64,
    /// Whether the memory at `output` is the workspace's, to be copied to `c`.
    pub bounced: u64,
    /// The offset of the workspace's cells.
    pub cells: u64,
    /// The offset of its words.
    pub words: u64,
    /// `ready` words of a source in a bank.
    pub tiles: u64,
    /// Spin locks.
    pub locks: u64,
    /// The offset of the staging.
    pub staging: u64,
    /// Its slots of each source in a bank.
    pub slots: u64,
    /// The bytes of a slot, a multiple of 16.
    pub slot_bytes: u64,
    /// The offset of the memory for packets, or 0 where there is none.
    pub packets: u64,
    /// Its slots of each source in a bank.
    pub packet_slots: u64,
    /// The bytes of such a slot, a multiple of 16.
    pub packet_bytes: u64,
    /// The offset of the accumulators.
    pub accumulators: u64,
    /// The accumulators of a bank.
    pub accumulator_elements: u64,
    /// The value of the call with index 0.
    pub first: u64,
    /// Nanoseconds after which a wait gives up.
    pub budget_ns: u64,
    /// The address of a 32-bit word in host memory by which the host asks to leave.
    pub abort: u64,
    /// The address of a [`FaultRecord`] in host memory.
    pub fault: u64,
    /// Copied into the fault record.
    pub operation: u64,
    /// Rules removed, for kernels compiled with IRIS_CONTROLS.
    pub removed: u64,
    /// A stall, for kernels compiled with IRIS_STALLS: 1 + the rank.
    pub stall_rank: u64,
    /// The index of the call.
    pub stall_index: u64,
    /// The phase.
    pub stall_phase: u64,
    /// For how long.
    pub stall_ns: u64,
}

impl Args {
    /// The same with the ranks' largest parts of `m`, `n` and `k`, each divided by `world` and rounded up; and with the parts of pieces.
    #[must_use]
    pub fn with_shares(self) -> Self {
        let share = |total: u64| total.div_ceil(self.world.max(1));
        let (m_share, k_share) = (share(self.m), share(self.k));
        let (row_parts, row_part) = super::memory::parts(m_share, self.k);
        let (col_parts, col_part) = super::memory::parts(self.m, k_share);
        Self {
            m_share,
            n_share: share(self.n),
            k_share,
            row_parts,
            row_part,
            col_parts,
            col_part,
            ..self
        }
    }
}

const _: () = assert!(size_of::<Args>() == 8 * (MAX_RANKS + 52));

/// What the first thread that faults writes to host memory. `state` is stored last.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultRecord {
    /// 0 before, 1 once the rest is there.
    pub state: u64,
    /// From the arguments.
    pub operation: u64,
    /// The call's index.
    pub index: u64,
    /// Its signal value.
    pub value: u64,
    /// The rank.
    pub rank: u64,
    /// Why: 0 budget, 1 aborted, 2 another m, 3 poisoned.
    pub cause: u64,
    /// Whether it waited.
    pub waited: u64,
    /// For which word, numbered as `iris_sync::WordKind`.
    pub word: u64,
    /// Of which rank.
    pub peer: u64,
    /// For which tile, or all ones.
    pub tile: u64,
    /// For which value.
    pub expected: u64,
    /// The value last seen.
    pub seen: u64,
    /// The peer's m, the rank that asked, or the budget.
    pub other: u64,
    /// This rank's m.
    pub ours: u64,
}

const _: () = assert!(size_of::<FaultRecord>() == 8 * 14);
