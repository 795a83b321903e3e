//! The four operations by name.

use std::fmt;

use clap::ValueEnum;
use iris::ops::Variant;
use iris_testkit::{Op, Share};

use crate::cli::args::Gather;

/// A fused operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    /// C = A B, split along K; all ranks get the whole sum
    #[value(alias = "matmul_all_reduce")]
    MatmulAllReduce,
    /// C = A B, split along K; each rank gets its rows of the sum
    #[value(alias = "matmul_reduce_scatter")]
    MatmulReduceScatter,
    /// C = A B, A gathered from all ranks, B split along N
    #[value(alias = "all_gather_matmul")]
    AllGatherMatmul,
    /// C = A B, A split along M; all ranks get all rows
    #[value(alias = "matmul_all_gather")]
    MatmulAllGather,
}

impl Operation {
    /// Its name in Rust, torch and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MatmulAllReduce => "matmul_all_reduce",
            Self::MatmulReduceScatter => "matmul_reduce_scatter",
            Self::AllGatherMatmul => "all_gather_matmul",
            Self::MatmulAllGather => "matmul_all_gather",
        }
    }

    /// The operation with what there is to choose in it.
    pub(crate) fn with(self, variant: Variant, gather: Gather) -> Op {
        match self {
            Self::MatmulAllReduce => Op::AllReduce(variant),
            Self::MatmulReduceScatter => Op::ReduceScatter,
            Self::AllGatherMatmul => Op::AllGatherMatmul(gather.into()),
            Self::MatmulAllGather => Op::MatmulAllGather,
        }
    }

    /// Whether K is split among the ranks, so that partial sums travel.
    pub(crate) fn reduces(self) -> bool {
        matches!(self, Self::MatmulAllReduce | Self::MatmulReduceScatter)
    }

    /// Which part of C a rank gets.
    pub(crate) fn share(self) -> Share {
        match self {
            Self::MatmulAllReduce | Self::MatmulAllGather => Share::Whole,
            Self::MatmulReduceScatter => Share::Rows,
            Self::AllGatherMatmul => Share::Columns,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
