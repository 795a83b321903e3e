//! What can go wrong with an operation.

use iris_heap::{StreamError, Verdict, WorldError};
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
    /// An earlier call faulted, and the operation has not been reset since.
    #[error("{0}")]
    Fault(Arc<Verdict>),
}
