//! What an operation owns: its part of the symmetric heap.

use crate::backend::{Executor, Runs};
use crate::error::OpError;
use iris_heap::{Host, Point, Region, World};
use iris_kernels::Element;
use iris_sync::{SignalCounter, Word};
use std::sync::Arc;

/// The staging, signals and call index of one operation instance.
///
/// The call index lies in the workspace itself, where kernels read and advance it. Between two calls nothing is zeroed and
/// nobody meets; a [reset](crate::MatmulAllReduce::reset) zeroes words and index together.
pub struct FusedWorkspace<T: Element, W: Word, B: Runs<T, W> = Host> {
    pub(crate) world: World<B>,
    pub(crate) kernel: Arc<B::Kernel>,
    /// There until it is freed.
    pub(crate) region: Option<Region>,
    pub(crate) counter: SignalCounter<W>,
    /// The end of the latest stream's last call.
    pub(crate) last: B::Event,
}

impl<T: Element, W: Word, B: Runs<T, W>> FusedWorkspace<T, W, B> {
    /// The bytes it takes at each rank.
    pub fn bytes(&self) -> usize {
        self.kernel.blueprint().bytes
    }

    /// How many calls this rank has completed since the operation was created or last reset. Calls that are still queued do
    /// not count.
    ///
    /// # Errors
    /// Where the device refuses to tell.
    pub fn index(&self) -> Result<u64, OpError> {
        self.kernel.index()
    }

    /// The mapping from call indices to signal values and banks.
    pub fn counter(&self) -> SignalCounter<W> {
        self.counter
    }

    /// Back to the state after creation, also after a fault. Collective: each rank waits for its own calls to end, all meet,
    /// each zeroes its words and index, all meet again.
    pub(crate) fn reset(&self) -> Result<(), OpError> {
        let operation = "reset";
        let drained = self.last.synchronize().map_err(OpError::from);
        self.world.all_succeed(operation, drained)?;
        self.world.all_succeed(operation, self.kernel.reset())
    }

    /// Gives the memory back. Collective.
    pub(crate) fn free(mut self) -> Result<(), OpError> {
        let drained = self.last.synchronize().map_err(OpError::from);
        self.world.all_succeed("free", drained)?;
        if let Some(region) = self.region.take() {
            self.world.free(region)?;
        }
        Ok(())
    }
}

impl<T: Element, W: Word, B: Runs<T, W>> Drop for FusedWorkspace<T, W, B> {
    fn drop(&mut self) {
        // Watched until its calls have run, which may wait for a rank that dies; and then no longer, or the world and the kernel
        // would keep each other alive. The memory is not given back: that needs all ranks.
        let _ = self.last.synchronize();
        if let Some(id) = self.kernel.watch_id() {
            self.world.unwatch(id);
        }
    }
}

impl<T: Element, W: Word, B: Runs<T, W>> std::fmt::Debug for FusedWorkspace<T, W, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FusedWorkspace")
            .field("bytes", &self.bytes())
            .field("index", &self.index())
            .finish_non_exhaustive()
    }
}
