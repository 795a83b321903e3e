//! The fused operation.

use iris_heap::cuda::Cuda;
use iris_heap::device::{CapturedGraph, RankStream};
use iris_heap::{Buffer, World};
use iris_ops::device::Captured;
use iris_ops::{Element, FusedConfig, MatrixMut, OpError};
use iris_testkit::{AnyOperation, Op};

use super::calls::{Callable, Measured, each, matrix};
use crate::case::Plan;
use crate::operands::Operands;
use crate::sample::Samples;

/// One set of a rank's operands, and where the result goes.
pub struct FusedSet<T> {
    a: Buffer<T, Cuda>,
    b: Buffer<T, Cuda>,
    c: Buffer<T, Cuda>,
}

/// A fused operation, to be measured.
pub type Fused<T> = Measured<T, AnyOperation<T, i32, Cuda>>;

impl<T: Element> Fused<T> {
    /// Creates it for a plan and its operands. `samples` are of its results. Collective.
    ///
    /// # Safety
    /// The operands are those of the plan. They outlive it, and are used on the stream alone on which it is measured.
    ///
    /// # Errors
    /// Where the heap has no room for the results, or the operation cannot be created.
    pub unsafe fn new(
        world: &World<Cuda>,
        plan: &Plan,
        operands: &Operands<'_>,
        samples: Vec<Samples>,
        op: Op,
        config: FusedConfig,
    ) -> Result<Self, OpError> {
        let sets = (0..operands.sets())
            .map(|set| {
                let at = operands.plain(set);
                // SAFETY: the operands' memory, as large as the plan says, which outlives this and is used on one stream: the caller's word.
                let foreign = |address, len| unsafe { world.foreign_buffer(address, len) };
                Ok(FusedSet {
                    a: foreign(at.a, plan.a.len())?,
                    b: foreign(at.b, plan.b.len())?,
                    c: world.symmetric_buffer(plan.largest_result())?,
                })
            })
            .collect::<Result<_, OpError>>()?;
        Ok(Self {
            operation: AnyOperation::new(op, world, op.configure(config))?,
            plan: plan.clone(),
            sets,
            samples,
            result: |set| &set.c,
            world: world.clone(),
        })
    }

    /// How its calls are carried out.
    pub fn how(&self) -> Option<iris_ops::Plan> {
        self.operation.plan(self.plan.case.m)
    }

    /// Gives the symmetric memory back. Collective.
    ///
    /// # Errors
    /// Where the ranks do not meet.
    pub fn free(self) -> Result<(), OpError> {
        self.operation.free()?;
        for set in self.sets {
            self.world.free_buffer(set.c)?;
        }
        Ok(())
    }
}

impl<T: Element> Callable<T> for AnyOperation<T, i32, Cuda> {
    type Set = FusedSet<T>;

    fn calls(
        &mut self,
        plan: &Plan,
        stream: &RankStream<Cuda>,
        sets: &mut dyn Iterator<Item = &FusedSet<T>>,
        capture: bool,
    ) -> Result<Option<CapturedGraph<Cuda>>, OpError> {
        let mut bound = self.bind(stream)?;
        each(stream, sets, capture, |set| {
            let (a, b) = (matrix(&set.a, &plan.a), matrix(&set.b, &plan.b));
            let c = MatrixMut::new(&set.c, plan.c.rows.len(), plan.c.columns.len());
            bound.call(plan.case.m, a, b, None, c)
        })
    }

    fn captured(&mut self) -> &mut dyn Captured<Cuda> {
        AnyOperation::captured(self)
    }
}
