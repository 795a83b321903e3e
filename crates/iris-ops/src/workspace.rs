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
    pub(crate) operation: &'static str,
    pub(crate) world: World<B>,
    pub(crate) kernel: Arc<B::Kernel>,
    /// There until it is freed.
    pub(crate) region: Option<Region>,
    pub(crate) counter: SignalCounter<W>,
    /// The end of the latest stream's last call: of all calls, while it is not bound.
    pub(crate) last: B::Event,
    /// Whether it is bound to a stream, of which it is not known what has been called there. What binds it borrows the operation, so nobody sees this
    /// but where that has been forgotten in place of dropped, which safe code may do.
    pub(crate) bound: bool,
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

    /// That `last` is the end of all calls: asked before anything that relies on it.
    pub(crate) fn is_let_go(&self) -> Result<(), OpError> {
        if self.bound {
            return Err(OpError::StillBound {
                operation: self.operation,
                rank: self.world.rank(),
            });
        }
        Ok(())
    }

    /// Waits until all calls have run, on all ranks.
    fn drain(&self, operation: &'static str) -> Result<(), OpError> {
        let let_go = self.is_let_go();
        let drained = let_go.and_then(|()| self.last.synchronize().map_err(OpError::from));
        self.world.all_succeed(operation, drained)
    }

    /// Back to the state after creation, also after a fault. Collective: each rank waits for its own calls to end, all meet,
    /// each zeroes its words and index, all meet again.
    pub(crate) fn reset(&self) -> Result<(), OpError> {
        let operation = "reset";
        self.drain(operation)?;
        self.world.all_succeed(operation, self.kernel.reset())
    }

    /// Gives the memory back. Collective.
    pub(crate) fn free(mut self) -> Result<(), OpError> {
        self.drain("free")?;
        // Before the memory is another's: an inquiry that is still under way would store its abort word there.
        self.unwatch();
        if let Some(region) = self.region.take() {
            self.world.free(region)?;
        }
        Ok(())
    }
}

impl<T: Element, W: Word, B: Runs<T, W>> FusedWorkspace<T, W, B> {
    /// Nobody asks after its calls any more.
    fn unwatch(&self) {
        if let Some(id) = self.kernel.watch_id() {
            self.world.unwatch(id);
        }
    }
}

impl<T: Element, W: Word, B: Runs<T, W>> Drop for FusedWorkspace<T, W, B> {
    fn drop(&mut self) {
        // Watched until its calls have run, which may wait for a rank that dies; and then no longer, or the world and the kernel
        // would keep each other alive. The memory is not given back: that needs all ranks.
        let _ = self.last.synchronize();
        self.unwatch();
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
