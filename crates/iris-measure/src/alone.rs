//! One thing of ours, measured alone: the same operands, graphs and checks as in a comparison, without the vendor's libraries.

use iris_heap::World;
use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, Stream};
use iris_kernels::DType;

use crate::case::{Case, Plan};
use crate::comparison::Item;
use crate::error::MeasureError;
use crate::kernels::Kernels;
use crate::meeting::together;
use crate::operands::Operands;
use crate::sample::Samples;
use crate::timing::{Captured, Clock, Effort, Enqueue, median};

/// One rank's side of all trials of a run.
pub struct Alone<'a> {
    world: &'a World,
    device: Device<Cuda>,
    stream: &'a Stream<Cuda>,
    kernels: Kernels,
    dtype: DType,
}

impl<'a> Alone<'a> {
    /// For this rank's stream, on which everything is then measured, and elements of one type. Collective.
    ///
    /// # Errors
    /// Where the kernels that fill operands do not compile on a rank.
    pub fn new(
        world: &'a World,
        stream: &'a Stream<Cuda>,
        dtype: DType,
    ) -> Result<Self, MeasureError> {
        let device = stream.device();
        Ok(Self {
            world,
            device: device.clone(),
            stream,
            kernels: together(world, "compiling", Kernels::new(device, dtype))?,
            dtype,
        })
    }
}

/// One rank's side of the trials of one case.
pub struct Trial<'r> {
    alone: &'r Alone<'r>,
    plan: Plan,
    operands: Operands<'r>,
    seed: u64,
}

impl<'r> Trial<'r> {
    /// Allocates and fills the operands of a case, whose elements are of the type that `alone` is for. Collective.
    ///
    /// # Errors
    /// Where the sizes are too large for the device, or cannot be addressed.
    ///
    /// # Panics
    /// Where the case is of another type of elements.
    pub fn new(alone: &'r Alone<'r>, case: Case, seed: u64) -> Result<Self, MeasureError> {
        assert_eq!(
            case.dtype, alone.dtype,
            "kernels were compiled for one type"
        );
        let plan = Plan::new(case, alone.world.size(), alone.world.rank())?;
        let Alone {
            world,
            device,
            stream,
            kernels,
            ..
        } = alone;
        Ok(Self {
            operands: Operands::new(world, device, stream, kernels, None, &plan, seed)?,
            alone,
            plan,
            seed,
        })
    }

    /// This rank's part in the case.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The operands, for ours to be called on: their A and B, and nothing else.
    pub fn operands(&self) -> &Operands<'r> {
        &self.operands
    }

    /// `count` elements of this rank's result on a set of operands, to check ours by.
    pub fn samples(&self, set: usize, count: usize) -> Samples {
        Samples::of_result(&self.plan, self.seed, set, count)
    }

    /// Microseconds of a call of a fused operation: the median of the slowest rank's. Its results are checked before and after.
    /// Collective.
    ///
    /// # Errors
    /// Where a result is wrong; where a call fails.
    pub fn run(&self, fused: &mut dyn Enqueue<Cuda>, effort: Effort) -> Result<f64, MeasureError> {
        self.measure(fused, effort, |clock, captured| {
            let times = clock.rounds(std::slice::from_mut(captured))?;
            Ok(median(times.first().map_or(&[][..], Vec::as_slice)))
        })
    }

    /// What `body` measures of a fused operation, which is captured in a graph that runs for about `effort.graph_us`. Its results are checked
    /// before and after. Collective.
    ///
    /// # Errors
    /// Where a result is wrong; where a call fails; what `body` returns.
    pub fn measure<R>(
        &self,
        fused: &mut dyn Enqueue<Cuda>,
        effort: Effort,
        body: impl FnOnce(&Clock<'_, Cuda>, &mut Captured<'_, Cuda>) -> Result<R, MeasureError>,
    ) -> Result<R, MeasureError> {
        let what = Item::Fused.name();
        let clock = Clock {
            world: self.alone.world,
            device: &self.alone.device,
            stream: self.alone.stream,
            sets: self.operands.sets(),
            effort,
        };
        let check = |fused: &mut dyn Enqueue<Cuda>| {
            let held = clock.own(what, fused.check(self.alone.stream));
            together(self.alone.world, what, held)
        };
        check(fused)?;
        let measured = {
            let mut captured = clock.capture(what, fused)?;
            body(&clock, &mut captured)?
        };
        check(fused)?;
        Ok(measured)
    }
}
