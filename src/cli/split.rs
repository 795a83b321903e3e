//! How a tensor-parallel layer splits whole matrices among ranks.

use std::ops::Range;

use iris::ops::shard;

use crate::cli::args::Gather;
use crate::cli::operation::Operation;

/// Sizes of a whole problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Rows of A and C.
    pub(crate) m: usize,
    /// Columns of B and C.
    pub(crate) n: usize,
    /// Columns of A, rows of B.
    pub(crate) k: usize,
}

/// A block of a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

impl Part {
    pub(crate) fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// The block, row-major, of a row-major matrix with `columns` columns.
    pub(crate) fn cut<T: Copy>(&self, whole: &[T], columns: usize) -> Vec<T> {
        let mut part = Vec::with_capacity(self.len());
        for row in self.rows.clone() {
            part.extend_from_slice(&whole[row * columns..][self.columns.clone()]);
        }
        part
    }

    /// Puts the row-major block into its place in a row-major matrix with `columns` columns.
    pub(crate) fn paste<T: Copy>(&self, part: &[T], whole: &mut [T], columns: usize) {
        if self.len() == 0 {
            return;
        }
        for (row, values) in self.rows.clone().zip(part.chunks(self.columns.len())) {
            whole[row * columns..][self.columns.clone()].copy_from_slice(values);
        }
    }
}

/// What one rank holds and gets: blocks of A (m x k), B (k x n) and C (m x n), and its part of the bias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) a: Part,
    pub(crate) b: Part,
    pub(crate) bias: Range<usize>,
    pub(crate) c: Part,
}

/// How an operation splits a problem among the ranks of a world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    pub(crate) operation: Operation,
    pub(crate) gather: Gather,
    pub(crate) size: Size,
    pub(crate) world: usize,
}

impl Split {
    /// What `rank` holds and gets.
    pub(crate) fn of(&self, rank: usize) -> Shares {
        let Size { m, n, k } = self.size;
        let part = |rows, columns| Part { rows, columns };
        let (its_m, its_n, its_k) = (
            shard(m, self.world, rank),
            shard(n, self.world, rank),
            shard(k, self.world, rank),
        );
        match self.operation {
            Operation::MatmulAllReduce => Shares {
                a: part(0..m, its_k.clone()),
                b: part(its_k, 0..n),
                bias: 0..n,
                c: part(0..m, 0..n),
            },
            Operation::MatmulReduceScatter => Shares {
                a: part(0..m, its_k.clone()),
                b: part(its_k, 0..n),
                bias: 0..n,
                c: part(its_m, 0..n),
            },
            Operation::AllGatherMatmul => Shares {
                a: match self.gather {
                    Gather::Rows => part(its_m, 0..k),
                    Gather::Columns => part(0..m, its_k),
                },
                b: part(0..k, its_n.clone()),
                bias: its_n.clone(),
                c: part(0..m, its_n),
            },
            Operation::MatmulAllGather => Shares {
                a: part(its_m, 0..k),
                b: part(0..k, 0..n),
                bias: 0..n,
                c: part(0..m, 0..n),
            },
        }
    }

    /// The most that any rank holds or gets: what rank 0 does, to whom the largest part of everything falls.
    pub(crate) fn largest(&self) -> Shares {
        self.of(0)
    }

    /// The largest depth of a rank's product.
    pub(crate) fn k_per_rank(&self) -> usize {
        if self.operation.reduces() {
            shard(self.size.k, self.world, 0).len()
        } else {
            self.size.k
        }
    }

    /// Whether every rank holds all of B, the same.
    pub(crate) fn replicates_b(&self) -> bool {
        self.operation == Operation::MatmulAllGather
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { m: 5, n: 7, k: 11 };

    fn each(test: impl Fn(Split)) {
        for operation in [
            Operation::MatmulAllReduce,
            Operation::MatmulReduceScatter,
            Operation::AllGatherMatmul,
            Operation::MatmulAllGather,
        ] {
            for gather in [Gather::Rows, Gather::Columns] {
                for world in 1..=13 {
                    test(Split {
                        operation,
                        gather,
                        size: SIZE,
                        world,
                    });
                }
            }
        }
    }

    /// Puts together what `part` says each rank has, and tells how often each element is there.
    fn cover(
        split: Split,
        [rows, columns]: [usize; 2],
        part: impl Fn(Shares) -> Part,
    ) -> Vec<usize> {
        let whole: Vec<usize> = (0..rows * columns).collect();
        let mut count = vec![0; whole.len()];
        for rank in 0..split.world {
            let part = part(split.of(rank));
            let cut = part.cut(&whole, columns);
            assert_eq!(cut.len(), part.len());
            let mut back = vec![usize::MAX; whole.len()];
            part.paste(&cut, &mut back, columns);
            for (at, value) in back.into_iter().enumerate() {
                if value != usize::MAX {
                    assert_eq!(value, at);
                    count[at] += 1;
                }
            }
        }
        count
    }

    #[test]
    fn the_parts_of_all_ranks_are_the_whole() {
        each(|split| {
            let Size { m, n, k } = SIZE;
            let copies = |replicated: bool| if replicated { split.world } else { 1 };
            let a = cover(split, [m, k], |shares| shares.a);
            let b = cover(split, [k, n], |shares| shares.b);
            let c = cover(split, [m, n], |shares| shares.c);
            let whole_c = matches!(
                split.operation,
                Operation::MatmulAllReduce | Operation::MatmulAllGather
            );
            assert!(a.iter().all(|&count| count == 1), "{split:?}");
            assert!(
                b.iter().all(|&count| count == copies(split.replicates_b())),
                "{split:?}"
            );
            assert!(c.iter().all(|&count| count == copies(whole_c)), "{split:?}");
        });
    }

    #[test]
    fn parts_fit_one_another_and_none_is_larger_than_the_first() {
        each(|split| {
            let largest = split.largest();
            for rank in 0..split.world {
                let shares = split.of(rank);
                assert_eq!(shares.bias, shares.c.columns);
                assert_eq!(shares.bias, shares.b.columns);
                if split.operation.reduces() {
                    assert_eq!(shares.a.columns, shares.b.rows);
                    assert!(shares.a.columns.len() <= split.k_per_rank());
                }
                assert!(shares.a.len() <= largest.a.len());
                assert!(shares.b.len() <= largest.b.len());
                assert!(shares.c.len() <= largest.c.len());
            }
        });
    }
}
