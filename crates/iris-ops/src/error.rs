//! What can go wrong with an operation.

use crate::tuning::TuningError;
use iris_heap::device::DeviceError;
use iris_heap::{StreamError, Verdict, WorldError};
use iris_kernels::Tile;
use iris_kernels::device::CompileError;
use std::sync::Arc;

/// An error of an operation. Every one but [`OpError::Fault`] is found before anything is enqueued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The ranks could not agree on the operation, allocate it, or free it.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A stream could not do what it was asked to.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A size is 0.
    #[error("{operation}: `{field}` is 0, and must be at least 1")]
    Empty {
        /// The operation.
        operation: &'static str,
        /// Which size.
        field: &'static str,
    },
    /// The workspace would be larger than an address space.
    #[error(
        "{operation}: a workspace for m={m}, n={n}, k={k} on {world} ranks does not fit an address space"
    )]
    TooLarge {
        /// The operation.
        operation: &'static str,
        /// The largest number of rows.
        m: usize,
        /// Columns.
        n: usize,
        /// Depth.
        k: usize,
        /// Ranks.
        world: usize,
    },
    /// The first signal value does not lie on the ring.
    #[error("{operation}: the first signal value is {first}, and must lie in 1..={max}")]
    FirstValue {
        /// The operation.
        operation: &'static str,
        /// The value given.
        first: i64,
        /// The largest value of the word.
        max: i64,
    },
    /// A variant was asked for that the operation does not have.
    #[error("{operation} has no variant {variant}: it has one way, `auto`")]
    NoSuchVariant {
        /// The operation.
        operation: &'static str,
        /// The variant asked for.
        variant: super::Variant,
    },
    /// A call has more rows than the operation was created for, or none.
    #[error("{operation}: a call of m={m} rows, and the operation was created for 1..={largest}")]
    Rows {
        /// The operation.
        operation: &'static str,
        /// The call's rows.
        m: usize,
        /// The most it may have.
        largest: usize,
    },
    /// A matrix has another shape than the call needs.
    #[error(
        "{operation}: `{tensor}` of rank {rank} is ({rows}, {cols}), and must be ({expected_rows}, {expected_cols})"
    )]
    Shape {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
        /// The matrix.
        tensor: &'static str,
        /// Its rows.
        rows: usize,
        /// Its columns.
        cols: usize,
        /// The rows it must have.
        expected_rows: usize,
        /// The columns it must have.
        expected_cols: usize,
    },
    /// Neither stride of a matrix is 1, or rows of an output overlap.
    #[error(
        "{operation}: `{tensor}` of rank {rank} has strides ({row_stride}, {col_stride}): {expected}"
    )]
    Strides {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
        /// The matrix.
        tensor: &'static str,
        /// Elements from one row to the next.
        row_stride: usize,
        /// Elements from one column to the next.
        col_stride: usize,
        /// What they must be.
        expected: &'static str,
    },
    /// A matrix does not lie inside its buffer.
    #[error(
        "{operation}: `{tensor}` of rank {rank} needs {needed} elements of a buffer that has {len}"
    )]
    OutOfBuffer {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
        /// The matrix.
        tensor: &'static str,
        /// The elements it needs, from the buffer's first.
        needed: usize,
        /// The elements the buffer has.
        len: usize,
    },
    /// The output shares memory with an input.
    #[error("{operation}: the output `c` of rank {rank} overlaps its input `{tensor}`")]
    Aliased {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
        /// The input.
        tensor: &'static str,
    },
    /// The output is a plain buffer where peers store into it.
    #[error(
        "{operation}: the output `c` of rank {rank} is not in the symmetric heap, and peers store into it: make it with \
         `World::symmetric_buffer`, or create the operation with `plain_output`"
    )]
    PlainOutput {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
    },
    /// A bias was given to an operation created without one, or none to one created with it.
    #[error(
        "{operation}: rank {rank}'s call has {given} bias, and the operation was created {created}"
    )]
    Bias {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
        /// `a` or `no`.
        given: &'static str,
        /// `with one` or `without`.
        created: &'static str,
    },
    /// A tile was asked for that the backend's programs do not have.
    #[error("{operation}: a tile of {}x{}, {}", .tile.m, .tile.n, which_tiles(.step, .most, .also))]
    Tile {
        /// The operation.
        operation: &'static str,
        /// The tile asked for.
        tile: Tile,
        /// What its sides must be multiples of.
        step: Tile,
        /// The most they may be.
        most: Tile,
        /// Tiles that there are besides.
        also: Vec<Tile>,
    },
    /// The world has more ranks than the backend's programs can address.
    #[error("{operation}: a world of {ranks} ranks, and kernels have room for {most}")]
    TooManyRanks {
        /// The operation.
        operation: &'static str,
        /// The world's ranks.
        ranks: usize,
        /// The most there may be.
        most: usize,
    },
    /// A variant needs atomic updates of a peer's memory that the devices cannot make, or are not known to.
    #[error(
        "{operation}: {variant} needs atomic updates of rank {peer}'s memory by rank {rank}'s device, {why}"
    )]
    NoAtomics {
        /// The operation.
        operation: &'static str,
        /// The variant.
        variant: super::Variant,
        /// The rank.
        rank: usize,
        /// Its peer.
        peer: usize,
        /// Why not.
        why: &'static str,
    },
    /// Not even one block of a kernel fits the part of the device that is this rank's.
    #[error(
        "{operation}: {kernel} of rank {rank} needs a block resident, and {most} blocks fit the device for {ranks_here} ranks"
    )]
    NoRoomForBlocks {
        /// The operation.
        operation: &'static str,
        /// The kernel.
        kernel: &'static str,
        /// The rank.
        rank: usize,
        /// The blocks that fit the device at once.
        most: u32,
        /// The ranks that share the device.
        ranks_here: usize,
    },
    /// A probe was given to an operation on a device, whose kernels call no functions of the host.
    #[error("{operation}: probes look into calls on the host only")]
    Probe {
        /// The operation.
        operation: &'static str,
    },
    /// A table of what was measured cannot be used.
    #[error(transparent)]
    Tuning(#[from] TuningError),
    /// A kernel could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A buffer of another device was given.
    #[error(
        "{operation}: `{tensor}` of rank {rank} lies on device {found}, and the rank's device is {device}"
    )]
    WrongDevice {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
        /// The matrix.
        tensor: &'static str,
        /// The rank's device.
        device: usize,
        /// The buffer's.
        found: usize,
    },
    /// A buffer of another world's, or another rank's, symmetric heap was given.
    #[error(
        "{operation}: `{tensor}` of rank {rank} lies in the symmetric heap of another world or rank"
    )]
    ForeignBuffer {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
        /// The matrix.
        tensor: &'static str,
    },
    /// A graph was launched with other operations than were captured in it.
    #[error(
        "the graph calls {captured} operations, and {given} were given, of which {missing} it calls were not among them"
    )]
    Graph {
        /// The operations called in the graph.
        captured: usize,
        /// Those given.
        given: usize,
        /// Those called that were not given.
        missing: usize,
    },
    /// A stream of another rank was given.
    #[error("{operation}: rank {rank} was given a stream of rank {stream}")]
    ForeignStream {
        /// The operation.
        operation: &'static str,
        /// The operation's rank.
        rank: usize,
        /// The stream's rank.
        stream: usize,
    },
    /// An operation is bound to a stream for good, since what bound it was forgotten in place of dropped.
    #[error(
        "{operation}: on rank {rank} a `Bound` was forgotten, not dropped: when its calls have ended is not known, so the operation can be neither bound, launched in a graph, reset nor freed"
    )]
    StillBound {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
    },
    /// An earlier call faulted, and the operation has not been reset since.
    #[error("{0}")]
    Fault(Arc<Verdict>),
}

/// Which tiles there are, in words.
pub(crate) fn which_tiles(step: &Tile, most: &Tile, also: &[Tile]) -> String {
    let mut words = format!(
        "whose sides must be multiples of {}x{} and at most {}x{}",
        step.m, step.n, most.m, most.n
    );
    for tile in also {
        words += &format!(", or {}x{}", tile.m, tile.n);
    }
    words
}

impl From<DeviceError> for OpError {
    fn from(error: DeviceError) -> Self {
        Self::World(error.into())
    }
}
