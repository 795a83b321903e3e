//! What a backend is: where ranks keep their memory, and what runs their kernels.
//!
//! There are [`Host`] and one for each GPU runtime. What a world, a buffer and an operation have in common is written once, over
//! [`Backend`]; it is unvalidated below and safe above.

use crate::allocator::MIN_ALIGN;
use crate::error::WorldError;
use crate::fault::Verdict;
use crate::host::Host;
use crate::host::buffer::RangeError;
use crate::host::stream::StreamError;
use crate::world::{Region, World};
use bytemuck::Pod;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

/// A place where ranks compute: [`Host`], [`Cuda`](crate::cuda::Cuda), [`Hip`](crate::hip::Hip).
///
/// It is what [`World`], [`Buffer`] and operations are generic over. A user names one, and calls functions of theirs; the functions
/// here are what those are made of. Every GPU runtime that implements [`Driver`](crate::device::Driver) is one.
pub trait Backend: Debug + Send + Sync + Sized + 'static {
    /// Its name, as the command takes it.
    const NAME: &'static str;
    /// The symmetric heaps of all ranks, as one rank sees them.
    type Heap: Heap;
    /// The memory of a buffer.
    type Storage: Storage;
    /// A queue of work: [`Stream`](crate::Stream) on the host, [`RankStream`](crate::device::RankStream) on GPUs.
    type Stream: Queue<Self>;
    /// A point in a queue: [`Event`](crate::Event) on the host, [`RankEvent`](crate::device::RankEvent) on GPUs.
    type Event: Point<Self>;

    /// The memory of a region of this rank's heap.
    fn symmetric(heap: &Arc<Self::Heap>, region: Region) -> Self::Storage;
    /// Zeroed memory of this rank's own.
    ///
    /// # Errors
    /// Where there is not so much.
    fn plain(heap: &Arc<Self::Heap>, bytes: usize) -> Result<Self::Storage, WorldError>;
}

/// The symmetric heaps of all ranks, as one rank sees them.
pub trait Heap: Debug + Send + Sync {
    /// The bytes of one rank's heap.
    fn bytes(&self) -> usize;
    /// The device it lies on, as the runtime counts those that are visible; 0 on the host.
    fn device_ordinal(&self) -> usize;
    /// Zeroes a part of this rank's heap, and returns once it is zero for all ranks.
    ///
    /// # Safety
    /// The part lies in the heap, and nobody else uses it.
    ///
    /// # Errors
    /// Where the device refuses.
    unsafe fn zero(&self, offset: usize, bytes: usize) -> Result<(), WorldError>;
    /// Called in the midst of a collective: whatever other ranks have called before it, this rank has called too.
    fn all_are_here(&self) {}
}

/// The memory of a buffer.
pub trait Storage: Debug + Send + Sync {
    /// Where it begins, for kernels of its rank.
    fn address(&self) -> u64;
    /// Its bytes.
    fn bytes(&self) -> usize;
    /// Its region, if it lies in a symmetric heap.
    fn region(&self) -> Option<&Region>;
    /// Gives the region up, if there is one.
    fn into_region(self) -> Option<Region>;
    /// The device it belongs to, or 0 where that is the host.
    fn device(&self) -> usize;
    /// Copies bytes in, once whatever uses the memory is through with it.
    ///
    /// # Errors
    /// Where the device refuses.
    ///
    /// # Panics
    /// Where they do not lie inside.
    fn upload(&self, at: usize, from: &[u8]) -> Result<(), WorldError>;
    /// Copies bytes out, once whatever writes the memory is through with it.
    ///
    /// # Errors
    /// Where the device refuses.
    ///
    /// # Panics
    /// Where they do not lie inside.
    fn download(&self, at: usize, to: &mut [u8]) -> Result<(), WorldError>;
}

/// A queue of work that runs in order, beside the thread that fills it. Operations are bound to one, and enqueue their calls there.
pub trait Queue<B: Backend>: Debug + Sized {
    /// A queue of this rank.
    ///
    /// # Errors
    /// Where none can be had.
    fn of(world: &World<B>) -> Result<Self, StreamError>;
    /// Waits until all that has been enqueued has run.
    ///
    /// # Errors
    /// What went wrong in it.
    fn synchronize(&self) -> Result<(), StreamError>;
    /// Has `faults` asked at the queue's end; called when an operation is bound to it.
    fn watch(&self, faults: Arc<dyn Faults>);
    /// The rank whose queue it is.
    fn rank(&self) -> usize;
    /// Moves `event` to the end of the queue.
    ///
    /// # Errors
    /// Where the device refuses.
    fn record(&self, event: &B::Event) -> Result<(), StreamError>;
    /// Has what is enqueued from now on wait until the queue in which `event` was last recorded has come there.
    ///
    /// # Errors
    /// Where the device refuses.
    fn wait(&self, event: &B::Event) -> Result<(), StreamError>;
}

