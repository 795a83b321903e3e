//! The tolerance passes what is right and catches what is wrong: every kind of wrong that a fused operation could
//! produce is made here by hand and must be caught.

use half::{bf16, f16};
use iris_testkit::random::{integers, poison, uniform};
use iris_testkit::{
    Comparison, Number, Operand, Reference, ReferenceError, Tensor, Tolerance, compare, shard,
};

/// A problem, and what a correct operation computes: partials accumulated in f32, rounded to the format, summed in f32.
struct Problem<T> {
    sizes: [usize; 3],
    world: usize,
    a: Vec<T>,
    b: Vec<T>,
    bias: Vec<T>,
}

impl<T: Number> Problem<T> {
    fn random(sizes: [usize; 3], world: usize, call: u64) -> Self {
        let [m, n, k] = sizes;
        Self {
            sizes,
            world,
            a: uniform(11, 0, call, Tensor::A, m * k),
            b: uniform(11, 0, call, Tensor::B, k * n),
            bias: uniform(11, 0, call, Tensor::Bias, n),
        }
    }

    fn reference(&self) -> Reference {
        let [m, n, k] = self.sizes;
        Reference::product(
            Operand::row_major(&self.a, m, k).unwrap(),
            Operand::row_major(&self.b, k, n).unwrap(),
            Some(&self.bias),
        )
        .unwrap()
    }

    fn partial(&self, rank: usize, row: usize, column: usize) -> T {
        let [_, n, k] = self.sizes;
        let sum = shard(k, self.world, rank).fold(0f32, |sum, l| {
            sum + self.a[row * k + l].to_f64() as f32 * self.b[l * n + column].to_f64() as f32
        });
        T::from_f64(f64::from(sum))
    }

    /// The sum of the partials that `source(rank)` names for each rank.
    fn compute(&self, source: impl Fn(usize) -> Option<usize>, biases: usize) -> Vec<T> {
        let [m, n, _] = self.sizes;
        let element = |row, column| {
            let mut sum = (0..self.world).filter_map(&source).fold(0f32, |sum, rank| {
                sum + self.partial(rank, row, column).to_f64() as f32
            });
            for _ in 0..biases {
                sum += self.bias[column].to_f64() as f32;
            }
            T::from_f64(f64::from(sum))
        };
        (0..m * n).map(|at| element(at / n, at % n)).collect()
    }

    fn check(&self, actual: &[T]) -> Comparison {
        let tolerance = Tolerance::of::<T>(self.sizes[2], self.world);
        compare(actual, &self.reference(), &tolerance).unwrap()
    }
}

fn right_results_pass<T: Number>() {
    for world in [1, 2, 3, 5, 8] {
        for sizes in [[1, 1, 1], [3, 7, 2], [5, 4, 97], [2, 3, 4099]] {
            let problem = Problem::<T>::random(sizes, world, 0);
            let comparison = problem.check(&problem.compute(Some, 1));
            assert!(
                comparison.ok,
                "{} {sizes:?} {world}: {comparison:?}",
                T::FORMAT
            );
            assert_eq!((comparison.failures, comparison.nan_count), (0, 0));
            assert!(comparison.rel_err < 16.0 * T::FORMAT.unit_roundoff.max(1e-6));
        }
    }
}

#[test]
fn right_results_pass_in_every_format() {
    right_results_pass::<f32>();
    right_results_pass::<f16>();
    right_results_pass::<bf16>();
}

fn wrong_results_fail<T: Number>() {
    let problem = Problem::<T>::random([6, 5, 96], 3, 0);
    let right = problem.compute(Some, 1);
    let caught = |what: &str, actual: &[T]| {
        let comparison = problem.check(actual);
        assert!(
            !comparison.ok && comparison.failures > 0,
            "{what}, {}: {comparison:?}",
            T::FORMAT
        );
    };
    caught(
        "a rank's partial counted twice, another's not at all",
        &problem.compute(|r| Some(r.min(1)), 1),
    );
    caught(
        "a rank left out",
        &problem.compute(|r| (r != 2).then_some(r), 1),
    );
    caught("no bias", &problem.compute(Some, 0));
    caught("the bias added by every rank", &problem.compute(Some, 3));
    caught(
        "an old call's result",
        &Problem::<T>::random([6, 5, 96], 3, 1).compute(Some, 1),
    );
    let mut rows = right.clone();
    rows.rotate_left(5);
    caught("rows shifted by one", &rows);
    let mut swapped = right.clone();
    swapped.swap(3, 4);
    caught("two neighbours swapped", &swapped);
    let mut unwritten = right.clone();
    poison(&mut unwritten[29..]);
    caught("the last element unwritten", &unwritten);
    let mut zero = right;
    zero[17] = T::from_f64(0.0);
    caught("an element zeroed", &zero);
}

