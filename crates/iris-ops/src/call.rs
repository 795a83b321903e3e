//! What one call is launched with, once its operands have been checked.

use iris_heap::{AnyBuffer, Backend};

/// Checked sizes, and which buffers.
#[derive(Debug)]
pub struct Arguments<B: Backend> {
    /// Rows of the call.
    pub m: usize,
    /// A, and B unless A stands for the whole input.
    pub inputs: [Option<(AnyBuffer<B>, Strided)>; 2],
    /// The bias.
    pub bias: Option<AnyBuffer<B>>,
    /// C.
    pub output: (AnyBuffer<B>, Strided),
    /// Bytes from the start of the symmetric heap to where peers store, and whether that is the bounce.
    pub store: (usize, bool),
}

/// A view of a buffer, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strided {
    /// The first element.
    pub offset: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}
