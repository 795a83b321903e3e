//! Our collective alone, on what the vendor's product has left.

use iris_heap::cuda::Cuda;
use iris_heap::device::{CapturedGraph, RankStream, Stream};
use iris_heap::{Buffer, World};
use iris_ops::device::Captured;
use iris_ops::unfused::Collective;
use iris_ops::{Element, FusedConfig, MatrixMut, MatrixRef, OpError};

use super::SAMPLES;
use super::calls::{Callable, Measured, each};
use crate::case::{CollectiveKind, Operation, Plan};
use crate::comparison::Comparison;
use crate::error::MeasureError;

/// What the collective takes on one set of operands, and where its result goes.
pub struct ExchangeSet<T> {
    /// A copy of the vendor's product, or this rank's part of A.
    given: Buffer<T, Cuda>,
    result: Buffer<T, Cuda>,
}

/// The collective alone, to be measured.
pub type Exchange<T> = Measured<T, Collective<T, Cuda>>;

/// How the collective sees its matrices: rows, of the whole, and columns.
fn sizes(plan: &Plan) -> (usize, usize) {
    let case = &plan.case;
    match case.operation {
        Operation::AllGatherMatmulRows => (case.m, case.k),
        // Of the transpose, whose rows are gathered.
        Operation::AllGatherMatmulColumns => (case.k, case.m),
        _ => (case.m, case.n),
    }
}

impl<T: Element> Exchange<T> {
    /// Creates it for a comparison's plan and operands, on whose `stream` what it is given is made first. Collective.
    ///
    /// # Safety
    /// The comparison outlives it, and it is measured on the comparison's stream.
    ///
    /// # Errors
    /// Where the heap has no room for the results, or the collective cannot be created; where the vendor's library refuses.
    pub unsafe fn new(
        world: &World<Cuda>,
        comparison: &Comparison<'_, '_>,
        stream: &Stream<Cuda>,
        config: FusedConfig,
    ) -> Result<Self, MeasureError> {
        let plan = comparison.plan().clone();
        let (rows, columns) = sizes(&plan);
        let config = FusedConfig {
            m: rows,
            n: columns,
            ..config
        };
        let result = match plan.collective {
            CollectiveKind::ReduceScatter => plan.largest_result(),
            CollectiveKind::AllReduce | CollectiveKind::AllGather => rows * columns,
        };
        let operands = comparison.operands();
        let gathers = plan.case.operation.gathers_first();
        let sets = (0..operands.sets())
            .map(|set| {
                let given = if gathers {
                    // SAFETY: the comparison's memory, which outlives this, and which the vendor's library and our kernels use on
                    // one stream: the caller's word.
                    unsafe { world.foreign_buffer(operands.plain(set).a, plan.a.len()) }?
                } else {
                    let own = world.plain_buffer(plan.m * plan.n)?;
                    // SAFETY: just made, of this size, and waited for below.
                    unsafe { comparison.product_into(set, own.address()) }?;
                    own
                };
                Ok(ExchangeSet {
                    given,
                    result: world.symmetric_buffer(result)?,
                })
            })
            .collect::<Result<Vec<_>, MeasureError>>()?;
        stream.synchronize()?;
        let operation = match plan.collective {
            CollectiveKind::AllReduce => Collective::all_reduce(world, config)?,
            CollectiveKind::ReduceScatter => Collective::reduce_scatter(world, config)?,
            CollectiveKind::AllGather => Collective::all_gather(world, config)?,
        };
        let samples = [0, sets.len() - 1].map(|set| match gathers {
            true => comparison.gathered(set, SAMPLES),
            false => comparison.samples(set, SAMPLES),
        });
        Ok(Self {
            operation,
            plan,
            sets,
            samples: samples.into(),
            result: |set| &set.result,
            world: world.clone(),
        })
    }

    /// Gives the symmetric memory back. Collective.
    ///
    /// # Errors
    /// Where the ranks do not meet.
    pub fn free(self) -> Result<(), OpError> {
        self.operation.free()?;
        for set in self.sets {
            self.world.free_buffer(set.result)?;
        }
        Ok(())
    }
}

impl<T: Element> Callable<T> for Collective<T, Cuda> {
    type Set = ExchangeSet<T>;

    fn calls(
        &mut self,
        plan: &Plan,
        stream: &RankStream<Cuda>,
        sets: &mut dyn Iterator<Item = &ExchangeSet<T>>,
        capture: bool,
    ) -> Result<Option<CapturedGraph<Cuda>>, OpError> {
        let (rows, columns) = sizes(plan);
        let given = match plan.case.operation {
            Operation::AllGatherMatmulRows => plan.a.rows.len(),
            Operation::AllGatherMatmulColumns => plan.a.columns.len(),
            _ => plan.m,
        };
        let result = match plan.collective {
            CollectiveKind::ReduceScatter => plan.c.rows.len(),
            CollectiveKind::AllReduce | CollectiveKind::AllGather => rows,
        };
        let mut bound = self.bind(stream)?;
        each(stream, sets, capture, |set| {
            let x = MatrixRef::new(&set.given, given, columns);
            bound.call(rows, x, MatrixMut::new(&set.result, result, columns))
        })
    }

    fn captured(&mut self) -> &mut dyn Captured<Cuda> {
        self
    }
}