/// A point in a queue, that other queues and the host can wait for.
pub trait Point<B: Backend>: Debug + Sized {
    /// An event of this rank that has not been recorded: nobody waits for it.
    ///
    /// # Errors
    /// Where the device makes none.
    fn of(heap: &Arc<B::Heap>) -> Result<Self, StreamError>;
    /// Waits until the queue has come to where the event was last recorded.
    ///
    /// # Errors
    /// What went wrong before it.
    fn synchronize(&self) -> Result<(), StreamError>;
}

/// What a stream asks at its end of what ran in it: whether it faulted.
pub trait Faults: Debug + Send + Sync {
    /// The verdict, where a call has faulted since the last reset.
    fn settle(&self) -> Option<Arc<Verdict>>;
    /// Called where the queue's device has failed, so that peers do not wait for this rank until their budgets end.
    fn device_failed(&self) {}
}

/// `len` elements of memory that operations work on. Clones share the memory.
///
/// On the host, reading and writing waits for kernels in flight that use the buffer. On a device it waits for everything on this
/// rank's streams ([`RankStream`](crate::device::RankStream)s); what else the user runs there, the user waits for.
///
/// Elements have an alignment of 256 bytes at most, which all buffers have: a buffer of others does not compile.
#[derive(Debug)]
pub struct Buffer<T, B: Backend = Host> {
    pub(crate) storage: Arc<B::Storage>,
    len: usize,
    element: PhantomData<fn() -> T>,
}

impl<T, B: Backend> Clone for Buffer<T, B> {
    fn clone(&self) -> Self {
        Self {
            storage: Arc::clone(&self.storage),
            len: self.len,
            element: PhantomData,
        }
    }
}