#[test]
fn wrong_results_fail_in_every_format() {
    wrong_results_fail::<f32>();
    wrong_results_fail::<f16>();
    wrong_results_fail::<bf16>();
}

#[test]
fn one_element_just_past_its_bound_is_caught_and_named() {
    let problem = Problem::<f32>::random([6, 5, 96], 3, 0);
    let (reference, right) = (problem.reference(), problem.compute(Some, 1));
    let tolerance = Tolerance::of::<f32>(96, 3);
    for at in [0, 17, 29] {
        let (expected, magnitude) = (reference.values()[at], reference.magnitude()[at]);
        let bound = tolerance.bound(expected, magnitude);
        for (factor, ok) in [(0.99, true), (1.01, false), (-0.99, true), (-1.01, false)] {
            let mut actual = right.clone();
            actual[at] = (expected + factor * bound) as f32;
            let comparison = compare(&actual, &reference, &tolerance).unwrap();
            assert_eq!(comparison.ok, ok, "{at} {factor}");
            let worst = comparison.worst.unwrap();
            assert_eq!((worst.row, worst.column), (at / 5, at % 5));
            assert_eq!(
                (worst.actual, worst.expected, worst.bound),
                (f64::from(actual[at]), expected, bound)
            );
            assert_eq!(comparison.failures, usize::from(!ok));
        }
    }
}

#[test]
fn the_bound_is_the_formula() {
    // K = 62 and one partial: 64 additions. u = 2^-8, v = 2^-24.
    let (u, v) = (2f64.powi(-8), 2f64.powi(-24));
    let gamma = 64.0 * v / (1.0 - 64.0 * v);
    let sum = ((1.0 + u) * (1.0 + gamma) - 1.0) * 10.0;
    let expected = sum + u * (3.0 + sum);
    let bound = Tolerance::of::<bf16>(62, 1).bound(-3.0, 10.0);
    assert!((bound / expected - 1.0).abs() < 1e-12, "{bound} {expected}");
    // Partials that stay in f32 are not rounded on the way.
    let sum = 63.0 * v / (1.0 - 63.0 * v) * 10.0;
    let expected = sum + u * (3.0 + sum);
    let bound = Tolerance::of::<bf16>(62, 0).bound(-3.0, 10.0);
    assert!((bound / expected - 1.0).abs() < 1e-12, "{bound} {expected}");
    // It never shrinks as terms are added, also where gamma ends.
    let mut last = 0.0;
    for depth in [
        1,
        1 << 10,
        1 << 22,
        (1 << 23) - 3,
        1 << 23,
        1 << 24,
        1 << 40,
    ] {
        let bound = Tolerance::of::<f32>(depth, 2).bound(1.0, 1.0);
        assert!(bound >= last && bound.is_finite(), "{depth}: {bound}");
        last = bound;
    }
}

#[test]
fn the_bound_is_not_vacuous() {
    // Right results come near it: within a factor of 20 where rounding to the format dominates.
    let problem = Problem::<bf16>::random([32, 32, 8], 2, 0);
    let (reference, right) = (problem.reference(), problem.compute(Some, 1));
    let tolerance = Tolerance::of::<bf16>(8, 2);
    let nearest = (0..32 * 32)
        .map(|at| {
            let (expected, magnitude) = (reference.values()[at], reference.magnitude()[at]);
            (right[at].to_f64() - expected).abs() / tolerance.bound(expected, magnitude)
        })
        .fold(0.0, f64::max);
    assert!((0.05..=1.0).contains(&nearest), "{nearest}");
}

/// A 1 x 1 product of `a` and `b`.
fn single<T: Number>(a: f64, b: f64) -> Reference {
    let (a, b) = ([T::from_f64(a)], [T::from_f64(b)]);
    Reference::product(
        Operand::row_major(&a, 1, 1).unwrap(),
        Operand::row_major(&b, 1, 1).unwrap(),
        None,
    )
    .unwrap()
}

