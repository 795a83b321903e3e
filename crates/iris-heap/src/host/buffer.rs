//! Typed memory that kernels work on, on the host.
//!
//! Reading and writing a buffer waits for kernels in flight that use it, so that safe code cannot race with them.

use super::Host;
use super::access::AccessLock;
use super::memory::Memory;
use crate::WorldError;
use crate::allocator::MIN_ALIGN;
use crate::backend::{self, AnyBuffer, Buffer};
use crate::world::{Region, bytes_of};
use bytemuck::Pod;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

pub use super::access::Access;

/// A range that a buffer does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} elements from {at} do not lie in a buffer of {len}")]
pub struct RangeError {
    /// Where the range begins.
    pub at: usize,
    /// How many elements it has.
    pub count: usize,
    /// The buffer's length.
    pub len: usize,
}

/// A buffer's memory.
///
/// Invariant: `start` is a multiple of [`MIN_ALIGN`], and valid for reads and writes of `bytes` bytes, which are
/// initialised, for as long as this lives. Every access of this process is made while `lock` is held for it. Peers write
/// into symmetric memory only as long as this rank is in a kernel that lets them, and that kernel holds the lock.
#[derive(Debug)]
pub struct Storage {
    start: NonNull<u8>,
    bytes: usize,
    source: Source,
    lock: AccessLock,
}

#[derive(Debug)]
enum Source {
    /// The process's own memory.
    Plain(Layout),
    /// The symmetric heap, whose mapping is kept.
    Symmetric {
        region: Region,
        _memory: Arc<Memory>,
    },
}

// SAFETY: the memory belongs to no thread, and is only touched under the lock.
unsafe impl Send for Storage {}
// SAFETY: as above.
unsafe impl Sync for Storage {}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Source::Plain(layout) = self.source {
            // SAFETY: a plain storage's memory was allocated with this layout, and this is its only owner.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

impl Storage {
    /// Zeroed memory of the process's own; `None` where there is not so much.
    pub(super) fn plain(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), MIN_ALIGN).ok()?;
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self {
            start,
            bytes,
            source: Source::Plain(layout),
            lock: AccessLock::default(),
        })
    }

    /// Where `len` bytes from `at` on begin.
    fn range(&self, at: usize, len: usize) -> *mut u8 {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.bytes);
        assert!(inside, "{len} bytes from {at} do not lie in {}", self.bytes);
        self.start.as_ptr().wrapping_add(at)
    }

    /// The memory of a region that begins at `start` in this process and lies in `memory`. Heaps begin at pages, and regions
    /// at multiples of [`MIN_ALIGN`] in them.
    pub(super) fn symmetric(start: *mut u8, region: Region, memory: Arc<Memory>) -> Self {
        Self {
            start: NonNull::new(start).expect("a heap is not mapped at address 0"),
            bytes: region.len(),
            source: Source::Symmetric {
                region,
                _memory: memory,
            },
            lock: AccessLock::default(),
        }
    }
}

impl backend::Storage for Storage {
    fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn region(&self) -> Option<&Region> {
        match &self.source {
            Source::Plain(_) => None,
            Source::Symmetric { region, .. } => Some(region),
        }
    }

    fn into_region(mut self) -> Option<Region> {
        let none = Source::Plain(Layout::new::<()>());
        match std::mem::replace(&mut self.source, none) {
            Source::Symmetric { region, .. } => {
                std::mem::forget(self); // its new source is not to be given back
                Some(region)
            }
            plain @ Source::Plain(_) => {
                self.source = plain;
                None
            }
        }
    }

    fn device(&self) -> usize {
        0
    }

    fn upload(&self, at: usize, from: &[u8]) -> Result<(), WorldError> {
        let to = self.range(at, from.len());
        self.lock.with(Access::Write, || {
            // SAFETY: the range lies in the memory, which is valid; bytes need no alignment; the lock keeps all others out of
            // it. `from` is safe code's own and so never this memory, which no reference is ever given to.
            unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        });
        Ok(())
    }

    fn download(&self, at: usize, to: &mut [u8]) -> Result<(), WorldError> {
        let from = self.range(at, to.len());
        self.lock.with(Access::Read, || {
            // SAFETY: as in `upload`; the memory is initialised, and the lock keeps writers out of it.
            unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        });
        Ok(())
    }
}