impl<T, B: Backend> Buffer<T, B> {
    /// `len` elements that begin where `storage` does, and lie in it.
    ///
    /// Invariant: all buffers are made here, so the memory of each is aligned to its elements. A storage's begins at a multiple
    /// of [`MIN_ALIGN`], or, where it is another's, of what the elements need.
    ///
    /// All ways to a buffer compile for the largest alignment:
    ///
    /// ```
    /// # use bytemuck::{Pod, Zeroable};
    /// # use iris_heap::{Buffer, World, WorldConfig, WorldError, hip::Hip};
    /// # #[derive(Clone, Copy)]
    /// # #[repr(C, align(256))]
    /// # struct Block([u8; 256]);
    /// # // SAFETY: as many bytes as its alignment, of which any are a block, and no padding.
    /// # unsafe impl Zeroable for Block {}
    /// # // SAFETY: as above.
    /// # unsafe impl Pod for Block {}
    /// fn symmetric(world: &World) -> Result<Buffer<Block>, WorldError> {
    ///     world.symmetric_buffer(3)
    /// }
    /// fn plain(world: &World) -> Result<Buffer<Block>, WorldError> {
    ///     world.plain_buffer(3)
    /// }
    /// fn foreign(world: &World<Hip>) -> Result<Buffer<Block, Hip>, WorldError> {
    ///     // SAFETY: no bytes.
    ///     unsafe { world.foreign_buffer(0, 0) }
    /// }
    /// # let _: fn(&World<Hip>) -> _ = foreign;
    /// World::threads(1, &WorldConfig::default(), |world| {
    ///     let (symmetric, plain) = (symmetric(&world)?, plain(&world)?);
    ///     assert!(symmetric.as_ptr().is_aligned() && plain.as_ptr().is_aligned());
    ///     world.free_buffer(symmetric)
    /// })?
    /// .remove(0)?;
    /// # Ok::<(), WorldError>(())
    /// ```
    ///
    /// And none for a larger one:
    ///
    /// ```compile_fail,E0080
    /// # use bytemuck::{Pod, Zeroable};
    /// # use iris_heap::{Buffer, World, WorldConfig, WorldError, hip::Hip};
    /// # #[derive(Clone, Copy)]
    /// # #[repr(C, align(512))]
    /// # struct Block([u8; 512]);
    /// # // SAFETY: as many bytes as its alignment, of which any are a block, and no padding.
    /// # unsafe impl Zeroable for Block {}
    /// # // SAFETY: as above.
    /// # unsafe impl Pod for Block {}
    /// fn symmetric(world: &World) -> Result<Buffer<Block>, WorldError> {
    ///     world.symmetric_buffer(3)
    /// }
    /// let _: fn(&World) -> _ = symmetric;
    /// ```
    ///
    /// ```compile_fail,E0080
    /// # use bytemuck::{Pod, Zeroable};
    /// # use iris_heap::{Buffer, World, WorldConfig, WorldError, hip::Hip};
    /// # #[derive(Clone, Copy)]
    /// # #[repr(C, align(512))]
    /// # struct Block([u8; 512]);
    /// # // SAFETY: as many bytes as its alignment, of which any are a block, and no padding.
    /// # unsafe impl Zeroable for Block {}
    /// # // SAFETY: as above.
    /// # unsafe impl Pod for Block {}
    /// fn plain(world: &World) -> Result<Buffer<Block>, WorldError> {
    ///     world.plain_buffer(3)
    /// }
    /// let _: fn(&World) -> _ = plain;
    /// ```
    ///
    /// ```compile_fail,E0080
    /// # use bytemuck::{Pod, Zeroable};
    /// # use iris_heap::{Buffer, World, WorldConfig, WorldError, hip::Hip};
    /// # #[derive(Clone, Copy)]
    /// # #[repr(C, align(512))]
    /// # struct Block([u8; 512]);
    /// # // SAFETY: as many bytes as its alignment, of which any are a block, and no padding.
    /// # unsafe impl Zeroable for Block {}
    /// # // SAFETY: as above.
    /// # unsafe impl Pod for Block {}
    /// fn foreign(world: &World<Hip>) -> Result<Buffer<Block, Hip>, WorldError> {
    ///     // SAFETY: no bytes.
    ///     unsafe { world.foreign_buffer(0, 0) }
    /// }
    /// let _: fn(&World<Hip>) -> _ = foreign;
    /// ```
    pub(crate) fn of(storage: B::Storage, len: usize) -> Self {
        const {
            assert!(
                align_of::<T>() <= MIN_ALIGN,
                "an element has an alignment of 256 bytes at most"
            );
        }
        debug_assert!(len * size_of::<T>() <= storage.bytes());
        Self {
            storage: Arc::new(storage),
            len,
            element: PhantomData,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it lies in the symmetric heap.
    pub fn is_symmetric(&self) -> bool {
        self.region().is_some()
    }

    /// Its offset in every rank's heap, in bytes, if it lies in the symmetric heap.
    pub fn offset(&self) -> Option<usize> {
        self.region().map(Region::offset)
    }

    /// Its region of the symmetric heap, if it has one.
    pub fn region(&self) -> Option<&Region> {
        self.storage.region()
    }

    /// Where it begins, for kernels of its rank.
    pub fn address(&self) -> u64 {
        self.storage.address()
    }

    /// The device it belongs to, as the runtime counts those that are visible; 0 on the host.
    pub fn device_ordinal(&self) -> usize {
        self.storage.device()
    }

    /// Replaces the elements from `at` on, once whatever uses the buffer is through with it.
    ///
    /// # Errors
    /// [`WorldError::Range`] where the buffer does not have that many; where the device refuses.
    pub fn upload(&self, at: usize, from: &[T]) -> Result<(), WorldError>
    where
        T: Pod,
    {
        self.check(at, from.len())?;
        let from = bytemuck::cast_slice(from);
        self.storage.upload(at * size_of::<T>(), from)
    }

    /// Copies the elements from `at` on, once whatever writes the buffer is through with it.
    ///
    /// # Errors
    /// As [`Buffer::upload`].
    pub fn download_into(&self, at: usize, to: &mut [T]) -> Result<(), WorldError>
    where
        T: Pod,
    {
        self.check(at, to.len())?;
        let to = bytemuck::cast_slice_mut(to);
        self.storage.download(at * size_of::<T>(), to)
    }

    /// A copy of all elements, once whatever writes the buffer is through with it.
    ///
    /// # Errors
    /// Where the device refuses.
    pub fn download(&self) -> Result<Vec<T>, WorldError>
    where
        T: Pod,
    {
        let mut to = vec![T::zeroed(); self.len];
        self.download_into(0, &mut to)?;
        Ok(to)
    }

    fn check(&self, at: usize, count: usize) -> Result<(), WorldError> {
        let len = self.len;
        match at.checked_add(count) {
            Some(end) if end <= len => Ok(()),
            _ => Err(WorldError::Range(RangeError { at, count, len })),
        }
    }

    /// A handle that keeps the memory alive and has forgotten its type.
    pub fn any(&self) -> AnyBuffer<B> {
        AnyBuffer {
            storage: Arc::clone(&self.storage),
        }
    }
}

/// A [`Buffer`] that has forgotten its type: what a kernel's arguments hold. Cloning it allocates nothing.
#[derive(Debug)]
pub struct AnyBuffer<B: Backend = Host> {
    pub(crate) storage: Arc<B::Storage>,
}

impl<B: Backend> Clone for AnyBuffer<B> {
    fn clone(&self) -> Self {
        Self {
            storage: Arc::clone(&self.storage),
        }
    }
}

impl<B: Backend> AnyBuffer<B> {
    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.storage.bytes()
    }

    /// Where its memory begins, for kernels of its rank.
    pub fn address(&self) -> u64 {
        self.storage.address()
    }

    /// Its offset in every rank's heap, in bytes, if it lies in the symmetric heap.
    pub fn offset(&self) -> Option<usize> {
        self.storage.region().map(Region::offset)
    }
}
