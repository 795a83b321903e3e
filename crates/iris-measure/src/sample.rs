//! Results held against exact sums, at random places.
//!
//! The exact value of an element is worked out in f64 from the random factors, of which every element is known. How far from it
//! a right answer may lie follows from what a right answer goes through:
//!
//! - Each rank's partial sum is accumulated in f32. In the worst case its error grows with the depth K; rounding errors that are
//!   independent of each other, as those of random operands are, add up to the square root of K times one rounding, relative to
//!   the sum of the terms' magnitudes, with a probability that a factor of 4 leaves no doubt about (N. J. Higham and T. Mary, "A
//!   new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019).
//! - Partial sums that travel are rounded to the format, and so may be every sum of them on the way from rank to rank: at most W + 1
//!   roundings, each of a number that is no larger than the partials' magnitudes together.
//! - With TF32, each factor is rounded to 11 bits first: the terms' errors are independent again.
//!
//! The worst-case bound would be larger than most results, and so show nothing.

use iris_kernels::{DType, shard};
use std::ops::Range;

use crate::case::{Case, Plan, Storage};
use crate::random::{Draw, Matrix};

/// An element of a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Its row in the whole result.
    pub row: usize,
    /// Its column in the whole result.
    pub column: usize,
    /// Its place in this rank's part of the result, which is stored row by row.
    pub at: usize,
    /// What it should be.
    pub expected: f64,
    /// How far from that it may be.
    pub bound: f64,
}

impl Sample {
    /// Whether `actual` is right.
    pub fn accepts(&self, actual: f64) -> bool {
        // Not a number is never right.
        (actual - self.expected).abs() <= self.bound
    }
}

/// Elements of one rank's part of a result, for one set of operands.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// The set.
    pub set: usize,
    /// The elements; none where the rank's part has none.
    pub elements: Vec<Sample>,
}

impl Samples {
    /// `count` elements of this rank's part of C.
    pub fn of_result(plan: &Plan, seed: u64, set: usize, count: usize) -> Self {
        let parts = if plan.case.operation.reduces() {
            plan.world
        } else {
            1
        };
        let depths: Vec<_> = (0..parts)
            .map(|part| shard(plan.case.k, parts, part))
            .collect();
        Self::new(
            plan,
            seed,
            set,
            count,
            [&plan.c.rows, &plan.c.columns],
            &depths,
        )
    }

    /// `count` elements of this rank's product.
    pub fn of_product(plan: &Plan, seed: u64, set: usize, count: usize) -> Self {
        let (rows, depth) = if plan.case.operation.gathers_first() {
            (0..plan.case.m, 0..plan.case.k)
        } else {
            (plan.a.rows.clone(), plan.a.columns.clone())
        };
        Self::new(plan, seed, set, count, [&rows, &plan.b.columns], &[depth])
    }

    /// `count` elements of the whole A, as an all-gather leaves it: row by row, or column by column where its columns are gathered.
    pub fn of_gathered(plan: &Plan, seed: u64, set: usize, count: usize) -> Self {
        let Case { m, k, dtype, .. } = plan.case;
        let a = Draw::new(seed, set, Matrix::A, k, dtype);
        let elements = places(seed, plan.rank, set, count, m * k)
            .map(|at| {
                let (row, column) = match plan.product_a {
                    Storage::Rows => (at / k, at % k),
                    Storage::Columns => (at % m, at / m),
                };
                Sample {
                    row,
                    column,
                    at,
                    expected: a.at(row, column),
                    bound: 0.0,
                }
            })
            .collect();
        Self { set, elements }
    }

    fn new(
        plan: &Plan,
        seed: u64,
        set: usize,
        count: usize,
        [rows, columns]: [&Range<usize>; 2],
        depths: &[Range<usize>],
    ) -> Self {
        let Case { n, k, dtype, .. } = plan.case;
        let (a, b) = (
            Draw::new(seed, set, Matrix::A, k, dtype),
            Draw::new(seed, set, Matrix::B, n, dtype),
        );
        let len = rows.len() * columns.len();
        let elements = places(seed, plan.rank, set, count, len)
            .map(|at| {
                let (row, column) = (
                    rows.start + at / columns.len(),
                    columns.start + at % columns.len(),
                );
                let sum = Sum::new(&a, &b, row, column, depths);
                Sample {
                    row,
                    column,
                    at,
                    expected: sum.value,
                    bound: sum.bound(&plan.case, k),
                }
            })
            .collect();
        Self { set, elements }
    }
}

/// `count` places among `len`: the first and the last, since edges are where masks go wrong, and others in between.
fn places(
    seed: u64,
    rank: usize,
    set: usize,
    count: usize,
    len: usize,
) -> impl Iterator<Item = usize> {
    let draw = Draw::new(!seed, set, Matrix::A, 1 << 20, DType::F32);
    (0..count.min(len)).map(move |number| match number {
        0 => 0,
        1 => len - 1,
        _ => {
            // A draw has 24 bits, which alone would leave out columns of a large matrix.
            let [high, low] = [0, 1].map(|part| (draw.at(rank, 2 * number + part) + 1.0) / 2.0);
            let unit = high + low / f64::from(1 << 24);
            ((unit * len as f64) as usize).min(len - 1)
        }
    })
}

