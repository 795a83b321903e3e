//! What can go wrong while measuring.

use crate::timing::Failure;
use cublaslt_sys::CublasLtError;
use iris_heap::WorldError;
use iris_heap::device::DeviceError;
use iris_kernels::DType;
use iris_kernels::device::compile::{CompileError, UnknownArchitecture};
use iris_ops::OpError;
use rccl_sys::NcclError;

/// An error of measuring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The device refused something.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The kernels of this crate do not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// There is no compiling for the device.
    #[error(transparent)]
    Architecture(#[from] UnknownArchitecture),
    /// The ranks do not meet.
    #[error(transparent)]
    World(#[from] WorldError),
    /// An operation of ours refuses.
    #[error(transparent)]
    Operation(#[from] OpError),
    /// There is no cuBLASLt.
    #[error(
        "there is no product to compare with; install cuBLASLt, which is CUDA's, or PyPI's nvidia-cublas"
    )]
    NoCublasLt(#[from] cublaslt_sys::LoadError),
    /// There is no NCCL.
    #[error("there are no collectives to compare with; install NCCL, or PyPI's nvidia-nccl-cu13")]
    NoNccl(#[from] rccl_sys::LoadError),
    /// cuBLASLt refused something.
    #[error("rank {rank}: cuBLASLt refuses")]
    CublasLt {
        /// The rank.
        rank: usize,
        /// What it refused.
        source: CublasLtError,
    },
    /// cuBLASLt has no algorithm for a product.
    #[error("rank {rank}: cuBLASLt has no algorithm for {m} x {n} x {k} in {dtype}")]
    NoAlgorithm {
        /// The rank.
        rank: usize,
        /// Rows of the result.
        m: usize,
        /// Its columns.
        n: usize,
        /// Depth.
        k: usize,
        /// The type of the elements.
        dtype: DType,
    },
    /// NCCL refused something.
    #[error("rank {rank}: NCCL refuses{}", .words.as_ref().map(|words| format!(" ({words})")).unwrap_or_default())]
    Nccl {
        /// The rank.
        rank: usize,
        /// What it refused.
        source: NcclError,
        /// What it says of it.
        words: Option<String>,
    },
    /// The library that was found takes other streams than CUDA's.
    #[error("{library} is RCCL, which takes HIP's streams and not CUDA's")]
    NotNccl {
        /// The library.
        library: String,
    },
    /// NVLink multicast was not turned off before NCCL was loaded.
    #[error("NCCL_NVLS_ENABLE is not 0: multicast is off in all that is compared, or in nothing")]
    MulticastOn,
    /// More than an operation's sizes can be.
    #[error("{m} x {n} x {k} on {world} ranks is more than can be addressed")]
    TooLarge {
        /// Rows.
        m: usize,
        /// Columns.
        n: usize,
        /// Depth.
        k: usize,
        /// Ranks.
        world: usize,
    },
    /// What was timed is wrong.
    #[error(
        "rank {rank}: {what}, operands {set}: the result at row {row}, column {column} is {actual}, and should be {expected} \
         (give or take {bound:.3e}); nothing of this measurement counts"
    )]
    Wrong {
        /// The rank.
        rank: usize,
        /// What was timed.
        what: &'static str,
        /// On which set of operands.
        set: usize,
        /// The row of the whole result.
        row: usize,
        /// The column of the whole result.
        column: usize,
        /// What is there.
        actual: f64,
        /// What should be.
        expected: f64,
        /// How far apart the two may be.
        bound: f64,
    },
    /// What was given to be measured failed.
    #[error("rank {rank}: {what}")]
    Given {
        /// The rank.
        rank: usize,
        /// Which.
        what: &'static str,
        /// Why.
        source: Failure,
    },
}
