//! The memory of all ranks' heaps: one sealed memfd, mapped whole into every process of the world.

use crate::WorldError;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// What keeps the mapping from being cut off under anyone's feet: a file that could shrink would turn a valid pointer
/// into a bus error.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// The heaps of all ranks, side by side: rank `r`'s begins at `r * heap_bytes`.
///
/// Invariant: `base..base + ranks * heap_bytes` is mapped readable and writable, shared, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    ranks: usize,
    heap_bytes: usize,
    file: OwnedFd,
}

// SAFETY: the mapping belongs to no thread, and this type itself never reads or writes through it.
unsafe impl Send for Memory {}
// SAFETY: as above; all methods only compute addresses.
unsafe impl Sync for Memory {}

/// `bytes` rounded up to a whole number of pages, at least one.
pub(crate) fn whole_pages(bytes: usize) -> Option<usize> {
    bytes
        .max(1)
        .checked_next_multiple_of(rustix::param::page_size())
}

impl Memory {
    /// New memory for `ranks` heaps of `heap_bytes` bytes, which is a whole number of pages.
    pub(crate) fn create(ranks: usize, heap_bytes: usize) -> Result<Self, WorldError> {
        let total = total(ranks, heap_bytes)?;
        let file =
            rustix::fs::memfd_create("iris-heap", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .map_err(WorldError::os("creating the heap's memory"))?;
        rustix::fs::ftruncate(&file, total as u64)
            .map_err(WorldError::os("sizing the heap's memory"))?;
        rustix::fs::fcntl_add_seals(&file, SEALS)
            .map_err(WorldError::os("sealing the heap's memory"))?;
        Self::map(file, ranks, heap_bytes)
    }

    /// Maps memory that another process created, once it is known to be what [`Memory::create`] makes: sealed against
    /// shrinking and of the right size.
    pub(crate) fn open(file: OwnedFd, ranks: usize, heap_bytes: usize) -> Result<Self, WorldError> {
        let total = total(ranks, heap_bytes)?;
        let seals = rustix::fs::fcntl_get_seals(&file)
            .map_err(WorldError::os("reading the seals of the heap's memory"))?;
        let stat = rustix::fs::fstat(&file)
            .map_err(WorldError::os("reading the size of the heap's memory"))?;
        if !seals.contains(SEALS) || u64::try_from(stat.st_size) != Ok(total as u64) {
            return Err(WorldError::Protocol {
                detail: format!(
                    "the memory it passed has {} bytes and seals {seals:?}, not {total} and {SEALS:?}",
                    stat.st_size
                ),
            });
        }
        Self::map(file, ranks, heap_bytes)
    }

    fn map(file: OwnedFd, ranks: usize, heap_bytes: usize) -> Result<Self, WorldError> {
        let total = total(ranks, heap_bytes)?;
        // SAFETY: the address is the kernel's choice, so no existing mapping is replaced.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                total,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &file,
                0,
            )
        }
        .map_err(WorldError::os("mapping the heap's memory"))?;
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| WorldError::Protocol {
            detail: "the heap was mapped at address 0".into(),
        })?;
        Ok(Self {
            base,
            ranks,
            heap_bytes,
            file,
        })
    }

    /// Where `rank`'s heap begins in this process.
    ///
    /// # Panics
    /// If there is no such rank.
    pub(crate) fn base(&self, rank: usize) -> *mut u8 {
        assert!(
            rank < self.ranks,
            "rank {rank} does not exist in a world of {}",
            self.ranks
        );
        self.base.as_ptr().wrapping_add(rank * self.heap_bytes)
    }

    /// The bytes of one rank's heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    /// The file, to be passed to another process.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: by the invariant this is exactly the mapping made in `map`; whoever holds a pointer into it holds an
        // `Arc` of this, or has promised to in an unsafe block.
        let _ =
            unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.ranks * self.heap_bytes) };
    }
}

fn total(ranks: usize, heap_bytes: usize) -> Result<usize, WorldError> {
    ranks
        .checked_mul(heap_bytes)
        .filter(|&total| isize::try_from(total).is_ok())
        .ok_or(WorldError::HeapTooLarge {
            size: ranks,
            heap_bytes,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heaps_lie_side_by_side_and_are_shared_by_all_mappings() {
        let page = whole_pages(1).unwrap();
        let memory = Memory::create(3, page).unwrap();
        let again = Memory::open(memory.file().try_clone_to_owned().unwrap(), 3, page).unwrap();
        assert_eq!(memory.base(2) as usize - memory.base(0) as usize, 2 * page);
        // SAFETY: both addresses lie in live mappings, and no other thread touches them.
        unsafe {
            memory.base(2).write(7);
            assert_eq!(again.base(2).read(), 7);
        }
    }

    #[test]
    fn memory_that_could_shrink_is_refused() {
        let file = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        let page = whole_pages(1).unwrap();
        rustix::fs::ftruncate(&file, page as u64).unwrap();
        let error = Memory::open(file, 1, page).unwrap_err();
        assert!(matches!(error, WorldError::Protocol { .. }), "{error}");
    }

    #[test]
    fn memory_of_another_size_is_refused() {
        let page = whole_pages(1).unwrap();
        let memory = Memory::create(1, page).unwrap();
        let file = memory.file().try_clone_to_owned().unwrap();
        let error = Memory::open(file, 2, page).unwrap_err();
        assert!(matches!(error, WorldError::Protocol { .. }), "{error}");
    }

    #[test]
    fn heaps_beyond_the_address_space_are_an_error() {
        let error = Memory::create(256, usize::MAX / 4).unwrap_err();
        assert!(matches!(error, WorldError::HeapTooLarge { .. }), "{error}");
    }
}
