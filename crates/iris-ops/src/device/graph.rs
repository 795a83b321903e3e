//! Launching graphs in which operations are called.

use super::kernel::DeviceKernel;
use crate::backend::{Executor, Runs};
use crate::error::OpError;
use crate::operation::Operation;
use iris_heap::Queue;
use iris_heap::device::{CapturedGraph, Driver, RankStream};
use iris_kernels::Element;

/// An operation whose calls may have been captured in a graph. A launch of the graph takes each by `&mut`: its workspace is used on
/// one stream at a time.
pub trait Captured<D: Driver> {
    /// What the graph knows it by.
    #[doc(hidden)]
    fn number(&self) -> u64;
    /// Has the stream wait for what was called before, and looks for a fault.
    #[doc(hidden)]
    fn before(&mut self, stream: &RankStream<D>) -> Result<(), OpError>;
    /// So many of its calls have been enqueued.
    #[doc(hidden)]
    fn after(&mut self, stream: &RankStream<D>, calls: u64) -> Result<(), OpError>;
}

impl<T, D> Captured<D> for Operation<T, i32, D>
where
    T: Element,
    D: Driver + Runs<T, i32, Kernel = DeviceKernel<T, D>, Stream = RankStream<D>>,
{
    fn number(&self) -> u64 {
        self.workspace().kernel.number()
    }

    fn before(&mut self, stream: &RankStream<D>) -> Result<(), OpError> {
        if let Some(verdict) = self.workspace().kernel.verdict() {
            return Err(OpError::Fault(verdict));
        }
        self.rebind(stream)
    }

    fn after(&mut self, stream: &RankStream<D>, calls: u64) -> Result<(), OpError> {
        self.workspace().kernel.enqueued_more(calls);
        stream.record(&self.workspace().last)?;
        Ok(())
    }
}

/// Launching a graph in which operations are called.
pub trait Launch<D: Driver> {
    /// Enqueues the graph on `stream`, the one it was captured on or another of the same rank. `operations` are those called in it,
    /// in any order.
    ///
    /// # Errors
    /// [`OpError::Graph`] where other operations are given than were captured; [`OpError::Fault`] where a call of one has faulted;
    /// where the device refuses.
    fn launch(
        &self,
        stream: &RankStream<D>,
        operations: &mut [&mut dyn Captured<D>],
    ) -> Result<(), OpError>;
}

impl<D: Driver> Launch<D> for CapturedGraph<D> {
    fn launch(
        &self,
        stream: &RankStream<D>,
        operations: &mut [&mut dyn Captured<D>],
    ) -> Result<(), OpError> {
        let calls_of = |number: u64| {
            let calls = self.calls().iter().find(|(of, _)| *of == number);
            calls.map(|(_, calls)| *calls)
        };
        let given: Vec<_> = operations.iter().map(|its| its.number()).collect();
        let missing = self.calls().iter().filter(|(of, _)| !given.contains(of));
        let missing = missing.count();
        if missing > 0 || given.iter().any(|&number| calls_of(number).is_none()) {
            return Err(OpError::Graph {
                captured: self.calls().len(),
                given: given.len(),
                missing,
            });
        }
        for operation in &mut *operations {
            operation.before(stream)?;
        }
        // SAFETY: the workspaces are alive and borrowed mutably, and `before` has ordered this behind their earlier calls; the graph
        // keeps the operands.
        unsafe { self.launch_unchecked(stream) }?;
        for operation in operations {
            let calls = calls_of(operation.number()).unwrap_or(0);
            operation.after(stream, calls)?;
        }
        Ok(())
    }
}
