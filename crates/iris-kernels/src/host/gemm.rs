//! The product of one tile.

use super::widen::widen;
use super::{Input, Operands, Scratch};
use crate::element::{DType, Element};
use crate::geometry::{Block, Grid, Tile};
use crate::view::{View, ViewMut};
use core::ops::Range;

/// `out = beta * out + a b`, row by row without gaps.
///
/// # Safety
/// `a` and `b` are valid and not written meanwhile.
///
/// # Panics
/// If `out` is too short for the product.
pub(crate) unsafe fn multiply(a: View<f32>, b: View<f32>, beta: f32, out: &mut [f32]) {
    let out = ViewMut {
        data: out[..a.rows * b.cols].as_mut_ptr(),
        rows: a.rows,
        cols: b.cols,
        row_stride: b.cols,
    };
    // SAFETY: `a` and `b` are valid by the caller's promise, `out` was just cut to the size of the product.
    unsafe { multiply_to(a, b, beta, out) };
}

/// `out = beta * out + a b`.
///
/// # Safety
/// `a` and `b` are valid and not written meanwhile; `out` is valid and nobody else's, and has the product's size.
unsafe fn multiply_to(a: View<f32>, b: View<f32>, beta: f32, out: ViewMut<f32>) {
    debug_assert_eq!((a.cols, a.rows, b.cols), (b.rows, out.rows, out.cols));
    let stride = |stride: usize| isize::try_from(stride).unwrap_or(isize::MAX);
    // SAFETY: promised by the caller.
    unsafe {
        matrixmultiply::sgemm(
            a.rows,
            a.cols,
            b.cols,
            1.0,
            a.data,
            stride(a.row_stride),
            stride(a.col_stride),
            b.data,
            stride(b.row_stride),
            stride(b.col_stride),
            beta,
            out.data,
            stride(out.row_stride),
            1,
        );
    }
}

/// What a rank's tiles are made of, ready to be multiplied or copied.
pub(crate) enum Source<T> {
    /// The product of two matrices, in f32.
    Product(View<f32>, View<f32>),
    /// A matrix that is there already.
    Given(View<T>),
}

impl<T: Element> Source<T> {
    /// Widens what must be widened once a call.
    ///
    /// # Safety
    /// The operands are valid for as long as the source is used, and so are the scratch's `a` and `b`, unchanged.
    pub(crate) unsafe fn new(operands: &Operands<T>, scratch: &mut Scratch) -> Self {
        match operands.input {
            // SAFETY: promised by the caller.
            Input::Product { a, b } => unsafe {
                Self::Product(widen(a, &mut scratch.a), widen(b, &mut scratch.b))
            },
            Input::Given(matrix) => Self::Given(matrix),
        }
    }

    /// The part of it at `rows` and `cols`, in f32, at the beginning of `out`, row by row without gaps.
    ///
    /// # Safety
    /// As for [`Source::new`]; the part lies inside.
    pub(crate) unsafe fn tile(&self, rows: &Range<usize>, cols: &Range<usize>, out: &mut [f32]) {
        match self {
            // SAFETY: promised by the caller.
            Self::Product(a, b) => unsafe {
                multiply(
                    a.part(rows.start, 0, rows.len(), a.cols),
                    b.part(0, cols.start, b.rows, cols.len()),
                    0.0,
                    out,
                );
            },
            Self::Given(matrix) => {
                let part = matrix.part(rows.start, cols.start, rows.len(), cols.len());
                for (row, out) in (0..rows.len()).zip(out.chunks_exact_mut(cols.len())) {
                    let from = part.data.wrapping_add(row * part.row_stride);
                    if part.col_stride == 1 {
                        // SAFETY: promised by the caller; the elements of a row lie side by side.
                        T::widen(
                            unsafe { core::slice::from_raw_parts(from, cols.len()) },
                            out,
                        );
                    } else {
                        for (col, out) in out.iter_mut().enumerate() {
                            // SAFETY: promised by the caller.
                            *out = unsafe { from.add(col * part.col_stride).read() }.to_f32();
                        }
                    }
                }
            }
        }
    }
}

