//! What is measured: an operation on a problem, and each rank's part in it.
//!
//! Sizes are those of the whole problem, split among the ranks as iris splits it: rank r has `shard(total, W, r)` of what is
//! split. The vendors' collectives want the same of every rank, so their buffers are padded to `ceil(total / W)` of it.

use std::ops::Range;

use iris_kernels::{DType, shard};

use crate::error::MeasureError;

/// A fused operation, as a product and a collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The product, split along its depth, then an all-reduce.
    MatmulAllReduce,
    /// The product, split along its depth, then a reduce-scatter.
    MatmulReduceScatter,
    /// An all-gather of A by its rows, then the product with this rank's columns of B.
    AllGatherMatmulRows,
    /// The same, of A by its columns.
    AllGatherMatmulColumns,
    /// The product of this rank's rows of A, then an all-gather.
    MatmulAllGather,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::MatmulAllReduce,
        Self::MatmulReduceScatter,
        Self::AllGatherMatmulRows,
        Self::AllGatherMatmulColumns,
        Self::MatmulAllGather,
    ];

    /// Whether the collective comes before the product.
    pub fn gathers_first(self) -> bool {
        matches!(
            self,
            Self::AllGatherMatmulRows | Self::AllGatherMatmulColumns
        )
    }

    /// Whether depth is split among the ranks, so that partial sums travel.
    pub fn reduces(self) -> bool {
        matches!(self, Self::MatmulAllReduce | Self::MatmulReduceScatter)
    }
}

/// An operation on a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Case {
    /// The operation.
    pub operation: Operation,
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// The type of the elements.
    pub dtype: DType,
    /// How B is stored.
    pub b: Storage,
    /// Whether f32 products may round their factors to TF32.
    pub tf32: bool,
}

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Row by row.
    Rows,
    /// Column by column: its transpose row by row.
    Columns,
}

/// A block of a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its rows in the whole matrix.
    pub rows: Range<usize>,
    /// Its columns in the whole matrix.
    pub columns: Range<usize>,
    /// How it is stored, without gaps.
    pub storage: Storage,
}

impl Part {
    /// Its elements.
    pub fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A collective, with what each rank gives or gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CollectiveKind {
    /// The sum of all ranks' buffers, for all.
    AllReduce,
    /// The sum of all ranks' buffers, a part for each.
    ReduceScatter,
    /// The parts of all ranks, for all.
    AllGather,
}

/// One rank's part in a case, as a product and a collective of the vendor's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The case.
    pub case: Case,
    /// The ranks.
    pub world: usize,
    /// This rank.
    pub rank: usize,
    /// This rank's part of A.
    pub a: Part,
    /// This rank's part of B.
    pub b: Part,
    /// This rank's part of C.
    pub c: Part,
    /// The rows of this rank's product.
    pub m: usize,
    /// Its columns.
    pub n: usize,
    /// Its depth.
    pub k: usize,
    /// How the product's A is stored.
    pub product_a: Storage,
    /// The elements from one row of the product's A to the next, or one column.
    pub product_a_stride: usize,
    /// The collective.
    pub collective: CollectiveKind,
    /// The elements that it moves, as it counts them: all, where it reduces for all; a part's otherwise.
    pub count: usize,
    /// The elements of the buffer it sends from.
    pub send: usize,
    /// The elements of the buffer it receives into.
    pub receive: usize,
}

impl Plan {
    /// The part of `rank` in a world of `world` ranks.
    ///
    /// # Errors
    /// [`MeasureError::TooLarge`].
    pub fn new(case: Case, world: usize, rank: usize) -> Result<Self, MeasureError> {
        let Case { m, n, k, .. } = case;
        let padded = |total: usize| total.div_ceil(world).checked_mul(world);
        let fits = [(m, n), (m, k), (k, n)].into_iter().all(|(rows, columns)| {
            padded(rows)
                .zip(padded(columns))
                .and_then(|(rows, columns)| rows.checked_mul(columns))
                .and_then(|len| len.checked_mul(case.dtype.bytes()))
                .is_some_and(|bytes| isize::try_from(bytes).is_ok())
        });
        if !fits {
            return Err(MeasureError::TooLarge { m, n, k, world });
        }
        let (rows, columns, depth) = (
            shard(m, world, rank),
            shard(n, world, rank),
            shard(k, world, rank),
        );
        let part = |rows: &Range<usize>, columns: &Range<usize>, storage| Part {
            rows: rows.clone(),
            columns: columns.clone(),
            storage,
        };
        let by_rows =
            |rows: &Range<usize>, columns: &Range<usize>| part(rows, columns, Storage::Rows);
        let (all_m, all_n, all_k) = (0..m, 0..n, 0..k);
        let (a, b, c) = match case.operation {
            Operation::MatmulAllReduce => (
                by_rows(&all_m, &depth),
                part(&depth, &all_n, case.b),
                by_rows(&all_m, &all_n),
            ),
            Operation::MatmulReduceScatter => (
                by_rows(&all_m, &depth),
                part(&depth, &all_n, case.b),
                by_rows(&rows, &all_n),
            ),
            Operation::AllGatherMatmulRows => (
                by_rows(&rows, &all_k),
                part(&all_k, &columns, case.b),
                by_rows(&all_m, &columns),
            ),
            // Stored by columns, its parts one after the other are the whole: the best that the vendor's gather can be given.
            Operation::AllGatherMatmulColumns => (
                part(&all_m, &depth, Storage::Columns),
                part(&all_k, &columns, case.b),
                by_rows(&all_m, &columns),
            ),
            Operation::MatmulAllGather => (
                by_rows(&rows, &all_k),
                part(&all_k, &all_n, case.b),
                by_rows(&all_m, &all_n),
            ),
        };
        let (each_m, each_k) = (m.div_ceil(world), k.div_ceil(world));
        let gathers = case.operation.gathers_first();
        let (product_m, product_n, product_k) = (
            if gathers { m } else { a.rows.len() },
            b.columns.len(),
            b.rows.len(),
        );
        let (collective, count, send, receive) = match case.operation {
            Operation::MatmulAllReduce => (CollectiveKind::AllReduce, m * n, m * n, m * n),
            Operation::MatmulReduceScatter => (
                CollectiveKind::ReduceScatter,
                each_m * n,
                world * each_m * n,
                each_m * n,
            ),
            Operation::AllGatherMatmulRows => (
                CollectiveKind::AllGather,
                each_m * k,
                each_m * k,
                world * each_m * k,
            ),
            Operation::AllGatherMatmulColumns => (
                CollectiveKind::AllGather,
                each_k * m,
                each_k * m,
                world * each_k * m,
            ),
            Operation::MatmulAllGather => (
                CollectiveKind::AllGather,
                each_m * n,
                each_m * n,
                world * each_m * n,
            ),
        };
        let product_a_stride = match a.storage {
            Storage::Rows => product_k,
            Storage::Columns => product_m,
        };
        Ok(Self {
            case,
            world,
            rank,
            product_a: a.storage,
            a,
            b,
            c,
            m: product_m,
            n: product_n,
            k: product_k,
            product_a_stride,
            collective,
            count,
            send,
            receive,
        })
    }

