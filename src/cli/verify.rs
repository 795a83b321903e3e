//! Holding what the ranks got against an f64 reference.

use iris::ops::{Element, shard};
use iris_testkit::{Comparison, Number, Operand, Reference, Tolerance, compare};

use crate::cli::derive::{Derivation, Matrices};
use crate::cli::split::{Size, Split};

/// Verifies the calls of a run, all ranks' results of a call at once.
#[derive(Debug)]
pub(crate) struct Verifier<'a, T> {
    /// The given matrices.
    pub(crate) matrices: &'a Matrices<T>,
    /// How they are split.
    pub(crate) split: Split,
    /// The run's seed.
    pub(crate) seed: u64,
    /// How many calls the run has.
    pub(crate) calls: u64,
    /// Whether results that all ranks get must be the same to the bit.
    pub(crate) identical: bool,
    /// Whether partial sums are rounded to the matrices' type on their way.
    pub(crate) rounds_partials: bool,
}

/// What verifying found.
#[derive(Debug, Clone)]
pub(crate) struct Findings {
    /// The largest errors.
    pub(crate) comparison: Comparison,
    /// What is wrong, in words, of the first result that is.
    pub(crate) failure: Option<String>,
}

impl Findings {
    /// Of nothing.
    pub(crate) const NONE: Self = Self {
        comparison: Comparison::EMPTY,
        failure: None,
    };

    /// Whether nothing is wrong.
    pub(crate) fn verified(&self) -> bool {
        self.failure.is_none()
    }

    /// Both together.
    pub(crate) fn and(self, later: Self) -> Self {
        Self {
            comparison: self.comparison.and(later.comparison),
            failure: self.failure.or(later.failure),
        }
    }
}

impl<T: Element + Number> Verifier<'_, T> {
    /// Verifies call `call`, in which the ranks got `results`.
    pub(crate) fn check(&self, call: u64, results: &[Vec<T>]) -> anyhow::Result<Findings> {
        let Size { m, n, k } = self.split.size;
        let derivation = Derivation::of(self.seed, call, self.calls);
        let whole = self.matrices.derived(&self.split, derivation);
        let reference = Reference::product(
            Operand::row_major(&whole.a, m, k)?,
            Operand::row_major(&whole.b, k, n)?,
            whole.bias.as_deref(),
        )?;
        let tolerance = Tolerance::of::<T>(k, self.partials());
        let mut findings = Findings::NONE;
        for (rank, result) in results.iter().enumerate() {
            let share = reference.share(self.split.operation.share(), self.split.world, rank);
            let comparison = compare(result, &share, &tolerance)?;
            let failure = describe(&comparison)
                .map(|what| format!("call {call}, rank {rank}: {what}"))
                .or_else(|| {
                    let at = self.identical.then(|| first_difference(&results[0], result))??;
                    Some(format!(
                        "call {call}: element ({}, {}) is {:?} on rank 0 and {:?} on rank {rank}, and must be the same on all",
                        at / n,
                        at % n,
                        results[0][at],
                        result[at]
                    ))
                });
            findings = findings.and(Findings {
                comparison,
                failure,
            });
        }
        Ok(findings)
    }

    /// How many partial sums are rounded: those of the ranks that have any depth.
    fn partials(&self) -> usize {
        if !self.rounds_partials {
            return 0;
        }
        let (k, world) = (self.split.size.k, self.split.world);
        (0..world)
            .filter(|&rank| !shard(k, world, rank).is_empty())
            .count()
    }

    /// The whole result: the ranks' pieces put together.
    pub(crate) fn assemble(&self, results: &[Vec<T>]) -> Vec<T> {
        let Size { m, n, .. } = self.split.size;
        let mut whole = vec![<T as Element>::NAN; m * n];
        for (rank, result) in results.iter().enumerate() {
            self.split.of(rank).c.paste(result, &mut whole, n);
        }
        whole
    }
}

fn describe(comparison: &Comparison) -> Option<String> {
    let worst = comparison.worst.filter(|_| !comparison.ok)?;
    Some(format!(
        "{} elements are wrong ({} NaN); the worst, ({}, {}), is {} where {} +- {:.3e} was expected",
        comparison.failures,
        comparison.nan_count,
        worst.row,
        worst.column,
        worst.actual,
        worst.expected,
        worst.bound
    ))
}

