//! The host backend: heaps in shared memory, kernels on worker threads.

pub(crate) mod access;
pub(crate) mod buffer;
pub(crate) mod event;
pub(crate) mod kernel;
pub(crate) mod memory;
pub(crate) mod stream;
pub(crate) mod window;
pub(crate) mod words;

use crate::WorldError;
use crate::backend::{Backend, Faults, Heap, Point, Queue};
use crate::world::{Region, World};
use event::Event;
use std::sync::Arc;
use stream::{Stream, StreamError};

/// The host as a backend: ranks are threads or processes, and their kernels run on threads beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host;

/// The symmetric heaps of all ranks, of which one is this rank's.
#[derive(Debug)]
pub struct Heaps {
    pub(crate) memory: Arc<memory::Memory>,
    pub(crate) rank: usize,
}

impl Backend for Host {
    const NAME: &'static str = "host";
    type Heap = Heaps;
    type Storage = buffer::Storage;
    type Stream = Stream;
    type Event = Event;

    fn symmetric(heap: &Arc<Heaps>, region: Region) -> buffer::Storage {
        let start = heap.memory.base(heap.rank).wrapping_add(region.offset());
        buffer::Storage::symmetric(start, region, Arc::clone(&heap.memory))
    }

    fn plain(heap: &Arc<Heaps>, bytes: usize) -> Result<buffer::Storage, WorldError> {
        let rank = heap.rank;
        buffer::Storage::plain(bytes).ok_or(WorldError::OutOfMemory { rank, bytes })
    }
}

impl Heap for Heaps {
    fn bytes(&self) -> usize {
        self.memory.heap_bytes()
    }

    fn device_ordinal(&self) -> usize {
        0
    }

    unsafe fn zero(&self, offset: usize, bytes: usize) -> Result<(), WorldError> {
        let start = self.memory.base(self.rank).wrapping_add(offset);
        // SAFETY: by the caller's promise the part lies in this rank's heap, which is mapped, and is nobody else's.
        unsafe { start.write_bytes(0, bytes) };
        Ok(())
    }
}

impl Queue<Host> for Stream {
    fn of(world: &World) -> Result<Self, StreamError> {
        Self::new(world)
    }

    fn synchronize(&self) -> Result<(), StreamError> {
        self.synchronize()
    }

    /// Kernels of the host say themselves whether they faulted.
    fn watch(&self, _: Arc<dyn Faults>) {}

    fn rank(&self) -> usize {
        self.rank()
    }

    fn record(&self, event: &Event) -> Result<(), StreamError> {
        self.record(event);
        Ok(())
    }

    fn wait(&self, event: &Event) -> Result<(), StreamError> {
        self.wait(event);
        Ok(())
    }
}

impl Point<Host> for Event {
    fn of(_: &Arc<Heaps>) -> Result<Self, StreamError> {
        Ok(Self::new())
    }

    fn synchronize(&self) -> Result<(), StreamError> {
        self.synchronize();
        Ok(())
    }
}
