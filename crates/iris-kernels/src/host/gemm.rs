//! The product of one tile.

use super::widen::widen;
use super::{Operands, Scratch};
use crate::element::Element;
use crate::view::View;

/// `out = beta * out + a b`, row by row without gaps.
///
/// # Safety
/// `a` and `b` are valid and not written meanwhile.
///
/// # Panics
/// If `out` is too short for the product.
pub(crate) unsafe fn multiply(a: View<f32>, b: View<f32>, beta: f32, out: &mut [f32]) {
    debug_assert_eq!(a.cols, b.rows);
    let out = &mut out[..a.rows * b.cols];
    let stride = |stride: usize| isize::try_from(stride).unwrap_or(isize::MAX);
    // SAFETY: `a` and `b` are valid by the caller's promise, `out` was just cut to the size of the product.
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
            out.as_mut_ptr(),
            stride(b.cols),
            1,
        );
    }
}

/// The plain product `c = a b + bias` of one rank's operands, without any exchange: what a fused operation is compared with.
///
/// # Safety
/// The operands are valid as [`Operands`] says; `c` has the rows of `a` and the columns of `b`.
pub unsafe fn product<T: Element>(operands: &Operands<T>, scratch: &mut Scratch) {
    let Operands { a, b, c, .. } = *operands;
    // The whole product at once: rows of A in strips, so that the f32 copy of the result stays small.
    let strip = (scratch.tile.len() / c.cols.max(1)).max(1);
    let Scratch {
        a: wide_a,
        b: wide_b,
        tile,
        ..
    } = scratch;
    // SAFETY: promised by the caller, as are the accesses below.
    let (a, b) = unsafe { (widen(a, wide_a), widen(b, wide_b)) };
    for first in (0..c.rows).step_by(strip) {
        let rows = strip.min(c.rows - first);
        // SAFETY: as above.
        unsafe {
            multiply(a.part(first, 0, rows, a.cols), b, 0.0, tile);
            let bias = operands.bias_of(&(0..c.cols));
            for (row, values) in tile[..rows * c.cols].chunks_exact_mut(c.cols).enumerate() {
                super::reduce::add_bias(values, c.cols, bias);
                T::narrow(values, c.row(first + row, 0, c.cols));
            }
        }
    }
}
