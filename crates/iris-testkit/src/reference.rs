//! What the operations give, in f64 of the inputs as they were rounded.
//!
//! The four operations differ in which rank holds what and gets what, not in what is computed: it is
//! always `C = A B (+ bias)` of whole matrices. So there is one reference, made from the whole matrices, and
//! [`Reference::share`] cuts from it what a rank gets. [`shard`] says here once more how sizes are split,
//! apart from the code under test.

use core::ops::Range;

use crate::number::Number;
pub use crate::operand::{Operand, ReferenceError};

/// The part of `total` that rank `rank` of `world` has: `min(total, r c) .. min(total, (r + 1) c)` with
/// `c = ceil(total / world)`.
///
/// An empty range for a rank that is none of `world`.
pub fn shard(total: usize, world: usize, rank: usize) -> Range<usize> {
    let Some(each) = total
        .checked_add(world.saturating_sub(1))
        .map(|t| t / world.max(1))
    else {
        return total..total;
    };
    let start = each.saturating_mul(rank).min(total);
    start..start.saturating_add(each).min(total)
}

/// Which part of the product a rank gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// All of it: `matmul_all_reduce` and `matmul_all_gather`.
    Whole,
    /// Its rows: `matmul_reduce_scatter`.
    Rows,
    /// Its columns: `all_gather_matmul`.
    Columns,
}

/// A product in f64, with the magnitude its rounding errors are measured by.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
    magnitude: Vec<f64>,
}

impl Reference {
    /// `A B + bias`, and beside it `|A| |B| + |bias|`.
    ///
    /// Sums run in f64, with an error of some 2^-53 K |A| |B|, far below any format's unit roundoff. Large products are
    /// computed by all of the machine's cores.
    pub fn product<T: Number>(
        a: Operand<'_, T>,
        b: Operand<'_, T>,
        bias: Option<&[T]>,
    ) -> Result<Self, ReferenceError> {
        if a.columns() != b.rows() {
            return Err(ReferenceError::Inner {
                a: a.columns(),
                b: b.rows(),
            });
        }
        let (rows, columns, inner) = (a.rows(), b.columns(), a.columns());
        if let Some(bias) = bias
            && bias.len() != columns
        {
            return Err(ReferenceError::Bias {
                given: bias.len(),
                expected: columns,
            });
        }
        let len = rows
            .checked_mul(columns)
            .ok_or(ReferenceError::TooLarge { rows, columns })?;
        let bias: Option<Vec<f64>> = bias.map(|bias| bias.iter().map(|v| v.to_f64()).collect());
        let (mut a, mut b) = (a.to_f64(), b.to_f64());
        let (mut values, mut magnitude) = (vec![0.0; len], vec![0.0; len]);
        multiply(&a, &b, &mut values, rows, columns, inner);
        a.iter_mut().chain(b.iter_mut()).for_each(|v| *v = v.abs());
        multiply(&a, &b, &mut magnitude, rows, columns, inner);
        if let Some(bias) = bias {
            for row in 0..rows {
                let row = row * columns..(row + 1) * columns;
                for ((value, magnitude), bias) in values[row.clone()]
                    .iter_mut()
                    .zip(&mut magnitude[row])
                    .zip(&bias)
                {
                    *value += bias;
                    *magnitude += bias.abs();
                }
            }
        }
        Ok(Self {
            rows,
            columns,
            values,
            magnitude,
        })
    }

    /// The part that rank `rank` of `world` gets.
    pub fn share(&self, share: Share, world: usize, rank: usize) -> Self {
        match share {
            Share::Whole => self.clone(),
            Share::Rows => self.part(shard(self.rows, world, rank), 0..self.columns),
            Share::Columns => self.part(0..self.rows, shard(self.columns, world, rank)),
        }
    }

    fn part(&self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let cut = |whole: &[f64]| {
            rows.clone()
                .flat_map(|row| {
                    &whole[row * self.columns + columns.start..row * self.columns + columns.end]
                })
                .copied()
                .collect()
        };
        Self {
            values: cut(&self.values),
            magnitude: cut(&self.magnitude),
            rows: rows.len(),
            columns: columns.len(),
        }
    }

