//! The programs by name: what each needs, and how to run it.

use super::accumulate::{self, Adding};
use super::all_gather_matmul::{self, GatherDim};
use super::gemm::group_size;
use super::{
    Operands, Outcome, Rank, Scratch, Shape, matmul_all_gather, matmul_reduce_scatter, one_shot,
    two_shot,
};
use crate::element::{DType, Element};
use crate::geometry::{Deal, Grid, shard};
use core::ops::Range;
use iris_sync::{Waiting, Word};

/// A program: an operation in one of its variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// `matmul_all_reduce`: every rank reduces every tile.
    OneShot,
    /// The same for few rows: on devices, tiles travel in packets that carry their own signal. The host, where a signal costs next to
    /// nothing, runs `OneShot`.
    OneShotPackets,
    /// `matmul_all_reduce`: a tile's owner reduces it and stores it everywhere.
    TwoShot,
    /// The same in packets, on devices, with no store to a peer's output. The host runs `OneShot`.
    TwoShotPackets,
    /// `matmul_all_reduce`: atomic additions to f32 accumulators everywhere.
    Atomic,
    /// `matmul_all_reduce`: additions under a lock to f32 accumulators everywhere.
    Spinlock,
    /// `matmul_reduce_scatter`.
    ReduceScatter,
    /// The same for few rows, in packets on devices. The host runs `ReduceScatter`.
    ReduceScatterPackets,
    /// `all_gather_matmul`.
    AllGatherMatmul(GatherDim),
    /// The same of few rows, for up to [`MOST_UNPACKED`]: on devices, rows travel in packets. The host runs `AllGatherMatmul`.
    AllGatherMatmulPackets,
    /// `matmul_all_gather`.
    MatmulAllGather,
}

/// The most rows for which `all_gather_matmul` is made in packets: each block reads all of A, and packets are larger than what they hold. Of more, the
/// program is right and slow.
pub const MOST_UNPACKED: usize = 16;

/// The symmetric memory a program needs at each rank, for the largest `m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Staging slots of each source in a bank.
    pub slots: usize,
    /// `ready` words of each source in a bank: one for each slot, but where a slot is handed over in parts.
    pub words: usize,
    /// Elements of the dtype in a slot.
    pub slot_elements: usize,
    /// Slots for packets of each source in a bank.
    pub packet_slots: usize,
    /// Elements of the dtype in such a slot: each takes twice its bytes.
    pub packet_elements: usize,
    /// f32 accumulators in a bank.
    pub accumulators: usize,
    /// Spin locks.
    pub locks: usize,
}

impl Needs {
    /// What serves both.
    pub fn or(self, other: Self) -> Self {
        Self {
            slots: self.slots.max(other.slots),
            words: self.words.max(other.words),
            slot_elements: self.slot_elements.max(other.slot_elements),
            packet_slots: self.packet_slots.max(other.packet_slots),
            packet_elements: self.packet_elements.max(other.packet_elements),
            accumulators: self.accumulators.max(other.accumulators),
            locks: self.locks.max(other.locks),
        }
    }
}

/// The sizes of one rank's operands, as ranges of the whole problem's matrices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Rows and depth of its A.
    pub a: (Range<usize>, Range<usize>),
    /// Depth and columns of its B.
    pub b: (Range<usize>, Range<usize>),
    /// Rows and columns of its C.
    pub c: (Range<usize>, Range<usize>),
}

