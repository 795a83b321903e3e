//! The four operations by name.

use std::fmt;

use clap::ValueEnum;
use iris_testkit::Share;

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