/// An exact sum of products, and what its error depends on.
struct Sum {
    value: f64,
    /// The magnitudes of all terms together.
    terms: f64,
    /// The squares of all terms together.
    squares: f64,
    /// The magnitudes of the partial sums together.
    partials: f64,
    /// How many partial sums there are.
    count: usize,
}

impl Sum {
    fn new(a: &Draw, b: &Draw, row: usize, column: usize, depths: &[Range<usize>]) -> Self {
        let mut sum = Self {
            value: 0.0,
            terms: 0.0,
            squares: 0.0,
            partials: 0.0,
            count: depths.len(),
        };
        for depth in depths {
            let mut partial = 0.0;
            for at in depth.clone() {
                let term = a.at(row, at) * b.at(at, column);
                partial += term;
                sum.terms += term.abs();
                sum.squares += term * term;
            }
            sum.value += partial;
            sum.partials += partial.abs();
        }
        sum
    }

    fn bound(&self, case: &Case, depth: usize) -> f64 {
        /// Half the distance from 1 to the next larger f32.
        const F32: f64 = 1.0 / (1u64 << 24) as f64;
        let (format, smallest) = match case.dtype {
            DType::F32 => (F32, f64::from(f32::MIN_POSITIVE)),
            DType::F16 => (1.0 / (1 << 11) as f64, 1.0 / (1 << 14) as f64),
            DType::BF16 => (1.0 / (1 << 8) as f64, f64::from(f32::MIN_POSITIVE)),
        };
        let accumulated = 4.0 * (depth as f64).sqrt() * F32 * self.terms;
        let factors = if case.tf32 && case.dtype == DType::F32 {
            4.0 * 2.0 / (1 << 11) as f64 * self.squares.sqrt()
        } else {
            0.0
        };
        let roundings = if self.count > 1 { self.count + 1 } else { 1 } as f64;
        // What is rounded may itself be off by the rest.
        let rounded = roundings * format * (self.partials + accumulated + factors);
        accumulated + factors + rounded + roundings * format * smallest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Operation, Storage};
    use half::bf16;

    fn case(operation: Operation, m: usize, n: usize, k: usize) -> Case {
        Case {
            operation,
            m,
            n,
            k,
            dtype: DType::BF16,
            b: Storage::Rows,
            tf32: false,
        }
    }

    /// An all-reduce as a ring of ranks makes it: partials rounded, and rounded again after each addition.
    fn ring(plan: &Plan, seed: u64, sample: &Sample, skip: Option<usize>) -> f64 {
        let Case { n, k, .. } = plan.case;
        let a = Draw::new(seed, 0, Matrix::A, k, DType::BF16);
        let b = Draw::new(seed, 0, Matrix::B, n, DType::BF16);
        let mut sum = bf16::ZERO;
        for rank in 0..plan.world {
            let mut partial = 0.0f32;
            for at in shard(k, plan.world, rank) {
                partial += (a.at(sample.row, at) * b.at(at, sample.column)) as f32;
            }
            if skip != Some(rank) {
                sum = bf16::from_f32(sum.to_f32() + bf16::from_f32(partial).to_f32());
            }
        }
        sum.to_f64()
    }

    #[test]
    fn places_of_large_matrices_are_everywhere() {
        let len = 1 << 30;
        let odd = places(7, 1, 0, 64, len).filter(|place| place % 2 == 1);
        assert!((10..54).contains(&odd.count()));
        assert!(places(7, 1, 0, 64, len).all(|place| place < len));
    }

    #[test]
    fn right_sums_are_accepted_and_sums_without_a_rank_are_not() {
        let plan = Plan::new(case(Operation::MatmulAllReduce, 40, 60, 4096), 8, 3).unwrap();
        let samples = Samples::of_result(&plan, 5, 0, 32);
        assert_eq!(samples.elements.len(), 32);
        let mut refused = 0;
        for sample in &samples.elements {
            let right = ring(&plan, 5, sample, None);
            assert!(sample.accepts(right), "{sample:?}: {right}");
            assert!(!sample.accepts(f64::NAN));
            refused += usize::from(!sample.accepts(ring(&plan, 5, sample, Some(2))));
        }
        assert!(refused > 16, "{refused} of 32");
    }

    #[test]
    fn samples_lie_in_this_ranks_part() {
        for operation in Operation::ALL {
            for rank in 0..3 {
                let plan = Plan::new(case(operation, 7, 5, 9), 3, rank).unwrap();
                for samples in [
                    Samples::of_result(&plan, 1, 0, 20),
                    Samples::of_product(&plan, 1, 0, 20),
                ] {
                    for sample in samples.elements {
                        assert!(sample.row < 7 && sample.column < 5);
                        assert!(plan.c.columns.contains(&sample.column));
                    }
                }
                let result = Samples::of_result(&plan, 1, 0, 20);
                assert_eq!(result.elements.len(), plan.c.len().min(20));
                let rows = |sample: &Sample| plan.c.rows.contains(&sample.row);
                assert!(result.elements.iter().all(rows), "{operation:?}");
            }
        }
    }

    #[test]
    fn a_part_without_elements_has_no_samples() {
        let plan = Plan::new(case(Operation::MatmulReduceScatter, 2, 5, 9), 4, 3).unwrap();
        assert!(plan.c.is_empty());
        assert!(Samples::of_result(&plan, 1, 0, 8).elements.is_empty());
    }
}
