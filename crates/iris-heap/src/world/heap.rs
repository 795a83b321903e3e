//! The symmetric heap, as one rank sees it.

use super::World;
use crate::allocator::{Full, MAX_ALIGN};
use crate::backend::{Backend, Buffer, Heap, Storage};
use crate::error::WorldError;
use crate::host::Host;
use crate::host::memory::Memory;
use bytemuck::Pod;
use std::mem::size_of;
use std::sync::{Arc, MutexGuard, PoisonError};

/// A piece of the symmetric heap, at the same offset on every rank.
///
/// Dropping it gives nothing back: memory that peers may be writing to can only be freed by all ranks together, with
/// [`World::free`].
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    offset: usize,
    len: usize,
    identity: u64,
}

impl Region {
    /// Where it begins in every rank's heap, in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Its length in bytes, as it was asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What this rank's allocator makes of a request.
enum Placed {
    At(usize),
    Full(Full),
    BadAlignment,
}

impl<B: Backend> World<B> {
    fn allocator(&self) -> MutexGuard<'_, crate::allocator::Allocator> {
        let allocator = &self.space.allocator;
        allocator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocates `bytes` bytes of the symmetric heap at a multiple of `align` (of 256 in any case). Collective.
    ///
    /// When it returns, the memory is zero on all ranks.
    ///
    /// # Errors
    /// [`WorldError::HeapFull`] and [`WorldError::Alignment`] on all ranks or none; [`WorldError::Disagreement`] where
    /// ranks ask for different things; those of [`World::barrier`].
    pub fn allocate(&self, bytes: usize, align: usize) -> Result<Region, WorldError> {
        // The allocators of all ranks are in the same state, so equal requests have equal results; only requests can
        // differ. The result is compared all the same, since everything rests on it.
        let placed = if !align.is_power_of_two() || align > MAX_ALIGN {
            Placed::BadAlignment
        } else {
            match self.allocator().allocate(bytes, align) {
                Ok(offset) => Placed::At(offset),
                Err(full) => Placed::Full(full),
            }
        };
        let offset = match &placed {
            Placed::At(offset) => offset.to_string(),
            Placed::Full(_) => "none, the heap is full".into(),
            Placed::BadAlignment => "none, for that alignment".into(),
        };
        let fields = [
            ("bytes", bytes.to_string()),
            ("align", align.to_string()),
            ("offset", offset),
        ];
        let agreed = self.agree("allocation", &fields);
        let offset = match placed {
            Placed::At(offset) => offset,
            Placed::Full(Full {
                needed,
                free,
                largest,
            }) => {
                return agreed.and(Err(WorldError::HeapFull {
                    needed,
                    free,
                    largest,
                    heap: self.heap_bytes(),
                }));
            }
            Placed::BadAlignment => return agreed.and(Err(WorldError::Alignment { align })),
        };
        let ready = agreed.and_then(|()| {
            self.heap().all_are_here();
            // SAFETY: offset + bytes lies in this rank's heap. The region was free on all ranks when they agreed on it, and is
            // given to nobody before all have zeroed theirs.
            let zeroed = unsafe { self.heap().zero(offset, bytes) };
            self.all_succeed("allocation", zeroed)
        });
        match ready {
            Ok(()) => Ok(Region {
                offset,
                len: bytes,
                identity: self.space.identity,
            }),
            Err(error) => {
                self.allocator().free(offset);
                Err(error)
            }
        }
    }

    /// Frees a region once all ranks have come to free it. Collective.
    ///
    /// The caller sees to it that no kernel of this rank is still using the region, on whatever rank's memory.
    ///
    /// # Errors
    /// [`WorldError::UnknownRegion`] where it is a region of another world, [`WorldError::Disagreement`] where ranks
    /// free different regions; those of [`World::barrier`]. Nothing is freed then.
    pub fn free(&self, region: Region) -> Result<(), WorldError> {
        let Region {
            offset, identity, ..
        } = region;
        let known = identity == self.space.identity && self.allocator().is_used(offset);
        let shown = if known {
            offset.to_string()
        } else {
            "of another world".into()
        };
        // Every rank comes here only when it is through with the region, so once all have, it can be used again.
        self.agree("free", &[("offset", shown)])?;
        if !known {
            return Err(WorldError::UnknownRegion { offset });
        }
        self.allocator().free(offset);
        Ok(())
    }