#[test]
fn an_infinity_passes_only_where_the_reference_overflows() {
    let tolerance = Tolerance::of::<f16>(1, 1);
    let verdict =
        |actual: f16, reference: &Reference| compare(&[actual], reference, &tolerance).unwrap();
    let beyond = single::<f16>(1000.0, 100.0);
    assert!(verdict(f16::INFINITY, &beyond).ok);
    assert_eq!(verdict(f16::INFINITY, &beyond).max_abs_err, 0.0);
    assert!(!verdict(f16::NEG_INFINITY, &beyond).ok);
    assert!(!verdict(f16::MAX, &beyond).ok);
    let within = single::<f16>(300.0, 100.0);
    assert!(verdict(f16::from_f64(30000.0), &within).ok);
    let overflowed = verdict(f16::INFINITY, &within);
    assert!(!overflowed.ok);
    assert!(overflowed.rel_err.is_infinite() && overflowed.max_abs_err.is_infinite());
    assert_eq!(overflowed.nan_count, 0);
}

#[test]
fn nan_never_passes() {
    let tolerance = Tolerance::of::<f32>(1, 1);
    let comparison = compare(&[f32::NAN], &single::<f32>(2.0, 2.0), &tolerance).unwrap();
    assert!(
        !comparison.ok && comparison.max_abs_err.is_infinite() && comparison.rel_err.is_infinite()
    );
    assert_eq!((comparison.nan_count, comparison.failures), (1, 1));
    // Also not where the inputs were NaN or infinite, and the reference is too.
    for (a, b) in [(f64::NAN, 1.0), (f64::INFINITY, 0.0)] {
        assert!(
            !compare(&[f32::NAN], &single::<f32>(a, b), &tolerance)
                .unwrap()
                .ok
        );
        assert!(
            !compare(&[0.0f32], &single::<f32>(a, b), &tolerance)
                .unwrap()
                .ok
        );
    }
    assert!(
        compare(
            &[f32::INFINITY],
            &single::<f32>(f64::INFINITY, 1.0),
            &tolerance
        )
        .unwrap()
        .ok
    );
    assert!(
        !compare(&[1e30f32], &single::<f32>(f64::INFINITY, 1.0), &tolerance)
            .unwrap()
            .ok
    );
}

#[test]
fn integers_compare_by_equality() {
    let (m, n, k) = (4, 4, 1000);
    let a = integers::<f32>(1, 0, 0, Tensor::A, m * k);
    let b = integers::<f32>(1, 0, 0, Tensor::B, k * n);
    let sum = |row: usize, column: usize| {
        (0..k)
            .map(|l| a[row * k + l] * b[l * n + column])
            .sum::<f32>()
    };
    let actual: Vec<f32> = (0..m * n).map(|at| sum(at / n, at % n)).collect();
    let reference = Reference::product(
        Operand::row_major(&a, m, k).unwrap(),
        Operand::row_major(&b, k, n).unwrap(),
        None,
    )
    .unwrap();
    assert!(
        actual
            .iter()
            .zip(reference.values())
            .all(|(a, r)| f64::from(*a) == *r)
    );
    assert_eq!(
        compare(&actual, &reference, &Tolerance::of::<f32>(k, 1))
            .unwrap()
            .max_abs_err,
        0.0
    );
}

#[test]
fn comparisons_add_up() {
    let tolerance = Tolerance::of::<f32>(1, 1);
    let right = compare(&[4.0f32], &single::<f32>(2.0, 2.0), &tolerance).unwrap();
    let wrong = compare(&[5.0f32], &single::<f32>(2.0, 2.0), &tolerance).unwrap();
    let nan = compare(&[f32::NAN], &single::<f32>(2.0, 2.0), &tolerance).unwrap();
    assert_eq!(Comparison::EMPTY.and(right), right);
    let both = right.and(wrong);
    assert!(!both.ok);
    assert_eq!(
        (both.failures, both.max_abs_err, both.rel_err, both.worst),
        (1, 1.0, 0.25, wrong.worst)
    );
    let all = both.and(nan);
    assert_eq!(
        (all.failures, all.nan_count, all.worst),
        (2, 1, wrong.worst)
    );
    assert!(all.max_abs_err.is_infinite());
}

#[test]
fn a_result_of_another_size_is_an_error() {
    let tolerance = Tolerance::of::<f32>(1, 1);
    assert_eq!(
        compare(&[1.0f32, 2.0], &single::<f32>(1.0, 1.0), &tolerance),
        Err(ReferenceError::Result {
            given: 2,
            expected: 1
        })
    );
    let nothing = Reference::product::<f32>(
        Operand::row_major(&[], 0, 3).unwrap(),
        Operand::row_major(&[0.0; 6], 3, 2).unwrap(),
        None,
    )
    .unwrap();
    assert_eq!(
        compare::<f32>(&[], &nothing, &tolerance).unwrap(),
        Comparison::EMPTY
    );
}