/// The most elements of the product that are multiplied at once.
const AT_ONCE: usize = 512 * 512;

/// How many tiles that lie side by side are multiplied at once.
pub(crate) fn group_size(tile: Tile) -> usize {
    (AT_ONCE / tile.len().max(1)).max(1)
}

/// Tiles that lie side by side, multiplied: row by row, without gaps, in f32.
pub(crate) struct Multiplied<'a> {
    values: &'a [f32],
    rows: Range<usize>,
    cols: Range<usize>,
}

impl<'a> Multiplied<'a> {
    /// Multiplies `tiles` of a grid that begins at row `first_row` of the source.
    ///
    /// # Safety
    /// As for [`Source::new`]; the tiles lie inside and side by side, at most [`group_size`] of them.
    pub(crate) unsafe fn new<T: Element>(
        source: &Source<T>,
        grid: &Grid,
        tiles: &Range<usize>,
        first_row: usize,
        scratch: &'a mut [f32],
    ) -> Self {
        let (first, last) = (grid.block(tiles.start), grid.block(tiles.end - 1));
        let (rows, cols) = (first.rows, first.cols.start..last.cols.end);
        // SAFETY: promised by the caller.
        unsafe {
            let rows = first_row + rows.start..first_row + rows.end;
            source.tile(&rows, &cols, scratch);
        }
        Self {
            values: &scratch[..rows.len() * cols.len()],
            rows,
            cols,
        }
    }

    /// Puts one of the tiles to `to`, row by row without gaps, in the dtype.
    ///
    /// # Safety
    /// `to` is valid for the tile, aligned, and nobody else's.
    pub(crate) unsafe fn put<T: Element>(&self, tile: &Block, to: *mut T) {
        let (skip, len) = (tile.cols.start - self.cols.start, tile.cols.len());
        let rows = self.values.chunks_exact(self.cols.len());
        for (row, values) in rows.take(self.rows.len()).enumerate() {
            // SAFETY: promised by the caller.
            let to = unsafe { core::slice::from_raw_parts_mut(to.add(row * len), len) };
            T::narrow(&values[skip..skip + len], to);
        }
    }
}

/// The plain product `c = a b + bias` of one rank's operands, without any exchange: what a fused operation is compared with.
///
/// # Safety
/// The operands are valid as [`Operands`] says; `c` has the rows and columns of the product, and the scratch's tile at least
/// as many elements as `c` has columns.
pub unsafe fn product<T: Element>(operands: &Operands<T>, scratch: &mut Scratch) {
    let c = operands.c;
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    // SAFETY: promised by the caller, as are the accesses below.
    let source = unsafe { Source::new(operands, scratch) };
    let cols = 0..c.cols;
    // SAFETY: as above.
    let bias = unsafe { operands.bias_of(&cols) };
    if T::DTYPE == DType::F32
        && let Source::Product(a, b) = source
    {
        let c = ViewMut {
            data: c.data.cast::<f32>(),
            rows: c.rows,
            cols: c.cols,
            row_stride: c.row_stride,
        };
        // SAFETY: as above; `T` is f32.
        unsafe {
            multiply_to(a, b, 0.0, c);
            for row in (0..c.rows).filter(|_| bias.is_some()) {
                super::reduce::add_bias(c.row(row, 0, c.cols), c.cols, bias);
            }
        }
        return;
    }
    // Rows in strips, so that the f32 copy of the result stays small.
    let strip = scratch.tile.len() / c.cols;
    for first in (0..c.rows).step_by(strip) {
        let rows = first..c.rows.min(first + strip);
        // SAFETY: as above.
        unsafe {
            source.tile(&rows, &cols, &mut scratch.tile);
            for (row, values) in rows.zip(scratch.tile.chunks_exact_mut(c.cols)) {
                super::reduce::add_bias(values, c.cols, bias);
                T::narrow(values, c.row(row, 0, c.cols));
            }
        }
    }
}
