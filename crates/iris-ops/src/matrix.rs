//! Operands: matrices as strided views of buffers.

use iris_heap::{Backend, Buffer, Host};

/// A matrix in a buffer that an operation reads. One of its strides is 1: row-major, or column-major, as a weight stored
/// `(out_features, in_features)` is when it is used as `(in_features, out_features)`.
#[derive(Debug)]
pub struct MatrixRef<'a, T, B: Backend = Host> {
    pub(crate) buffer: &'a Buffer<T, B>,
    pub(crate) offset: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<T, B: Backend> Clone for MatrixRef<'_, T, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, B: Backend> Copy for MatrixRef<'_, T, B> {}

impl<'a, T, B: Backend> MatrixRef<'a, T, B> {
    /// The first `rows * cols` elements, row by row.
    pub fn new(buffer: &'a Buffer<T, B>, rows: usize, cols: usize) -> Self {
        Self::strided(buffer, 0, rows, cols, cols, 1)
    }

    /// Element (i, j) is element `offset + i * row_stride + j * col_stride` of the buffer. Whether they all lie inside is
    /// checked when the matrix is used.
    pub fn strided(
        buffer: &'a Buffer<T, B>,
        offset: usize,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        Self {
            buffer,
            offset,
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    /// The same elements with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix in a buffer that an operation writes: row-major, with any distance between rows.
#[derive(Debug)]
pub struct MatrixMut<'a, T, B: Backend = Host> {
    pub(crate) buffer: &'a Buffer<T, B>,
    pub(crate) offset: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
}

impl<T, B: Backend> Clone for MatrixMut<'_, T, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, B: Backend> Copy for MatrixMut<'_, T, B> {}

impl<'a, T, B: Backend> MatrixMut<'a, T, B> {
    /// The first `rows * cols` elements, row by row.
    pub fn new(buffer: &'a Buffer<T, B>, rows: usize, cols: usize) -> Self {
        Self::strided(buffer, 0, rows, cols, cols)
    }

    /// Element (i, j) is element `offset + i * row_stride + j` of the buffer. Whether they all lie inside is checked when the
    /// matrix is used.
    pub fn strided(
        buffer: &'a Buffer<T, B>,
        offset: usize,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Self {
        Self {
            buffer,
            offset,
            rows,
            cols,
            row_stride,
        }
    }
}

/// The elements from the first to the last that a view touches, or `None` where their number fits no integer.
pub(crate) fn span(
    offset: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
) -> Option<core::ops::Range<usize>> {
    if rows == 0 || cols == 0 {
        return Some(offset..offset);
    }
    let last = (rows - 1)
        .checked_mul(row_stride)?
        .checked_add((cols - 1).checked_mul(col_stride)?)?;
    Some(offset..offset.checked_add(last)?.checked_add(1)?)
}