    /// The bytes of one rank's heap.
    pub fn heap_bytes(&self) -> usize {
        self.heap().bytes()
    }

    /// The device that this rank's heap lies on, as the runtime counts those that are visible; 0 on the host.
    pub fn device_ordinal(&self) -> usize {
        self.heap().device_ordinal()
    }

    /// Whether a region was allocated by this handle, or a clone of it.
    pub fn owns(&self, region: &Region) -> bool {
        region.identity == self.space.identity
    }

    /// The bytes of the heap that are not allocated.
    pub fn free_bytes(&self) -> usize {
        self.allocator().free_bytes()
    }

    /// A buffer of `len` elements in this rank's own memory, zeroed. Not collective.
    ///
    /// # Errors
    /// Where there is not so much memory: [`WorldError::OutOfMemory`] on the host,
    /// [`DeviceError::OutOfMemory`](crate::device::DeviceError::OutOfMemory) on a device.
    pub fn plain_buffer<T: Pod>(&self, len: usize) -> Result<Buffer<T, B>, WorldError> {
        Ok(Buffer::of(B::plain(self.heap(), bytes_of::<T>(len))?, len))
    }

    /// A buffer of `len` elements in the symmetric heap, zeroed, which operations of peers may write to. Collective.
    ///
    /// # Errors
    /// Those of [`World::allocate`].
    pub fn symmetric_buffer<T: Pod>(&self, len: usize) -> Result<Buffer<T, B>, WorldError> {
        let region = self.allocate(
            bytes_of::<T>(len),
            size_of::<T>().next_power_of_two().min(256),
        )?;
        Ok(Buffer::of(B::symmetric(self.heap(), region), len))
    }

    /// Frees the memory of a symmetric buffer. Collective.
    ///
    /// # Errors
    /// [`WorldError::StillShared`] on all ranks if any rank still has clones of its buffer, or kernels in flight that
    /// use it; [`WorldError::NotSymmetric`] if any gives a plain buffer, which is freed by dropping it; those of
    /// [`World::free`].
    pub fn free_buffer<T: Pod>(&self, buffer: Buffer<T, B>) -> Result<(), WorldError> {
        let region = if buffer.is_symmetric() {
            let storage = Arc::into_inner(buffer.storage).ok_or(Kept::Shared);
            storage.and_then(|storage| storage.into_region().ok_or(Kept::Plain))
        } else {
            Err(Kept::Plain)
        };
        self.free_unshared(region)
    }

    /// Frees a region that its owner gave up, unless the owner of a rank did not.
    pub(crate) fn free_unshared(&self, region: Result<Region, Kept>) -> Result<(), WorldError> {
        let mine = match &region {
            Ok(_) => 0,
            Err(Kept::Shared) => 1,
            Err(Kept::Plain) => 2u8,
        };
        let kept = self.all_gather(mine)?;
        let first = kept.iter().enumerate().find(|&(_, &kept)| kept != 0);
        match (region, first) {
            (Ok(region), None) => self.free(region),
            (_, Some((rank, 2))) => Err(WorldError::NotSymmetric { rank }),
            (_, Some((rank, _))) => Err(WorldError::StillShared { rank }),
            (Err(_), None) => Err(WorldError::StillShared { rank: self.rank() }),
        }
    }
}

impl World<Host> {
    pub(crate) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.heap().memory)
    }

    /// Where this process sees `rank`'s heap. An address on one rank translates to another by `base + offset`.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn base(&self, rank: usize) -> *mut u8 {
        self.heap().memory.base(rank)
    }

    /// A buffer of `len` elements in this rank's own memory, zeroed. Not collective.
    ///
    /// # Panics
    /// If there are more elements than memory can hold; [`World::plain_buffer`] returns an error then.
    pub fn buffer<T: Pod>(&self, len: usize) -> Buffer<T> {
        Buffer::plain(len)
    }
}

/// Why an owner of memory does not give it up.
#[derive(Debug)]
pub(crate) enum Kept {
    /// It has clones.
    Shared,
    /// It is not of the symmetric heap.
    Plain,
}

/// The bytes of `len` elements, saturated: no heap has as many.
pub(crate) fn bytes_of<T>(len: usize) -> usize {
    len.saturating_mul(size_of::<T>())
}
