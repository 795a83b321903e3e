//! How far from the exact result a right answer may lie.
//!
//! The bound is elementwise and a theorem, not a guess: an answer outside it was computed wrongly, whatever the
//! order in which the terms were added. With `S = |A| |B| + |bias|` for the element, `u` the unit roundoff of
//! the format that results are stored in, `v = 2^-24` that of f32, in which everything is accumulated, and
//! `gamma_n = n v / (1 - n v)`:
//!
//! - A dot product of K terms in f32, in any order, fused or not, lies within `gamma_K |x| |y|` of the exact one
//!   (N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., SIAM 2002, section 3.1, equations
//!   3.4 and 3.5). Adding P partials and a bias in f32 is P further additions, and errors of this kind compound as
//!   `(1 + gamma_j)(1 + gamma_k) <= 1 + gamma_(j+k)` (there, lemma 3.3): `1 + gamma_(K+P+1)` in all.
//! - Where partials travel between ranks they are first rounded to the format: a factor of `1 + u` at most
//!   (there, theorem 2.2), and at most half the smallest subnormal more where one underflows.
//! - So the f32 sum before it is stored is off by `e = ((1 + u)(1 + gamma_(K+P+1)) - 1) S` and the underflow of
//!   P partials; without the factor `1 + u` where no partial is rounded, that is P = 0.
//! - Storing the sum rounds once more: `u (|c| + e)`, and the underflow once.
//!
//! As `n v` nears 1, at 2^24 terms, `gamma_n` grows without bound and then ceases to exist. Past `n v = 1/2`, where
//! it is 1, `2 n v` stands in its place: `n v` holds for every n (C.-P. Jeannerod and S. M. Rump, "Improved error
//! bounds for inner products in floating-point arithmetic", SIAM J. Matrix Anal. Appl. 34, 2013), and the factor of 2
//! covers the compounding with the few additions of partials. By then it says little.
//!
//! NaN never passes. An infinity passes only where the exact result, give or take its tolerance, rounds to it: an f16
//! sum whose partials overflow while it does not is wrong, and is reported so.

use crate::number::{Format, Number};
use crate::operand::ReferenceError;
use crate::reference::Reference;

/// The tolerance of a product stored in a format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    format: Format,
    /// Relative to `S`, before the result is stored.
    relative: f64,
    /// Absolute, before the result is stored.
    absolute: f64,
}

impl Tolerance {
    /// For sums of `depth` products and at most a bias, accumulated in f32 and rounded to `format` once, with
    /// `partials` of the sum rounded to `format` on the way: the number of ranks that K is split among, 0 where
    /// it is not, or where partials stay in f32.
    pub fn new(format: Format, depth: usize, partials: usize) -> Self {
        let accumulation = gamma(depth as f64 + partials as f64 + 1.0);
        let rounded = if partials > 0 {
            format.unit_roundoff
        } else {
            0.0
        };
        // An f32 product of f32 inputs may underflow; one of f16 or bf16 inputs may too, for bf16.
        let underflow = depth as f64 * Format::F32.underflow + partials as f64 * format.underflow;
        Self {
            format,
            relative: rounded + accumulation + rounded * accumulation,
            absolute: underflow * (1.0 + accumulation),
        }
    }

    /// For results of type `T`; see [`Tolerance::new`].
    pub fn of<T: Number>(depth: usize, partials: usize) -> Self {
        Self::new(T::FORMAT, depth, partials)
    }

    /// How far from `reference` an element may lie whose terms' magnitudes sum up to `magnitude`.
    pub fn bound(&self, reference: f64, magnitude: f64) -> f64 {
        let before = self.relative * magnitude + self.absolute;
        before + self.format.unit_roundoff * (reference.abs() + before) + self.format.underflow
    }

