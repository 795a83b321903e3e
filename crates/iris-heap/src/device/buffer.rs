//! Typed memory of devices.

use super::{DeviceError, Driver, ForeignMemory, Heaps, Memory, Raw};
use crate::backend::{self, Backend, Buffer};
use crate::error::WorldError;
use crate::world::{Region, World};
use bytemuck::Pod;
use std::sync::Arc;

/// The memory of a device's buffer.
///
/// Invariant: `address..address + bytes` is memory of the heaps' device for as long as this lives. It is not given back before
/// everything on its rank's streams has run: work in flight needs no handle of its own.
#[derive(Debug)]
pub struct Storage<D: Driver> {
    address: Raw,
    bytes: usize,
    source: Source<D>,
    heap: Arc<Heaps<D>>,
}

#[derive(Debug)]
enum Source<D: Driver> {
    /// Memory of the device. Taken away when it is dropped.
    Plain(Option<Memory<D>>),
    /// A region of the symmetric heap.
    Symmetric(Region),
    /// Somebody else's, who keeps it alive.
    Foreign { _memory: ForeignMemory<D> },
}

impl<D: Driver> Drop for Storage<D> {
    fn drop(&mut self) {
        if let Source::Plain(Some(memory)) =
            std::mem::replace(&mut self.source, Source::Plain(None))
        {
            self.heap.retire(memory);
        }
    }
}

impl<D: Driver> Storage<D> {
    pub(super) fn symmetric(heap: &Arc<Heaps<D>>, region: Region) -> Self {
        Self {
            address: heap.base(heap.rank()) + region.offset() as Raw,
            bytes: region.len(),
            source: Source::Symmetric(region),
            heap: Arc::clone(heap),
        }
    }

    pub(super) fn plain(heap: &Arc<Heaps<D>>, bytes: usize) -> Result<Self, DeviceError> {
        let memory = Memory::new(heap.device(), bytes)?;
        heap.transfers().fill(&memory, 0, bytes, 0)?;
        heap.transfers().synchronize()?;
        Ok(Self {
            address: memory.address(),
            bytes,
            source: Source::Plain(Some(memory)),
            heap: Arc::clone(heap),
        })
    }

    /// Where `len` bytes from `at` on begin.
    fn range(&self, at: usize, len: usize) -> Raw {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.bytes);
        assert!(inside, "{len} bytes from {at} do not lie in {}", self.bytes);
        self.address + at as Raw
    }
}

impl<D: Driver> backend::Storage for Storage<D> {
    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn region(&self) -> Option<&Region> {
        match &self.source {
            Source::Symmetric(region) => Some(region),
            Source::Plain(_) | Source::Foreign { .. } => None,
        }
    }

    fn into_region(mut self) -> Option<Region> {
        match std::mem::replace(&mut self.source, Source::Plain(None)) {
            Source::Symmetric(region) => {
                // Whoever has the region next must not find this rank's work in it. A device that has failed does none.
                let _ = self.heap.synchronize();
                Some(region)
            }
            other => {
                self.source = other;
                None
            }
        }
    }

    fn device(&self) -> usize {
        self.heap.device().ordinal()
    }

    fn upload(&self, at: usize, from: &[u8]) -> Result<(), WorldError> {
        let to = self.range(at, from.len());
        self.heap.synchronize()?;
        let stream = self.heap.transfers();
        // SAFETY: the range lies in this memory; `from` is valid until the stream has been synchronised.
        unsafe { stream.upload(to, from.as_ptr(), from.len()) }?;
        Ok(stream.synchronize()?)
    }

    fn download(&self, at: usize, to: &mut [u8]) -> Result<(), WorldError> {
        let from = self.range(at, to.len());
        self.heap.synchronize()?;
        let stream = self.heap.transfers();
        // SAFETY: as in `upload`.
        unsafe { stream.download(to.as_mut_ptr(), from, to.len()) }?;
        Ok(stream.synchronize()?)
    }
}

impl<D: Driver> World<D> {
    /// Memory that somebody else allocated on this rank's device, as a buffer of `len` elements: a tensor of another library, on
    /// which operations work where it lies. Not collective.
    ///
    /// # Safety
    /// The memory is alive, and its elements are initialised or only written, for as long as the buffer, its clones, and graphs
    /// that hold it; nobody but this device's streams and peers that operations let in touches it meanwhile.
    ///
    /// # Errors
    /// Those of [`ForeignMemory::new`]: where it is no memory of this rank's device, is not aligned to an element, or ends before
    /// `len` elements.
    pub unsafe fn foreign_buffer<T: Pod>(
        &self,
        address: Raw,
        len: usize,
    ) -> Result<Buffer<T, D>, WorldError> {
        let bytes = len.saturating_mul(size_of::<T>());
        // SAFETY: the caller's promise.
        let memory = unsafe { ForeignMemory::new(self.device(), address, bytes, align_of::<T>()) }?;
        let storage = Storage {
            address,
            bytes,
            source: Source::Foreign { _memory: memory },
            heap: Arc::clone(self.heap()),
        };
        Ok(Buffer::of(storage, len))
    }
}

impl<D: Driver> Backend for D {
    const NAME: &'static str = D::BACKEND;
    type Heap = Heaps<D>;
    type Storage = Storage<D>;
    type Stream = super::RankStream<D>;
    type Event = super::RankEvent<D>;

    fn symmetric(heap: &Arc<Heaps<D>>, region: Region) -> Storage<D> {
        Storage::symmetric(heap, region)
    }

    fn plain(heap: &Arc<Heaps<D>>, bytes: usize) -> Result<Storage<D>, WorldError> {
        Ok(Storage::plain(heap, bytes)?)
    }
}
