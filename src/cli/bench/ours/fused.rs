//! The fused operation.

use iris::heap::cuda::Cuda;
use iris::heap::device::{CapturedGraph, RankStream};
use iris::heap::{Buffer, World};
use iris::ops::device::Captured;
use iris::ops::{Element, FusedConfig, MatrixMut, OpError};
use iris_measure::{Operands, Plan, Samples};
use iris_testkit::{AnyOperation, Op};

use super::calls::{Callable, Measured, each, matrix};

/// One set of a rank's operands, and where the result goes.
pub(crate) struct Set<T> {
    a: Buffer<T, Cuda>,
    b: Buffer<T, Cuda>,
    c: Buffer<T, Cuda>,
}

/// The fused operation, to be measured.
pub(crate) type Fused<T> = Measured<T, AnyOperation<T, i32, Cuda>>;

impl<T: Element> Fused<T> {
    /// Creates it for a plan, and operands which outlive it. `samples` are of its results. Collective.
    pub(crate) fn new(
        world: &World<Cuda>,
        plan: &Plan,
        operands: &Operands<'_>,
        samples: Vec<Samples>,
        op: Op,
        config: FusedConfig,
    ) -> anyhow::Result<Self> {
        let largest = Plan::new(plan.case, plan.world, 0)?;
        let sets = (0..operands.sets())
            .map(|set| {
                let at = operands.plain(set);
                // SAFETY: the operands' memory, which outlives this, and which is used on one stream.
                let foreign = |address, len| unsafe { world.foreign_buffer(address, len) };
                Ok(Set {
                    a: foreign(at.a, plan.a.len())?,
                    b: foreign(at.b, plan.b.len())?,
                    c: world.symmetric_buffer(largest.c.len())?,
                })
            })
            .collect::<anyhow::Result<_>>()?;
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
    pub(crate) fn how(&self) -> Option<iris::ops::Plan> {
        self.operation.plan(self.plan.case.m)
    }

    /// Gives the symmetric memory back. Collective.
    pub(crate) fn free(self) -> anyhow::Result<()> {
        self.operation.free()?;
        for set in self.sets {
            self.world.free_buffer(set.c)?;
        }
        Ok(())
    }
}

impl<T: Element> Callable<T> for AnyOperation<T, i32, Cuda> {
    type Set = Set<T>;

    fn calls(
        &mut self,
        plan: &Plan,
        stream: &RankStream<Cuda>,
        sets: &mut dyn Iterator<Item = &Set<T>>,
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