    /// The error of an element as a multiple of its bound: 0 where it is exact, at most 1 where it passes.
    fn ratio(&self, actual: f64, reference: f64, magnitude: f64) -> f64 {
        if actual == reference {
            return 0.0;
        }
        let bound = self.bound(reference, magnitude);
        if actual.is_infinite() {
            let may_overflow = reference.abs() + bound >= self.format.overflow;
            return if may_overflow && (actual > 0.0) == (reference > 0.0) {
                0.0
            } else {
                f64::INFINITY
            };
        }
        // A bound that is not finite, from inputs that are not, excuses nothing.
        let ratio = (actual - reference).abs() / bound;
        if bound.is_finite() && !ratio.is_nan() {
            ratio
        } else {
            f64::INFINITY
        }
    }
}

fn gamma(n: f64) -> f64 {
    let nv = n * Format::F32.unit_roundoff;
    if nv <= 0.5 { nv / (1.0 - nv) } else { 2.0 * nv }
}

/// The element that strays furthest for its bound; a NaN strays further than anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worst {
    /// Its row.
    pub row: usize,
    /// Its column.
    pub column: usize,
    /// What was computed.
    pub actual: f64,
    /// What should have been.
    pub expected: f64,
    /// How far apart the two may be.
    pub bound: f64,
}

/// A result held against its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Whether every element lies within its bound.
    pub ok: bool,
    /// `max |actual - expected| / max |expected|`, over all elements: the relative error in the maximum norm. Infinite
    /// where something is NaN or strays from an expected 0 throughout; 0 for nothing at all.
    pub rel_err: f64,
    /// `max |actual - expected|`; infinite where something is NaN.
    pub max_abs_err: f64,
    /// How many elements are NaN.
    pub nan_count: usize,
    /// How many elements lie outside their bound.
    pub failures: usize,
    /// The worst element; none of an empty result.
    pub worst: Option<Worst>,
}

impl Comparison {
    /// What holds of an empty result.
    pub const EMPTY: Self = Self {
        ok: true,
        rel_err: 0.0,
        max_abs_err: 0.0,
        nan_count: 0,
        failures: 0,
        worst: None,
    };

    /// Both results as one: the larger errors, the sum of the counts, and the worst element of the first that failed.
    pub fn and(self, other: Self) -> Self {
        Self {
            ok: self.ok && other.ok,
            rel_err: self.rel_err.max(other.rel_err),
            max_abs_err: self.max_abs_err.max(other.max_abs_err),
            nan_count: self.nan_count + other.nan_count,
            failures: self.failures + other.failures,
            worst: if self.ok && (!other.ok || self.worst.is_none()) {
                other.worst
            } else {
                self.worst
            },
        }
    }
}

/// Holds a row-major result against its reference.
pub fn compare<T: Number>(
    actual: &[T],
    reference: &Reference,
    tolerance: &Tolerance,
) -> Result<Comparison, ReferenceError> {
    if actual.len() != reference.values().len() {
        return Err(ReferenceError::Result {
            given: actual.len(),
            expected: reference.values().len(),
        });
    }
    let mut result = Comparison::EMPTY;
    let (mut worst_ratio, mut largest) = (-1.0, 0.0f64);
    let expected = reference.values().iter().zip(reference.magnitude());
    for (at, (actual, (&expected, &magnitude))) in actual.iter().zip(expected).enumerate() {
        let actual = actual.to_f64();
        let ratio = tolerance.ratio(actual, expected, magnitude);
        result.nan_count += usize::from(actual.is_nan());
        result.failures += usize::from(ratio > 1.0);
        largest = largest.max(expected.abs());
        let error = match (actual - expected).abs() {
            _ if ratio == 0.0 => 0.0,
            error if error.is_nan() => f64::INFINITY,
            error => error,
        };
        result.max_abs_err = result.max_abs_err.max(error);
        if ratio > worst_ratio {
            worst_ratio = ratio;
            result.worst = Some(Worst {
                row: at / reference.columns(),
                column: at % reference.columns(),
                actual,
                expected,
                bound: tolerance.bound(expected, magnitude),
            });
        }
    }
    result.ok = result.failures == 0;
    if result.max_abs_err > 0.0 {
        result.rel_err = result.max_abs_err / largest;
        if result.rel_err.is_nan() {
            result.rel_err = f64::INFINITY;
        }
    }
    Ok(result)
}
