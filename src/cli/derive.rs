//! Inputs of calls before the last: derived from the given ones, and different on every rank and call.
//!
//! A call that repeats its predecessor's inputs also repeats its result, and a rank that reads a stale tile gets it
//! right. So in every call but the last each block that a rank holds has its rows permuted and their signs changed:
//! row i of the derived block is row p(i) of the given one times s(i), with p a permutation and s of +1 and -1, both drawn
//! from the stream of (seed, rank, call, tensor). Values keep their magnitude, and the calls their difficulty. A block that all
//! ranks hold alike, and the bias, is derived the same on all.
//!
//! Every process can derive every rank's blocks, which is how rank 0 makes the whole matrices that it verifies a call by.

use iris::ops::Element;
use iris_testkit::{Stream, Tensor};

use crate::cli::split::{Part, Split};

/// Stands for the rank where all ranks derive the same.
const ALL_RANKS: usize = usize::MAX;

/// Where a call's inputs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Derivation {
    /// They are the given ones.
    Given,
    /// They are derived for a call.
    Derived {
        /// The seed of the run.
        seed: u64,
        /// The call, from 0.
        call: u64,
    },
}

impl Derivation {
    /// For call `call` of `calls`.
    pub(crate) fn of(seed: u64, call: u64, calls: u64) -> Self {
        if call + 1 == calls {
            Self::Given
        } else {
            Self::Derived { seed, call }
        }
    }

    /// Derives a row-major block of `columns` columns in place of the given one.
    fn rows<T: Element>(
        self,
        rank: usize,
        tensor: Tensor,
        block: Vec<T>,
        columns: usize,
    ) -> Vec<T> {
        let Self::Derived { seed, call } = self else {
            return block;
        };
        if block.is_empty() {
            return block;
        }
        let mut stream = Stream::new(seed, rank, call, tensor);
        let mut order: Vec<usize> = (0..block.len() / columns).collect();
        stream.shuffle(&mut order);
        let mut derived = Vec::with_capacity(block.len());
        for row in order {
            let negate = stream.coin();
            let values = block[row * columns..][..columns].iter();
            derived.extend(values.map(|&value| {
                if negate {
                    T::from_f32(-value.to_f32())
                } else {
                    value
                }
            }));
        }
        derived
    }
}

/// Whole matrices, row-major: A of m x k, B of k x n, and a bias of n.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrices<T> {
    pub(crate) a: Vec<T>,
    pub(crate) b: Vec<T>,
    pub(crate) bias: Option<Vec<T>>,
}

impl<T: Element> Matrices<T> {
    /// The block of A that `rank` has in a call, row-major.
    pub(crate) fn a_of(&self, split: &Split, rank: usize, derivation: Derivation) -> Vec<T> {
        let part = split.of(rank).a;
        let block = part.cut(&self.a, split.size.k);
        derivation.rows(rank, Tensor::A, block, part.columns.len())
    }

    /// The block of B that `rank` has in a call, row-major.
    pub(crate) fn b_of(&self, split: &Split, rank: usize, derivation: Derivation) -> Vec<T> {
        let part = split.of(rank).b;
        let block = part.cut(&self.b, split.size.n);
        let rank = if split.replicates_b() {
            ALL_RANKS
        } else {
            rank
        };
        derivation.rows(rank, Tensor::B, block, part.columns.len())
    }

    /// The bias of a call, whole: a bias is one row, of which only the sign can change.
    pub(crate) fn bias_of(&self, derivation: Derivation) -> Option<Vec<T>> {
        let bias = self.bias.clone()?;
        let columns = bias.len();
        Some(derivation.rows(ALL_RANKS, Tensor::Bias, bias, columns))
    }

