//! Calls of something of ours, as they are measured: enqueued, captured, launched and checked.

use iris_heap::cuda::Cuda;
use iris_heap::device::{CapturedGraph, Driver, RankStream, Stream};
use iris_heap::{Buffer, World};
use iris_ops::device::{Captured, Launch};
use iris_ops::{Element, MatrixRef, OpError};

use crate::case::{Part, Plan, Storage};
use crate::sample::Samples;
use crate::timing::{Enqueue, Failure};

/// What is called, and on what. Outside of this module nobody can name it.
pub trait Callable<T: Element> {
    /// One set of operands and results.
    type Set;

    /// Binds it to the stream, and has it called on each of the sets, captured or not: [`each`] does the latter.
    ///
    /// # Errors
    /// Where a call is refused, or cannot be captured.
    fn calls(
        &mut self,
        plan: &Plan,
        stream: &RankStream<Cuda>,
        sets: &mut dyn Iterator<Item = &Self::Set>,
        capture: bool,
    ) -> Result<Option<CapturedGraph<Cuda>>, OpError>;

    /// For the launch of a graph in which it is called.
    fn captured(&mut self) -> &mut dyn Captured<Cuda>;
}

/// Something of ours with all sets of its operands.
pub struct Measured<T: Element, O: Callable<T>> {
    pub(super) operation: O,
    pub(super) plan: Plan,
    pub(super) sets: Vec<O::Set>,
    /// What the results should be.
    pub(super) samples: Vec<Samples>,
    /// Where a call leaves its result.
    pub(super) result: fn(&O::Set) -> &Buffer<T, Cuda>,
    // The last: all above lies in its heap.
    pub(super) world: World<Cuda>,
}

impl<T: Element, O: Callable<T>> Measured<T, O> {
    /// It, to be measured on a stream.
    pub fn on<'a>(&'a mut self, stream: &'a RankStream<Cuda>) -> Calls<'a, T, O> {
        Calls {
            measured: self,
            stream,
            graph: None,
        }
    }
}

/// Something of ours on a stream.
pub struct Calls<'a, T: Element, O: Callable<T>> {
    measured: &'a mut Measured<T, O>,
    stream: &'a RankStream<Cuda>,
    graph: Option<CapturedGraph<Cuda>>,
}

/// A rank's part of a matrix, as it lies in a buffer.
pub(super) fn matrix<'a, T>(buffer: &'a Buffer<T, Cuda>, part: &Part) -> MatrixRef<'a, T, Cuda> {
    stored(buffer, part.rows.len(), part.columns.len(), part.storage)
}

/// A matrix as it lies in a buffer.
pub(super) fn stored<T>(
    buffer: &Buffer<T, Cuda>,
    rows: usize,
    columns: usize,
    storage: Storage,
) -> MatrixRef<'_, T, Cuda> {
    match storage {
        Storage::Rows => MatrixRef::new(buffer, rows, columns),
        Storage::Columns => MatrixRef::new(buffer, columns, rows).transposed(),
    }
}

/// Has `call` made on each set, captured or not.
pub(super) fn each<'s, S: 's>(
    stream: &RankStream<Cuda>,
    sets: &mut dyn Iterator<Item = &'s S>,
    capture: bool,
    mut call: impl FnMut(&S) -> Result<(), OpError>,
) -> Result<Option<CapturedGraph<Cuda>>, OpError> {
    let mut all = || {
        for set in &mut *sets {
            call(set)?;
        }
        Ok(())
    };
    if capture {
        stream.capture(all).map(Some)
    } else {
        all().map(|()| None)
    }
}

impl<T: Element, O: Callable<T>> Calls<'_, T, O> {
    fn call(&mut self, set: usize) -> Result<(), OpError> {
        let Measured {
            operation,
            plan,
            sets,
            ..
        } = &mut *self.measured;
        let mut sets = std::iter::once(&sets[set]);
        operation.calls(plan, self.stream, &mut sets, false)?;
        Ok(())
    }

    /// The first element that is not what it should be, of the results of a call on the set of `samples` that ranks make together.
    fn hold(&mut self, samples: &Samples, stream: &Stream<Cuda>) -> Result<(), Failure> {
        let Measured {
            sets,
            result,
            world,
            ..
        } = &*self.measured;
        let buffer = result(&sets[samples.set]);
        let bytes = buffer.len() * size_of::<T>();
        if bytes > 0 {
            let driver = Cuda::load()?;
            driver.bind(stream.device().ordinal())?;
            // No number, so that nothing left of an earlier call can pass for a result of this.
            // SAFETY: the buffer is that large, and nothing that is enqueued elsewhere uses it: peers store into it in calls
            // alone, and make the next one after the barrier.
            unsafe { driver.fill(buffer.address(), 0xff, bytes, stream.raw()) }?;
        }
        stream.synchronize()?;
        world.barrier()?;
        self.call(samples.set)?;
        self.stream.synchronize()?;
        // A peer's synchronisation says nothing of this rank's result; its own does, by the protocol.
        let Measured { sets, result, .. } = &*self.measured;
        let buffer = result(&sets[samples.set]);
        for sample in &samples.elements {
            let mut element = [T::NAN];
            buffer.download_into(sample.at, &mut element)?;
            let actual = f64::from(element[0].to_f32());
            if !sample.accepts(actual) {
                return Err(format!(
                    "operands {}: the result at row {}, column {} is {actual}, and should be {} (give or take {:.3e}); nothing of this measurement counts",
                    samples.set, sample.row, sample.column, sample.expected, sample.bound
                )
                .into());
            }
        }
        Ok(())
    }
}

impl<T: Element, O: Callable<T>> Enqueue<Cuda> for Calls<'_, T, O> {
    fn enqueue(&mut self, set: usize, _: &Stream<Cuda>) -> Result<(), Failure> {
        Ok(self.call(set)?)
    }

    fn capture(&mut self, calls: usize, sets: usize, _: &Stream<Cuda>) -> Result<(), Failure> {
        self.graph = None;
        let measured = &mut *self.measured;
        let mut sets = measured.sets[..sets].iter().cycle().take(calls);
        let (operation, plan) = (&mut measured.operation, &measured.plan);
        self.graph = operation.calls(plan, self.stream, &mut sets, true)?;
        Ok(())
    }

    fn launch(&mut self, _: &Stream<Cuda>) -> Result<(), Failure> {
        let graph = self.graph.as_ref().ok_or("nothing was captured")?;
        graph.launch(self.stream, &mut [self.measured.operation.captured()])?;
        Ok(())
    }

    fn check(&mut self, stream: &Stream<Cuda>) -> Result<(), Failure> {
        let samples = std::mem::take(&mut self.measured.samples);
        // All of them, since the other ranks wait for the calls.
        let held: Vec<_> = samples
            .iter()
            .map(|samples| self.hold(samples, stream))
            .collect();
        self.measured.samples = samples;
        held.into_iter().collect()
    }
}