/// The first element whose bits differ.
fn first_difference<T: Element>(one: &[T], other: &[T]) -> Option<usize> {
    one.iter()
        .zip(other)
        .position(|(one, other)| bytemuck::bytes_of(one) != bytemuck::bytes_of(other))
}

#[cfg(test)]
mod tests {
    use iris_testkit::{Tensor, random};

    use super::*;
    use crate::cli::args::Gather;
    use crate::cli::operation::Operation;

    const SIZE: Size = Size { m: 5, n: 4, k: 7 };

    fn matrices() -> Matrices<f32> {
        Matrices {
            a: random::uniform(3, 0, 0, Tensor::A, SIZE.m * SIZE.k),
            b: random::uniform(3, 0, 0, Tensor::B, SIZE.k * SIZE.n),
            bias: Some(random::uniform(3, 0, 0, Tensor::Bias, SIZE.n)),
        }
    }

    fn verifier(matrices: &Matrices<f32>, operation: Operation) -> Verifier<'_, f32> {
        Verifier {
            matrices,
            split: Split {
                operation,
                gather: Gather::Rows,
                size: SIZE,
                world: 3,
            },
            seed: 0,
            calls: 2,
            identical: operation == Operation::MatmulAllReduce,
            rounds_partials: operation.reduces(),
        }
    }

    /// What the ranks get in a call, by the definition of the product.
    fn right(verifier: &Verifier<'_, f32>, call: u64) -> Vec<Vec<f32>> {
        let whole = verifier.matrices.derived(
            &verifier.split,
            Derivation::of(verifier.seed, call, verifier.calls),
        );
        let bias = whole.bias.unwrap();
        let element = |at: usize| {
            let (i, j) = (at / SIZE.n, at % SIZE.n);
            (0..SIZE.k)
                .map(|l| whole.a[i * SIZE.k + l] * whole.b[l * SIZE.n + j])
                .sum::<f32>()
                + bias[j]
        };
        let c: Vec<f32> = (0..SIZE.m * SIZE.n).map(element).collect();
        (0..3)
            .map(|rank| verifier.split.of(rank).c.cut(&c, SIZE.n))
            .collect()
    }

    #[test]
    fn right_results_are_verified_and_put_together() {
        let matrices = matrices();
        for operation in [
            Operation::MatmulAllReduce,
            Operation::MatmulReduceScatter,
            Operation::AllGatherMatmul,
            Operation::MatmulAllGather,
        ] {
            let verifier = verifier(&matrices, operation);
            let mut wholes = Vec::new();
            for call in 0..2 {
                let results = right(&verifier, call);
                let findings = verifier.check(call, &results).unwrap();
                assert!(findings.verified(), "{findings:?}");
                wholes.push(verifier.assemble(&results));
            }
            assert!(wholes.iter().flatten().all(|value| !value.is_nan()));
            assert_ne!(wholes[0], wholes[1]);
        }
    }

    #[test]
    fn a_wrong_result_is_named_by_call_rank_and_element() {
        let matrices = matrices();
        let verifier = verifier(&matrices, Operation::MatmulReduceScatter);
        let mut results = right(&verifier, 0);
        results[1][3] += 1.0;
        let failure = verifier.check(0, &results).unwrap().failure.unwrap();
        assert!(
            failure.starts_with(
                "call 0, rank 1: 1 elements are wrong (0 NaN); the worst, (0, 3), is "
            ),
            "{failure}"
        );
        // The right results of one call are wrong in another, and those of one rank on another.
        assert!(!verifier.check(1, &right(&verifier, 0)).unwrap().verified());
        let mut swapped = right(&verifier, 0);
        swapped.swap(0, 1);
        assert!(!verifier.check(0, &swapped).unwrap().verified());
    }

    #[test]
    fn bits_that_differ_between_ranks_are_found() {
        let matrices = matrices();
        let mut verifier = verifier(&matrices, Operation::MatmulAllReduce);
        let mut results = right(&verifier, 0);
        results[2][6] = results[2][6].next_up();
        let failure = verifier.check(0, &results).unwrap().failure.unwrap();
        assert!(
            failure.contains("element (1, 2)") && failure.contains("on rank 2"),
            "{failure}"
        );
        verifier.identical = false;
        assert!(verifier.check(0, &results).unwrap().verified());
    }
}