    /// The elements of the largest part of C that a rank has: rank 0's.
    pub fn largest_result(&self) -> usize {
        let Case { m, n, .. } = self.case;
        let first = |total| shard(total, self.world, 0).len();
        match self.case.operation {
            Operation::MatmulAllReduce | Operation::MatmulAllGather => m * n,
            Operation::MatmulReduceScatter => first(m) * n,
            Operation::AllGatherMatmulRows | Operation::AllGatherMatmulColumns => m * first(n),
        }
    }

    /// The bytes of the weights that this rank's product reads.
    pub fn weight_bytes(&self) -> usize {
        self.b.len() * self.case.dtype.bytes()
    }

    /// The bytes that this rank's product reads and writes.
    pub fn product_bytes(&self) -> usize {
        let elements = self.m * self.k + self.k * self.n + self.m * self.n;
        elements * self.case.dtype.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(test: impl Fn(&[Plan])) {
        for operation in Operation::ALL {
            for (m, n, k) in [(5, 7, 11), (1, 1, 1), (64, 32, 16), (3, 40, 2)] {
                for world in [1, 2, 3, 4, 8] {
                    let case = Case {
                        operation,
                        m,
                        n,
                        k,
                        dtype: DType::BF16,
                        b: Storage::Rows,
                        tf32: false,
                    };
                    let plans: Vec<_> = (0..world)
                        .map(|rank| Plan::new(case, world, rank).unwrap())
                        .collect();
                    test(&plans);
                }
            }
        }
    }

    #[test]
    fn all_ranks_give_a_collective_the_same() {
        each(|plans| {
            let of = |plan: &Plan| (plan.collective, plan.count, plan.send, plan.receive);
            assert!(plans.iter().all(|plan| of(plan) == of(&plans[0])));
            for plan in plans {
                let world = plan.world;
                let (send, receive) = match plan.collective {
                    CollectiveKind::AllReduce => (plan.count, plan.count),
                    CollectiveKind::ReduceScatter => (world * plan.count, plan.count),
                    CollectiveKind::AllGather => (plan.count, world * plan.count),
                };
                assert_eq!((plan.send, plan.receive), (send, receive));
            }
        });
    }

    #[test]
    fn product_and_collective_fit_each_other() {
        each(|plans| {
            for plan in plans {
                if plan.case.operation.gathers_first() {
                    assert!(plan.a.len() <= plan.send, "{plan:?}");
                    assert!(plan.m * plan.k <= plan.receive, "{plan:?}");
                    assert_eq!(plan.m * plan.n, plan.c.len(), "{plan:?}");
                } else {
                    assert_eq!(plan.a.len(), plan.m * plan.k, "{plan:?}");
                    assert!(plan.m * plan.n <= plan.send, "{plan:?}");
                    assert!(plan.c.len() <= plan.receive, "{plan:?}");
                }
                assert_eq!(plan.b.len(), plan.k * plan.n, "{plan:?}");
            }
        });
    }

    #[test]
    fn products_of_all_ranks_are_the_whole_work() {
        each(|plans| {
            let Case {
                operation, m, n, k, ..
            } = plans[0].case;
            let work: usize = plans.iter().map(|plan| plan.m * plan.n * plan.k).sum();
            assert_eq!(work, m * n * k, "{operation:?}");
        });
    }

    #[test]
    fn no_result_is_larger_than_the_largest() {
        each(|plans| {
            for plan in plans {
                assert_eq!(plan.largest_result(), plans[0].c.len(), "{plan:?}");
                assert!(plan.c.len() <= plan.largest_result(), "{plan:?}");
            }
        });
    }

    #[test]
    fn what_cannot_be_addressed_is_refused() {
        let case = Case {
            operation: Operation::MatmulAllReduce,
            m: usize::MAX / 2,
            n: 3,
            k: 1,
            dtype: DType::F32,
            b: Storage::Rows,
            tf32: false,
        };
        assert!(matches!(
            Plan::new(case, 2, 0),
            Err(MeasureError::TooLarge { world: 2, .. })
        ));
    }
}