    /// Its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The product, row-major.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// `|A| |B| + |bias|`, row-major.
    pub fn magnitude(&self) -> &[f64] {
        &self.magnitude
    }
}

/// Below this many multiplications, starting threads costs more than they save.
const WORTH_THREADS: usize = 1 << 24;

/// `c = a b` for dense row-major matrices of the sizes given, which the caller has checked.
fn multiply(a: &[f64], b: &[f64], c: &mut [f64], rows: usize, columns: usize, inner: usize) {
    if rows == 0 || columns == 0 || inner == 0 {
        c.fill(0.0);
        return;
    }
    let work = rows.saturating_mul(columns).saturating_mul(inner);
    let threads = if work < WORTH_THREADS {
        1
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    };
    let each = rows.div_ceil(threads);
    std::thread::scope(|scope| {
        let mut parts = a.chunks(each * inner).zip(c.chunks_mut(each * columns));
        let first = parts.next();
        for (a, c) in parts {
            scope.spawn(move || multiply_rows(a, b, c, columns, inner));
        }
        if let Some((a, c)) = first {
            multiply_rows(a, b, c, columns, inner);
        }
    });
}

fn multiply_rows(a: &[f64], b: &[f64], c: &mut [f64], columns: usize, inner: usize) {
    let rows = a.len() / inner;
    assert!(a.len() == rows * inner && b.len() == inner * columns && c.len() == rows * columns);
    // SAFETY: all three matrices are dense and row-major, so element (i, j) of one with n columns lies at
    // i n + j, below the slice's length, which was just checked; strides fit in isize because slices do; `c` is
    // borrowed mutably and so overlaps neither `a` nor `b`. With beta 0 its old values are not read.
    unsafe {
        matrixmultiply::dgemm(
            rows,
            inner,
            columns,
            1.0,
            a.as_ptr(),
            inner as isize,
            1,
            b.as_ptr(),
            columns as isize,
            1,
            0.0,
            c.as_mut_ptr(),
            columns as isize,
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;
    use crate::random::{Tensor, integers, uniform};

    /// The definition, one multiplication at a time.
    fn by_definition<T: Number>(
        a: &[T],
        b: &[T],
        bias: Option<&[T]>,
        [m, n, k]: [usize; 3],
    ) -> (Vec<f64>, Vec<f64>) {
        let (mut values, mut magnitude) = (Vec::new(), Vec::new());
        for i in 0..m {
            for j in 0..n {
                let start = bias.map_or(0.0, |bias| bias[j].to_f64());
                let (mut value, mut size) = (start, start.abs());
                for l in 0..k {
                    let term = a[i * k + l].to_f64() * b[l * n + j].to_f64();
                    value += term;
                    size += term.abs();
                }
                values.push(value);
                magnitude.push(size);
            }
        }
        (values, magnitude)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_reference_is_the_definition(m in 0usize..20, n in 0usize..20, k in 0usize..40, with_bias: bool, seed: u64) {
            // Small integers: both ways are exact and must agree to the bit.
            let a = integers::<f32>(seed, 0, 0, Tensor::A, m * k);
            let b = integers::<f32>(seed, 0, 0, Tensor::B, k * n);
            let bias = with_bias.then(|| integers::<f32>(seed, 0, 0, Tensor::Bias, n));
            let reference = Reference::product(
                Operand::row_major(&a, m, k).unwrap(),
                Operand::row_major(&b, k, n).unwrap(),
                bias.as_deref(),
            ).unwrap();
            let (values, magnitude) = by_definition(&a, &b, bias.as_deref(), [m, n, k]);
            prop_assert_eq!(reference.values(), values.as_slice());
            prop_assert_eq!(reference.magnitude(), magnitude.as_slice());
        }

        #[test]
        fn shards_are_all_of_it_in_order(total in 0usize..200, world in 1usize..20) {
            let mut next = 0;
            let each = total.div_ceil(world);
            for rank in 0..world {
                let part = shard(total, world, rank);
                prop_assert_eq!(part.start, next);
                prop_assert!(part.len() == each || part.end == total);
                next = part.end;
            }
            prop_assert_eq!(next, total);
            prop_assert!(shard(total, world, world).is_empty());
        }
    }

    #[test]
    fn threads_do_not_change_the_product() {
        let (m, n, k) = (301, 257, 300);
        assert!(m * n * k > WORTH_THREADS);
        let a = uniform::<bf16>(5, 0, 0, Tensor::A, m * k);
        let b = uniform::<bf16>(5, 0, 0, Tensor::B, k * n);
        let reference = Reference::product(
            Operand::row_major(&a, m, k).unwrap(),
            Operand::row_major(&b, k, n).unwrap(),
            None,
        )
        .unwrap();
        let (values, magnitude) = by_definition(&a, &b, None, [m, n, k]);
        for (i, (got, expected)) in reference.values().iter().zip(&values).enumerate() {
            assert!(
                (got - expected).abs() <= 1e-13 * magnitude[i],
                "{i}: {got} {expected}"
            );
        }
    }

    #[test]
    fn a_stored_transpose_gives_the_same_product() {
        let (m, n, k) = (3, 5, 7);
        let a = integers::<f32>(1, 0, 0, Tensor::A, m * k);
        let stored = integers::<f32>(1, 0, 0, Tensor::B, n * k);
        let mut b = vec![0.0; k * n];
        for j in 0..n {
            for l in 0..k {
                b[l * n + j] = stored[j * k + l];
            }
        }
        let a = Operand::row_major(&a, m, k).unwrap();
        let transposed = Operand::row_major(&stored, n, k).unwrap().transposed();
        let dense = Operand::row_major(&b, k, n).unwrap();
        let reference = Reference::product(a, transposed, None).unwrap();
        assert_eq!(reference, Reference::product(a, dense, None).unwrap());
        assert_eq!((reference.rows(), reference.columns()), (m, n));
    }

    #[test]
    fn shares_are_rows_and_columns_of_the_whole() {
        let (m, n, k) = (4, 5, 2);
        let a = integers::<f32>(2, 0, 0, Tensor::A, m * k);
        let b = integers::<f32>(2, 0, 0, Tensor::B, k * n);
        let whole = Reference::product(
            Operand::row_major(&a, m, k).unwrap(),
            Operand::row_major(&b, k, n).unwrap(),
            None,
        )
        .unwrap();
        assert_eq!(whole.share(Share::Whole, 3, 1), whole);
        // ceil(4 / 3) rows each: 2, 2, 0. ceil(5 / 3) columns each: 2, 2, 1.
        assert_eq!(
            whole.share(Share::Rows, 3, 1).values(),
            &whole.values()[10..20]
        );
        assert_eq!(whole.share(Share::Rows, 3, 2).values(), &[] as &[f64]);
        let last = whole.share(Share::Columns, 3, 2);
        assert_eq!((last.rows(), last.columns()), (4, 1));
        assert_eq!(last.values(), [4, 9, 14, 19].map(|at| whole.values()[at]));
    }

    #[test]
    fn sizes_that_do_not_fit_are_errors() {
        let values = [1.0f32; 6];
        let a = Operand::row_major(&values, 2, 3).unwrap();
        assert_eq!(
            Reference::product(a, a, None),
            Err(ReferenceError::Inner { a: 3, b: 2 })
        );
        assert_eq!(
            Reference::product(a, a.transposed(), Some(&values[..3])),
            Err(ReferenceError::Bias {
                given: 3,
                expected: 2
            })
        );
        assert!(matches!(
            Operand::row_major(&values, 3, 3),
            Err(ReferenceError::TooShort {
                needed: 9,
                given: 6,
                ..
            })
        ));
        assert!(matches!(
            Operand::row_major(&values, usize::MAX, 3),
            Err(ReferenceError::TooLarge { .. })
        ));
        assert!(Operand::row_major(&values, 0, usize::MAX).is_ok());
    }
}