impl Program {
    /// The operation it belongs to.
    pub fn operation(self) -> &'static str {
        match self {
            Self::OneShot
            | Self::OneShotPackets
            | Self::TwoShot
            | Self::TwoShotPackets
            | Self::Atomic
            | Self::Spinlock => "matmul_all_reduce",
            Self::ReduceScatter | Self::ReduceScatterPackets => "matmul_reduce_scatter",
            Self::AllGatherMatmul(_) | Self::AllGatherMatmulPackets => "all_gather_matmul",
            Self::MatmulAllGather => "matmul_all_gather",
        }
    }

    /// Whether peers store into a rank's output, which must then be symmetric.
    pub fn stores_to_peers(self) -> bool {
        matches!(self, Self::TwoShot | Self::MatmulAllGather)
    }

    /// Which part of the whole matrices `rank` has and gets, with `m` rows.
    pub fn parts(self, m: usize, shape: Shape, world: usize, rank: usize) -> Parts {
        let Shape { n, k, .. } = shape;
        let rows = shard(m, world, rank);
        let depth = shard(k, world, rank);
        let cols = shard(n, world, rank);
        match self {
            Self::OneShot
            | Self::OneShotPackets
            | Self::TwoShot
            | Self::TwoShotPackets
            | Self::Atomic
            | Self::Spinlock => Parts {
                a: (0..m, depth.clone()),
                b: (depth, 0..n),
                c: (0..m, 0..n),
            },
            Self::ReduceScatter | Self::ReduceScatterPackets => Parts {
                a: (0..m, depth.clone()),
                b: (depth, 0..n),
                c: (rows, 0..n),
            },
            Self::AllGatherMatmulPackets => {
                Self::AllGatherMatmul(GatherDim::Rows).parts(m, shape, world, rank)
            }
            Self::AllGatherMatmul(gather) => Parts {
                a: gather.part(m, k, world, rank),
                b: (0..k, cols.clone()),
                c: (0..m, cols),
            },
            Self::MatmulAllGather => Parts {
                a: (rows, 0..k),
                b: (0..k, 0..n),
                c: (0..m, 0..n),
            },
        }
    }

    /// What it needs for up to `m` rows.
    pub fn needs(self, m: usize, shape: Shape, world: usize) -> Needs {
        let Shape { n, k, tile } = shape;
        let tiles = Grid::new(m, n, tile).len();
        let largest = m.div_ceil(world);
        let needs = match self {
            Self::OneShot => Needs {
                slots: tiles,
                slot_elements: tile.len(),
                ..Needs::default()
            },
            Self::OneShotPackets => Needs {
                slots: tiles,
                slot_elements: tile.len(),
                packet_slots: tiles,
                // Few rows take no whole tile.
                packet_elements: tile.m.min(m).saturating_mul(tile.n),
                ..Needs::default()
            },
            Self::TwoShot => Needs {
                slots: Deal { world }.count(tiles, 0),
                slot_elements: tile.len(),
                ..Needs::default()
            },
            Self::TwoShotPackets => Needs {
                slots: tiles,
                slot_elements: tile.len(),
                // Two for each column of tiles, of the rows that are a rank's.
                packet_slots: n.div_ceil(tile.n).saturating_mul(2),
                packet_elements: largest.saturating_mul(tile.n),
                ..Needs::default()
            },
            Self::Atomic | Self::Spinlock => Needs {
                accumulators: m.saturating_mul(n),
                locks: if self == Self::Spinlock { tiles } else { 0 },
                ..Needs::default()
            },
            Self::ReduceScatter => Needs {
                slots: Grid::new(largest, n, tile).len(),
                slot_elements: tile.len(),
                ..Needs::default()
            },
            Self::ReduceScatterPackets => Needs {
                slots: Grid::new(largest, n, tile).len(),
                slot_elements: tile.len(),
                // One for each column of tiles, of the rows that are this rank's.
                packet_slots: n.div_ceil(tile.n),
                packet_elements: largest.saturating_mul(tile.n),
                ..Needs::default()
            },
            Self::AllGatherMatmulPackets => Needs {
                // One for as many depths as a tile is wide.
                packet_slots: k.div_ceil(tile.n),
                packet_elements: largest.saturating_mul(tile.n),
                ..Self::AllGatherMatmul(GatherDim::Rows).needs(m, shape, world)
            },
            Self::AllGatherMatmul(gather) => {
                let (rows, depth) = match gather {
                    GatherDim::Rows => (largest, k),
                    GatherDim::Columns => (m, k.div_ceil(world)),
                };
                Needs {
                    slots: rows.div_ceil(tile.m),
                    slot_elements: tile.m.saturating_mul(depth),
                    ..Needs::default()
                }
            }
            Self::MatmulAllGather => Needs::default(),
        };
        Needs {
            words: needs.slots,
            ..needs
        }
    }

    /// The memory that `rank` works in, for up to `m` rows.
    pub fn scratch(
        self,
        dtype: DType,
        m: usize,
        shape: Shape,
        world: usize,
        rank: usize,
    ) -> Scratch {
        let parts = self.parts(m, shape, world, rank);
        let a = match self {
            // Pieces are widened as they come.
            Self::AllGatherMatmul(_) | Self::AllGatherMatmulPackets => shape.tile.m * shape.k,
            // Fewer rows may fall to this rank at the largest m than at a smaller one.
            Self::MatmulAllGather => m.div_ceil(world) * shape.k,
            _ => parts.a.0.len() * parts.a.1.len(),
        };
        Scratch::new(
            dtype,
            a,
            parts.b.0.len() * parts.b.1.len(),
            group_size(shape.tile) * shape.tile.len(),
        )
    }

    /// Runs one call.
    ///
    /// # Safety
    /// `operands` are as [`Operands`] says, with the sizes of [`Program::parts`], and the output is symmetric if
    /// [`Program::stores_to_peers`]. All ranks run the same calls in the same order. Staging, accumulators and locks are those
    /// of [`Program::needs`] for at least this `m`, and were zero before the first call. The scratch is this program's.
    ///
    /// # Errors
    /// The fault that the call left with.
    pub unsafe fn run<T: Element, W: Word, P: Waiting>(
        self,
        rank: &Rank<'_, W, P>,
        operands: &Operands<T>,
        scratch: &mut Scratch,
    ) -> Outcome {
        // SAFETY: what each asks for is promised by the caller.
        unsafe {
            match self {
                Self::OneShot | Self::OneShotPackets | Self::TwoShotPackets => {
                    one_shot::run(rank, operands, scratch)
                }
                Self::TwoShot => two_shot::run(rank, operands, scratch),
                Self::Atomic => accumulate::run(rank, operands, Adding::Atomic, scratch),
                Self::Spinlock => accumulate::run(rank, operands, Adding::Spinlock, scratch),
                Self::ReduceScatter | Self::ReduceScatterPackets => {
                    matmul_reduce_scatter::run(rank, operands, scratch)
                }
                Self::AllGatherMatmul(gather) => {
                    all_gather_matmul::run(rank, operands, gather, scratch)
                }
                Self::AllGatherMatmulPackets => {
                    all_gather_matmul::run(rank, operands, GatherDim::Rows, scratch)
                }
                Self::MatmulAllGather => matmul_all_gather::run(rank, operands, scratch),
            }
        }
    }
}
