//! Random operands, made on the device, of which the host knows every element.
//!
//! An element is drawn by its place in the whole matrix, whichever rank holds it and however it is stored, so that the exact
//! result can be worked out anywhere, at any place, without a copy of the operands.

use half::{bf16, f16};
use iris_heap::cuda::Cuda;
use iris_heap::device::{Raw, Stream};
use iris_kernels::DType;

use crate::case::{Part, Storage};
use crate::error::MeasureError;
use crate::kernels::Kernels;

/// Which matrix is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Matrix {
    /// The left factor.
    A = 1,
    /// The right factor.
    B = 2,
}

/// One random matrix: of a seed, a set of operands, and one of its two factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    key: u64,
    /// The columns of the whole matrix.
    width: usize,
    dtype: DType,
}

/// The finalizer of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Draw {
    /// The matrix of that name in set `set`, with `width` columns.
    pub fn new(seed: u64, set: usize, matrix: Matrix, width: usize, dtype: DType) -> Self {
        let key = mix(mix(mix(seed).wrapping_add(set as u64)).wrapping_add(matrix as u64));
        Self { key, width, dtype }
    }

    /// The element at a place in the whole matrix, from [-1, 1), as it is stored.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        let at = (row * self.width + column) as u64;
        let bits = mix(self
            .key
            .wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let value = (bits >> 40) as f32 * (1.0 / (1u32 << 23) as f32) - 1.0;
        match self.dtype {
            DType::F32 => f64::from(value),
            DType::F16 => f16::from_f32(value).to_f64(),
            DType::BF16 => bf16::from_f32(value).to_f64(),
        }
    }

    /// Enqueues filling a part of the matrix, which begins at `to`.
    pub(crate) fn fill(
        &self,
        kernels: &Kernels,
        stream: &Stream<Cuda>,
        to: Raw,
        part: &Part,
    ) -> Result<(), MeasureError> {
        if part.is_empty() {
            return Ok(());
        }
        let blocks = kernels.fill.shape().most_blocks;
        let (rows, columns) = match part.storage {
            Storage::Rows => (part.rows.len(), part.columns.len()),
            Storage::Columns => (part.columns.len(), part.rows.len()),
        };
        let arguments = Fill {
            to,
            rows: rows as u64,
            cols: columns as u64,
            stride: columns as u64,
            row: part.rows.start as u64,
            col: part.columns.start as u64,
            width: self.width as u64,
            transposed: u64::from(part.storage == Storage::Columns),
            key: self.key,
            blocks: u64::from(blocks),
        };
        // SAFETY: the kernel takes such a block; `to` has room for the part, by the caller's plan, until the stream has been
        // synchronised.
        unsafe { kernels.fill.launch(stream, blocks, &arguments) }?;
        Ok(())
    }
}

/// The arguments of `iris_fill`: the twin of `Fill` in hip/measure.hip.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Fill {
    to: u64,
    rows: u64,
    cols: u64,
    stride: u64,
    row: u64,
    col: u64,
    width: u64,
    transposed: u64,
    key: u64,
    blocks: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_differ_and_each_is_the_same_every_time() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..3 {
            for set in 0..3 {
                for matrix in [Matrix::A, Matrix::B] {
                    let draw = Draw::new(seed, set, matrix, 100, DType::F32);
                    let first: Vec<_> = (0..4).map(|at| draw.at(at, at).to_bits()).collect();
                    let again: Vec<_> = (0..4).map(|at| draw.at(at, at).to_bits()).collect();
                    assert_eq!(first, again);
                    assert!(seen.insert(first), "{seed} {set} {matrix:?}");
                }
            }
        }
    }

    #[test]
    fn elements_are_spread_over_the_range() {
        for dtype in DType::ALL {
            let draw = Draw::new(1, 0, Matrix::A, 200, dtype);
            let values: Vec<f64> = (0..100)
                .flat_map(|row| (0..200).map(move |column| draw.at(row, column)))
                .collect();
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let square = values.iter().map(|value| value * value).sum::<f64>() / count;
            assert!(values.iter().all(|value| (-1.0..=1.0).contains(value)));
            assert!(mean.abs() < 0.02, "{mean}");
            assert!((square - 1.0 / 3.0).abs() < 0.02, "{square}");
        }
    }

    #[test]
    fn an_element_goes_by_its_place_in_the_whole_matrix() {
        let draw = Draw::new(7, 1, Matrix::B, 3, DType::F32);
        assert_eq!(draw.at(1, 0), Draw { width: 1, ..draw }.at(3, 0));
        assert_ne!(draw.at(1, 0), draw.at(0, 1));
    }
}