    /// The whole matrices of a call: what all ranks have in it, put together.
    pub(crate) fn derived(&self, split: &Split, derivation: Derivation) -> Self {
        if derivation == Derivation::Given {
            return self.clone();
        }
        let mut whole = self.clone();
        for rank in 0..split.world {
            let shares = split.of(rank);
            let put = |part: Part, block: Vec<T>, whole: &mut [T], columns| {
                part.paste(&block, whole, columns)
            };
            put(
                shares.a,
                self.a_of(split, rank, derivation),
                &mut whole.a,
                split.size.k,
            );
            put(
                shares.b,
                self.b_of(split, rank, derivation),
                &mut whole.b,
                split.size.n,
            );
        }
        whole.bias = self.bias_of(derivation);
        whole
    }
}

#[cfg(test)]
mod tests {
    use iris_testkit::random;

    use super::*;
    use crate::cli::args::Gather;
    use crate::cli::operation::Operation;
    use crate::cli::split::Size;

    const SIZE: Size = Size { m: 6, n: 5, k: 8 };

    fn given() -> Matrices<f32> {
        Matrices {
            a: random::uniform(3, 0, 0, Tensor::A, SIZE.m * SIZE.k),
            b: random::uniform(3, 0, 0, Tensor::B, SIZE.k * SIZE.n),
            bias: Some(random::uniform(3, 0, 0, Tensor::Bias, SIZE.n)),
        }
    }

    fn split(operation: Operation) -> Split {
        Split {
            operation,
            gather: Gather::Rows,
            size: SIZE,
            world: 2,
        }
    }

    #[test]
    fn the_last_call_has_the_given_inputs() {
        let given = given();
        let split = split(Operation::MatmulAllReduce);
        let last = Derivation::of(1, 4, 5);
        assert_eq!(last, Derivation::Given);
        assert_eq!(given.derived(&split, last), given);
        assert_ne!(given.derived(&split, Derivation::of(1, 3, 5)), given);
        assert_eq!(Derivation::of(1, 0, 1), Derivation::Given);
    }

    #[test]
    fn rows_are_permuted_and_signed_and_nothing_else() {
        let block: Vec<f32> = (1..=12).map(|value| value as f32).collect();
        let derivation = Derivation::Derived { seed: 9, call: 2 };
        let derived = derivation.rows(1, Tensor::A, block.clone(), 3);
        assert_ne!(derived, block);
        let mut rows: Vec<Vec<f32>> = derived
            .chunks(3)
            .map(|row| row.iter().map(|value| value * row[0].signum()).collect())
            .collect();
        rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
        assert_eq!(rows.concat(), block);
    }

    #[test]
    fn calls_ranks_and_tensors_differ() {
        let given = given();
        let split = split(Operation::MatmulAllReduce);
        let mut seen = Vec::new();
        for call in 0..4 {
            for rank in 0..2 {
                let derivation = Derivation::Derived { seed: 0, call };
                seen.push(given.a_of(&split, rank, derivation));
                seen.push(given.b_of(&split, rank, derivation));
            }
        }
        for (at, one) in seen.iter().enumerate() {
            assert!(!seen[..at].contains(one));
        }
    }

    #[test]
    fn what_all_ranks_hold_is_derived_alike() {
        let given = given();
        let split = split(Operation::MatmulAllGather);
        let derivation = Derivation::Derived { seed: 0, call: 0 };
        let b = given.b_of(&split, 0, derivation);
        assert_ne!(b, given.b);
        assert_eq!(b, given.b_of(&split, 1, derivation));
        assert_eq!(b, given.derived(&split, derivation).b);
    }

    #[test]
    fn the_whole_is_made_of_the_ranks_blocks() {
        let given = given();
        for operation in [Operation::MatmulReduceScatter, Operation::AllGatherMatmul] {
            let split = split(operation);
            let derivation = Derivation::Derived { seed: 5, call: 1 };
            let whole = given.derived(&split, derivation);
            for rank in 0..2 {
                let shares = split.of(rank);
                assert_eq!(
                    shares.a.cut(&whole.a, SIZE.k),
                    given.a_of(&split, rank, derivation)
                );
                assert_eq!(
                    shares.b.cut(&whole.b, SIZE.n),
                    given.b_of(&split, rank, derivation)
                );
            }
        }
    }
}
