//! What an operation needs of a backend, beside memory and streams: a kernel.

use crate::call::Arguments;
use crate::config::FusedConfig;
use crate::error::OpError;
use crate::plan::{Blueprint, Kind, Target};
use crate::tuning::Machine;
use iris_heap::{Backend, Faults, Verdict, WatchId, Watched, World};
use iris_kernels::Element;
use iris_sync::Word;
use std::sync::Arc;

/// A backend that runs operations on elements `T` with words `W`: [`Host`](iris_heap::Host) with any words,
/// [`Cuda`](iris_heap::cuda::Cuda) and [`Hip`](iris_heap::hip::Hip) with `i32`.
///
/// It is the bound on the third parameter of the operations. Functions that work on any backend name it so:
///
/// ```
/// use iris_heap::World;
/// use iris_ops::{FusedConfig, MatmulAllReduce, OpError, Runs};
///
/// fn make<B: Runs<f32, i32>>(world: &World<B>) -> Result<MatmulAllReduce<f32, i32, B>, OpError> {
///     MatmulAllReduce::new(world, FusedConfig::new(16, 48, 64))
/// }
/// ```
pub trait Runs<T: Element, W: Word>: Backend {
    /// One rank's side of an operation.
    #[doc(hidden)]
    type Kernel: Executor<T, W, Self>;
}

/// One rank's side of an operation: what is launched for a call, and what is known of those under way.
///
/// Users have no need of it. It is what a new backend brings beside [`Backend`]: operations validate, plan and agree before they come
/// here, and what they hand over is right.
pub trait Executor<T: Element, W: Word, B: Backend>: Faults + Watched + Sized + 'static {
    /// What is compiled and loaded before memory is allocated.
    type Prepared;

    /// How the backend's programs lay out their memory.
    fn target(world: &World<B>) -> Target;

    /// What this rank's operations are measured on.
    fn machine(world: &World<B>) -> Machine;

    /// Compiles and loads what calls will run. Not collective.
    ///
    /// # Errors
    /// Where this rank cannot run the operation.
    fn prepare(
        world: &World<B>,
        kind: Kind,
        blueprint: &Blueprint,
        config: &FusedConfig,
    ) -> Result<Self::Prepared, OpError>;

    /// # Safety
    /// `offset` is that of a region of at least `blueprint.bytes` bytes in the world's symmetric heap, aligned to 256 bytes, zero
    /// on all ranks, which is used for this kernel alone as long as it lives.
    ///
    /// # Errors
    /// Where the device refuses.
    unsafe fn new(
        world: &World<B>,
        kind: Kind,
        blueprint: Blueprint,
        offset: usize,
        config: &FusedConfig,
        prepared: Self::Prepared,
    ) -> Result<Self, OpError>;

    /// The plan it follows.
    fn blueprint(&self) -> &Blueprint;
    /// The offset of its workspace in the symmetric heap.
    fn offset(&self) -> usize;
    /// How many calls this rank has completed since the last reset.
    ///
    /// # Errors
    /// Where the device refuses.
    fn index(&self) -> Result<u64, OpError>;
    /// The verdict on the fault that poisoned the workspace, as far as it is known without waiting.
    fn verdict(&self) -> Option<Arc<Verdict>>;
    /// Remembers under which number it is watched.
    fn watched_as(&self, id: WatchId);
    /// See [`Executor::watched_as`].
    fn watch_id(&self) -> Option<WatchId>;
    /// This rank's part of a reset, between the two barriers.
    ///
    /// # Errors
    /// Where the device refuses.
    fn reset(&self) -> Result<(), OpError>;

    /// Enqueues a call, and that is all.
    ///
    /// # Errors
    /// Where the device refuses.
    fn enqueue(
        this: &Arc<Self>,
        stream: &B::Stream,
        arguments: Arguments<B>,
    ) -> Result<(), OpError>;
}