impl<T: Pod> Buffer<T> {
    /// # Panics
    /// If there are more elements than memory can hold.
    pub(crate) fn plain(len: usize) -> Self {
        let Some(storage) = Storage::plain(bytes_of::<T>(len)) else {
            panic!(
                "memory cannot hold {len} elements of {} bytes",
                size_of::<T>()
            )
        };
        Self::of(storage, len)
    }

    /// Its first element. Whoever uses the pointer sees to it that nobody else is using the memory.
    pub fn as_ptr(&self) -> *mut T {
        self.storage.start.as_ptr().cast()
    }

    /// A copy of all elements.
    pub fn read(&self) -> Vec<T> {
        let mut to = vec![T::zeroed(); self.len()];
        self.copy_out(0, &mut to);
        to
    }

    /// Copies the elements from `at` on.
    ///
    /// # Errors
    /// Where the buffer does not have that many.
    pub fn read_into(&self, at: usize, to: &mut [T]) -> Result<(), RangeError> {
        self.range(at, to.len())?;
        self.copy_out(at, to);
        Ok(())
    }

    /// Replaces the elements from `at` on.
    ///
    /// # Errors
    /// Where the buffer does not have that many.
    pub fn write(&self, at: usize, from: &[T]) -> Result<(), RangeError> {
        self.range(at, from.len())?;
        self.storage.lock.with(Access::Write, || {
            // SAFETY: the range lies in the buffer, whose memory is valid and, as [`Buffer::of`] sees to, aligned to its
            // elements; the lock keeps all others out of it. `from` is safe code's own and so never this memory, which no
            // reference is ever given to.
            unsafe {
                self.as_ptr()
                    .add(at)
                    .copy_from_nonoverlapping(from.as_ptr(), from.len())
            };
        });
        Ok(())
    }

    /// Sets all elements.
    pub fn fill(&self, value: T) {
        self.storage.lock.with(Access::Write, || {
            for i in 0..self.len() {
                // SAFETY: as in `write`.
                unsafe { self.as_ptr().add(i).write(value) };
            }
        });
    }

    fn copy_out(&self, at: usize, to: &mut [T]) {
        self.storage.lock.with(Access::Read, || {
            // SAFETY: callers have checked that the range lies in the buffer, whose memory is valid, initialised and, as in
            // `write`, aligned, and any bits are a `T`; the lock keeps writers out of it. `to` is never this memory, as in
            // `write`.
            unsafe {
                self.as_ptr()
                    .add(at)
                    .copy_to_nonoverlapping(to.as_mut_ptr(), to.len())
            };
        });
    }

    fn range(&self, at: usize, count: usize) -> Result<Range<usize>, RangeError> {
        let len = self.len();
        match at.checked_add(count) {
            Some(end) if end <= len => Ok(at..end),
            _ => Err(RangeError { at, count, len }),
        }
    }
}

impl AnyBuffer<Host> {
    /// Where its memory begins. Valid for as long as this lives; a kernel may use it as its arguments' [`Access`] says.
    pub fn ptr(&self) -> *mut u8 {
        self.storage.start.as_ptr()
    }

    pub(super) fn lock(&self) -> &AccessLock {
        &self.storage.lock
    }

    /// What tells two memories apart, and puts locks in order.
    pub(super) fn key(&self) -> usize {
        Arc::as_ptr(&self.storage).addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let buffer = Buffer::<u16>::plain(5);
        assert_eq!(buffer.read(), [0; 5]);
        buffer.fill(9);
        buffer.write(3, &[1, 2]).unwrap();
        let mut tail = [0; 3];
        buffer.clone().read_into(2, &mut tail).unwrap();
        assert_eq!(tail, [9, 1, 2]);
        assert_eq!(buffer.as_ptr().align_offset(MIN_ALIGN), 0);
        assert!(!buffer.is_symmetric());
    }

    #[test]
    fn ranges_beyond_the_end_are_errors() {
        let buffer = Buffer::<u32>::plain(4);
        let beyond = RangeError {
            at: 3,
            count: 2,
            len: 4,
        };
        assert_eq!(buffer.write(3, &[0; 2]), Err(beyond));
        assert!(buffer.read_into(usize::MAX, &mut [0; 2]).is_err());
        assert_eq!(buffer.write(4, &[]), Ok(()));
    }

    #[test]
    fn a_buffer_may_be_empty() {
        let buffer = Buffer::<f32>::plain(0);
        assert!(buffer.is_empty() && buffer.read().is_empty());
        buffer.fill(1.0);
    }
}
