//! The operations as programs for GPUs: one HIP source tree, compiled at run time.
//!
//! `hip/` holds the sources; [`sources`] has them embedded; [`compile`] compiles them and users' own, for whichever vendor's GPUs,
//! and keeps what came out in a cache on disk; [`Args`] and [`FaultRecord`] are what host and kernel exchange.
//!
//! A kernel of one's own includes the headers of `hip/iris`, and takes [`Ranks`] in its argument to reach the symmetric heaps of all
//! ranks. `docs/kernels.md` tells how to write one, and `examples/own_kernel.rs` is a program with one.

mod args;
pub mod compile;
pub mod fast;
mod gather;
mod memory;
pub mod nvrtc;
mod ranks;
pub mod sources;

pub use args::{Args, FaultRecord, MAX_RANKS};
pub use compile::CompileError;
pub use memory::{ALL_SHARES, completed, needs, slot_bytes};
pub use ranks::{Ranks, UnusableRanks};

use crate::Tile;
use crate::host::{GatherDim, Program};

/// The kernels' tile where none is asked for.
pub const TILE: Tile = Tile { m: 128, n: 128 };

/// The source of the product by itself, and its kernel's name: it takes the argument of the operations' kernels, in a world of one rank.
pub const PRODUCT: (&str, &str) = ("matmul.hip", "iris_matmul");

impl Program {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::OneShot,
        Self::OneShotPackets,
        Self::TwoShot,
        Self::TwoShotPackets,
        Self::Atomic,
        Self::Spinlock,
        Self::ReduceScatter,
        Self::ReduceScatterPackets,
        Self::AllGatherMatmul(GatherDim::Rows),
        Self::AllGatherMatmul(GatherDim::Columns),
        Self::AllGatherMatmulPackets,
        Self::MatmulAllGather,
    ];

    /// The source of its kernel, and the kernel's name.
    pub fn kernel(self) -> (&'static str, &'static str) {
        match self {
            Self::OneShot => ("one_shot.hip", "iris_one_shot"),
            Self::OneShotPackets => ("one_shot_packets.hip", "iris_one_shot_packets"),
            Self::TwoShot => ("two_shot.hip", "iris_two_shot"),
            Self::TwoShotPackets => ("two_shot_packets.hip", "iris_two_shot_packets"),
            Self::Atomic => ("accumulate.hip", "iris_atomic"),
            Self::Spinlock => ("accumulate.hip", "iris_spinlock"),
            Self::ReduceScatter => ("matmul_reduce_scatter.hip", "iris_matmul_reduce_scatter"),
            Self::ReduceScatterPackets => (
                "matmul_reduce_scatter_packets.hip",
                "iris_matmul_reduce_scatter_packets",
            ),
            Self::AllGatherMatmul(GatherDim::Rows) => {
                ("all_gather_matmul.hip", "iris_all_gather_matmul_rows")
            }
            Self::AllGatherMatmul(GatherDim::Columns) => {
                ("all_gather_matmul.hip", "iris_all_gather_matmul_columns")
            }
            Self::AllGatherMatmulPackets => (
                "all_gather_matmul_packets.hip",
                "iris_all_gather_matmul_packets",
            ),
            Self::MatmulAllGather => ("matmul_all_gather.hip", "iris_matmul_all_gather"),
        }
    }
}
