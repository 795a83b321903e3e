//! f32 copies of operands, for a GEMM that knows f32 only, and the other memory a call works in.

use crate::element::{DType, Element};
use crate::view::View;

/// Memory of one rank that a call works in. Made once for the largest call, so that calls allocate nothing of ours.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A, widened.
    pub(crate) a: Vec<f32>,
    /// B, widened.
    pub(crate) b: Vec<f32>,
    /// Tiles of the product, or a sum.
    pub(crate) tile: Vec<f32>,
    /// A tile of the dtype, as bytes.
    pub(crate) narrow: Vec<f32>,
}

impl Scratch {
    /// For operands of up to `a` and `b` elements of `dtype`, and tiles of up to `tile` elements
    /// that are multiplied at once.
    pub fn new(dtype: DType, a: usize, b: usize, tile: usize) -> Self {
        let wide = |elements| match dtype {
            DType::F32 => Vec::new(),
            DType::F16 | DType::BF16 => vec![0.0; elements],
        };
        Self {
            a: wide(a),
            b: wide(b),
            tile: vec![0.0; tile],
            narrow: vec![0.0; tile],
        }
    }
}

impl Scratch {
    /// What serves both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let longer = |a: Vec<f32>, b: Vec<f32>| if a.len() >= b.len() { a } else { b };
        Self {
            a: longer(self.a, other.a),
            b: longer(self.b, other.b),
            tile: longer(self.tile, other.tile),
            narrow: longer(self.narrow, other.narrow),
        }
    }
}

/// `from` in f32: itself if it is, else a copy in `to`, of which the beginning is used.
///
/// The copy keeps the orientation, so that the elements that lie side by side are converted side by side.
///
/// # Safety
/// `from` is valid and not written meanwhile. The result is valid as long as `from` and `to` are.
pub(crate) unsafe fn widen<T: Element>(from: View<T>, to: &mut [f32]) -> View<f32> {
    if T::DTYPE == DType::F32 {
        return View {
            data: from.data.cast(),
            rows: from.rows,
            cols: from.cols,
            row_stride: from.row_stride,
            col_stride: from.col_stride,
        };
    }
    let transposed = from.col_stride != 1 && from.row_stride == 1;
    let (lines, len, line_stride) = if transposed {
        (from.cols, from.rows, from.col_stride)
    } else {
        (from.rows, from.cols, from.row_stride)
    };
    let to = &mut to[..lines * len];
    if len > 0 {
        for (line, to) in to.chunks_exact_mut(len).enumerate() {
            // SAFETY: valid by the caller's promise; elements of a line lie side by side, since one stride is 1.
            let from =
                unsafe { core::slice::from_raw_parts(from.data.add(line * line_stride), len) };
            T::widen(from, to);
        }
    }
    View {
        data: to.as_ptr(),
        rows: from.rows,
        cols: from.cols,
        row_stride: if transposed { 1 } else { len },
        col_stride: if transposed { len } else { 1 },
    }
}
