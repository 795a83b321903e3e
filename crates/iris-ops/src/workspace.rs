//! What an operation owns: its part of the symmetric heap.

use crate::error::OpError;
use crate::host::HostKernel;
use iris_heap::{Event, Region, World};
use iris_kernels::Element;
use iris_sync::{SignalCounter, Word};
use std::sync::Arc;

/// The staging, signals and call index of one operation instance.
///
/// The call index lies in the workspace itself, where kernels read and advance it. Between two calls nothing is zeroed and
/// nobody meets; a [reset](crate::MatmulAllReduce::reset) zeroes words and index together.
pub struct FusedWorkspace<T: Element, W: Word> {
    pub(crate) world: World,
    pub(crate) kernel: Arc<HostKernel<T, W>>,
    /// There until it is freed.
    pub(crate) region: Option<Region>,
    pub(crate) counter: SignalCounter<W>,
    /// The end of the latest stream's last call.
    pub(crate) last: Event,
}

impl<T: Element, W: Word> FusedWorkspace<T, W> {
    /// The bytes it takes at each rank.
    pub fn bytes(&self) -> usize {
        self.kernel.blueprint().bytes
    }

    /// How many calls this rank has completed since the operation was created or last reset. Calls that are still queued do
    /// not count.
    pub fn index(&self) -> u64 {
        self.kernel.index()
    }

    /// The mapping from call indices to signal values and banks.
    pub fn counter(&self) -> SignalCounter<W> {
        self.counter
    }

    /// Back to the state after creation, also after a fault. Collective: each rank waits for its own calls to end, all meet,
    /// each zeroes its words and index, all meet again.
    pub(crate) fn reset(&self) -> Result<(), OpError> {
        self.last.synchronize();
        self.world.barrier()?;
        self.kernel.reset();
        self.world.barrier()?;
        Ok(())
    }

    /// Gives the memory back. Collective.
    pub(crate) fn free(mut self) -> Result<(), OpError> {
        self.last.synchronize();
        if let Some(region) = self.region.take() {
            self.world.free(region)?;
        }
        Ok(())
    }
}

impl<T: Element, W: Word> Drop for FusedWorkspace<T, W> {
    fn drop(&mut self) {
        // Watched no longer, or the world and the kernel would keep each other alive. The memory is not given back: that needs
        // all ranks.
        if let Some(id) = self.kernel.watch_id() {
            self.world.unwatch(id);
        }
    }
}

impl<T: Element, W: Word> std::fmt::Debug for FusedWorkspace<T, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FusedWorkspace")
            .field("bytes", &self.bytes())
            .field("index", &self.index())
            .finish_non_exhaustive()
    }
}
