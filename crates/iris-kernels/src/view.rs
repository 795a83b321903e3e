//! Matrices as the kernels see them: a pointer, a size, two strides.

/// A matrix in somebody's memory that is read.
#[derive(Debug, Clone, Copy)]
pub struct View<T> {
    /// The element in row 0, column 0.
    pub data: *const T,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}

impl<T> View<T> {
    /// The part that begins at (`row`, `col`) and has `rows` rows and `cols` columns, which lie inside.
    pub(crate) fn part(self, row: usize, col: usize, rows: usize, cols: usize) -> Self {
        debug_assert!(row + rows <= self.rows && col + cols <= self.cols);
        Self {
            data: self
                .data
                .wrapping_add(row * self.row_stride + col * self.col_stride),
            rows,
            cols,
            ..self
        }
    }
}

/// A matrix in somebody's memory that is written, row by row: its columns lie side by side.
#[derive(Debug, Clone, Copy)]
pub struct ViewMut<T> {
    /// The element in row 0, column 0.
    pub data: *mut T,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
}

impl<T> ViewMut<T> {
    /// `len` elements of row `row` from column `col` on.
    ///
    /// # Safety
    /// They lie inside the matrix, whose memory is valid, and nobody else accesses them while the slice lives.
    pub(crate) unsafe fn row<'a>(self, row: usize, col: usize, len: usize) -> &'a mut [T] {
        debug_assert!(row < self.rows && col + len <= self.cols);
        // SAFETY: promised by the caller.
        unsafe { core::slice::from_raw_parts_mut(self.data.add(row * self.row_stride + col), len) }
    }
}
