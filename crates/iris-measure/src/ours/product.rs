//! Our product alone, on the vendor's operands.

use iris_heap::cuda::Cuda;
use iris_heap::device::{CapturedGraph, RankStream};
use iris_heap::{Buffer, World};
use iris_ops::device::{Captured, Product};
use iris_ops::{Element, MatrixMut, OpError};

use super::SAMPLES;
use super::calls::{Callable, Measured, each, matrix, stored};
use crate::case::Plan;
use crate::comparison::Comparison;
use crate::error::MeasureError;

/// What the product takes of one set of operands, and where its result goes.
pub struct MultiplicationSet<T> {
    a: Buffer<T, Cuda>,
    b: Buffer<T, Cuda>,
    c: Buffer<T, Cuda>,
}

/// The product alone, to be measured.
pub type Multiplication<T> = Measured<T, Product<T, Cuda>>;

impl<T: Element> Multiplication<T> {
    /// Makes it for a comparison's plan and operands; nothing where a rank has nothing to multiply. Collective, since all ranks have one
    /// or none.
    ///
    /// # Safety
    /// The comparison outlives it, and it is measured on the comparison's stream.
    ///
    /// # Errors
    /// Where a device has no room for the results, or the product cannot be created on a rank.
    pub unsafe fn new(
        world: &World<Cuda>,
        comparison: &Comparison<'_, '_>,
    ) -> Result<Option<Self>, MeasureError> {
        let plan = comparison.plan();
        // The last rank has the least of everything.
        let least = Plan::new(plan.case, plan.world, plan.world - 1)?;
        if least.m.min(least.n).min(least.k) == 0 {
            return Ok(None);
        }
        let operands = comparison.operands();
        let sets = (0..operands.sets())
            .map(|set| {
                let at = operands.plain(set);
                let a = if plan.case.operation.gathers_first() {
                    at.receive
                } else {
                    at.a
                };
                // SAFETY: the comparison's memory, which outlives this, and which the vendor's library and our kernels use on one
                // stream: the caller's word.
                let foreign = |address, len| unsafe { world.foreign_buffer(address, len) };
                Ok(MultiplicationSet {
                    a: foreign(a, plan.m * plan.k)?,
                    b: foreign(at.b, plan.b.len())?,
                    c: world.plain_buffer(plan.m * plan.n)?,
                })
            })
            .collect::<Result<Vec<_>, MeasureError>>()?;
        let product = Product::new(world, plan.m, plan.k, plan.n);
        let operation = world.all_succeed("our product", product)?;
        let samples = [0, sets.len() - 1].map(|set| comparison.product_samples(set, SAMPLES));
        Ok(Some(Self {
            operation,
            plan: plan.clone(),
            sets,
            samples: samples.into(),
            result: |set| &set.c,
            world: world.clone(),
        }))
    }
}

impl<T: Element> Callable<T> for Product<T, Cuda> {
    type Set = MultiplicationSet<T>;

    fn calls(
        &mut self,
        plan: &Plan,
        stream: &RankStream<Cuda>,
        sets: &mut dyn Iterator<Item = &MultiplicationSet<T>>,
        capture: bool,
    ) -> Result<Option<CapturedGraph<Cuda>>, OpError> {
        each(stream, sets, capture, |set| {
            let a = stored(&set.a, plan.m, plan.k, plan.product_a);
            let c = MatrixMut::new(&set.c, plan.m, plan.n);
            self.call(stream, a, matrix(&set.b, &plan.b), c)
        })
    }

    fn captured(&mut self) -> &mut dyn Captured<Cuda> {
        self
    }
}
