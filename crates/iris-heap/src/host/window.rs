//! One-sided access to symmetric memory from the host.

use super::memory::Memory;
use super::words::{self, AtomicElement, AtomicInteger, Fetch};
use crate::error::WorldError;
use crate::world::{Kept, Region, World, bytes_of};
use bytemuck::Pod;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a one-sided access asked for and could not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RmaError {
    /// A rank that the world does not have.
    #[error("rank {peer} does not exist in a world of {size}")]
    NoSuchRank {
        /// The rank asked for.
        peer: usize,
        /// The world's ranks.
        size: usize,
    },
    /// A range that the window does not have.
    #[error("{count} elements from {at} on rank {peer} do not lie in a window of {len}")]
    Range {
        /// The rank accessed.
        peer: usize,
        /// Where the range begins.
        at: usize,
        /// How many elements it has.
        count: usize,
        /// The window's length.
        len: usize,
    },
    /// A memory order that the access cannot have: a load that releases, or a store that acquires.
    #[error("a {access} cannot be {order:?}")]
    Order {
        /// The access.
        access: &'static str,
        /// The order asked for.
        order: Ordering,
    },
}

/// `len` elements of symmetric memory on each rank, which every rank may read and write at any time.
///
/// All accesses are atomic: copies word by word and relaxed, the others whole and of the order asked for. So no access
/// is a data race, but a copy that meets another rank's may be torn between words. A relaxed copy is made visible by a
/// later store with `Release` that the reader loads with `Acquire`, or by a barrier.
///
/// Operations take no windows: their memory is accessed by kernels, which are not atomic. Dropping a window frees
/// nothing; [`World::free_window`] does, on all ranks together.
#[derive(Debug)]
pub struct Window<T> {
    shared: Arc<Shared>,
    len: usize,
    rank: usize,
    element: PhantomData<fn() -> T>,
}

/// Invariant: the region has a window's length of elements on each of `size` ranks, and nobody but windows of the same
/// element type accesses it.
#[derive(Debug)]
struct Shared {
    region: Region,
    memory: Arc<Memory>,
    size: usize,
}

impl<T> Clone for Window<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            len: self.len,
            rank: self.rank,
            element: PhantomData,
        }
    }
}

impl World {
    /// A window of `len` elements on each rank, zeroed. Collective; all ranks must name the same type.
    ///
    /// # Errors
    /// Those of [`World::allocate`].
    pub fn window<T: Pod>(&self, len: usize) -> Result<Window<T>, WorldError> {
        // The size of an element decides what atomics it is accessed by, so ranks must agree on it as well.
        let element = std::any::type_name::<T>().to_owned();
        self.agree("window", &[("element", element), ("len", len.to_string())])?;
        let region = self.allocate(bytes_of::<T>(len), 1)?;
        Ok(Window {
            shared: Arc::new(Shared {
                region,
                memory: self.memory(),
                size: self.size(),
            }),
            len,
            rank: self.rank(),
            element: PhantomData,
        })
    }

    /// Frees the memory of a window. Collective.
    ///
    /// # Errors
    /// [`WorldError::StillShared`] on all ranks if any rank still has clones; those of [`World::free`].
    pub fn free_window<T: Pod>(&self, window: Window<T>) -> Result<(), WorldError> {
        let shared = Arc::into_inner(window.shared).ok_or(Kept::Shared);
        self.free_unshared(shared.map(|shared| shared.region))
    }
}

impl<T: Pod> Window<T> {
    /// The number of elements on each rank.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rank whose handle this is.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Copies `peer`'s elements from `at` on.
    ///
    /// # Errors
    /// Where `peer` does not have that many.
    pub fn get(&self, peer: usize, at: usize, to: &mut [T]) -> Result<(), RmaError> {
        let from = self.locate(peer, at, to.len())?;
        // SAFETY: the range lies in the window on `peer`, which is mapped and only accessed by these functions. Every
        // element begins at a multiple of its size from the region, which is aligned to 256 bytes, and where its words
        // are of n bytes, n divides its size.
        unsafe { words::load(from, to) };
        Ok(())
    }

    /// Replaces `peer`'s elements from `at` on.
    ///
    /// # Errors
    /// Where `peer` does not have that many.
    pub fn put(&self, peer: usize, at: usize, from: &[T]) -> Result<(), RmaError> {
        let to = self.locate(peer, at, from.len())?;
        // SAFETY: as in `get`.
        unsafe { words::store(to, from) };
        Ok(())
    }

    /// Where `count` elements of `peer` from `at` on lie in this process.
    fn locate(&self, peer: usize, at: usize, count: usize) -> Result<*mut u8, RmaError> {
        let size = self.shared.size;
        if peer >= size {
            return Err(RmaError::NoSuchRank { peer, size });
        }
        let len = self.len;
        if at.checked_add(count).is_none_or(|end| end > len) {
            return Err(RmaError::Range {
                peer,
                at,
                count,
                len,
            });
        }
        // at <= len, and a region of len elements was allocated, so nothing overflows.
        let offset = self.shared.region.offset() + at * size_of::<T>();
        Ok(self.shared.memory.base(peer).wrapping_add(offset))
    }
}

impl<T: AtomicElement> Window<T> {
    fn atomic(&self, peer: usize, at: usize) -> Result<&T::Atomic, RmaError> {
        let at = self.locate(peer, at, 1)?;
        // SAFETY: the element lies in the window on `peer`, which stays mapped for as long as this handle, and is only
        // accessed by atomics of its size; it begins at a multiple of its size, as in `get`.
        Ok(unsafe { words::atomic::<T>(at) })
    }

    /// `peer`'s element `at`.
    ///
    /// # Errors
    /// Where there is none, and where `order` releases.
    pub fn load(&self, peer: usize, at: usize, order: Ordering) -> Result<T, RmaError> {
        let atomic = self.atomic(peer, at)?;
        loading("load", order)?;
        Ok(T::load(atomic, order))
    }

    /// Replaces `peer`'s element `at`.
    ///
    /// # Errors
    /// Where there is none, and where `order` acquires.
    pub fn store(&self, peer: usize, at: usize, value: T, order: Ordering) -> Result<(), RmaError> {
        let atomic = self.atomic(peer, at)?;
        match order {
            Ordering::Acquire | Ordering::AcqRel => {
                let access = "store";
                return Err(RmaError::Order { access, order });
            }
            _ => T::store(atomic, value, order),
        }
        Ok(())
    }

    /// Replaces `peer`'s element `at`; returns what it was.
    ///
    /// # Errors
    /// Where there is none.
    pub fn exchange(
        &self,
        peer: usize,
        at: usize,
        value: T,
        order: Ordering,
    ) -> Result<T, RmaError> {
        Ok(T::exchange(self.atomic(peer, at)?, value, order))
    }

    /// Adds to `peer`'s element `at`, wrapping around where it is an integer; returns what it was.
    ///
    /// # Errors
    /// Where there is none.
    pub fn fetch_add(
        &self,
        peer: usize,
        at: usize,
        value: T,
        order: Ordering,
    ) -> Result<T, RmaError> {
        Ok(T::fetch_add(self.atomic(peer, at)?, value, order))
    }
}

macro_rules! fetch {
    ($($name:ident $operation:ident $doc:literal),*) => {$(
        #[doc = $doc]
        ///
        /// # Errors
        /// Where there is none.
        pub fn $name(&self, peer: usize, at: usize, value: T, order: Ordering) -> Result<T, RmaError> {
            Ok(T::fetch(self.atomic(peer, at)?, Fetch::$operation, value, order))
        }
    )*};
}

impl<T: AtomicInteger> Window<T> {
    /// Replaces `peer`'s element `at` by `new` if it is `old`. Returns what it was: as `Ok` if it was replaced.
    ///
    /// # Errors
    /// Where there is none, and where `failure` releases.
    pub fn compare_exchange(
        &self,
        peer: usize,
        at: usize,
        old: T,
        new: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Result<T, T>, RmaError> {
        let atomic = self.atomic(peer, at)?;
        loading("failed compare_exchange", failure)?;
        Ok(T::compare_exchange(atomic, old, new, success, failure))
    }

    fetch! {
        fetch_sub Sub "Subtracts from `peer`'s element `at`, wrapping around; returns what it was.",
        fetch_and And "Ands `peer`'s element `at`, bit by bit; returns what it was.",
        fetch_or Or "Ors `peer`'s element `at`, bit by bit; returns what it was.",
        fetch_xor Xor "Exclusive-ors `peer`'s element `at`, bit by bit; returns what it was.",
        fetch_min Min "Replaces `peer`'s element `at` by the smaller of it and `value`; returns what it was.",
        fetch_max Max "Replaces `peer`'s element `at` by the larger of it and `value`; returns what it was."
    }
}

fn loading(access: &'static str, order: Ordering) -> Result<(), RmaError> {
    match order {
        Ordering::Release | Ordering::AcqRel => Err(RmaError::Order { access, order }),
        _ => Ok(()),
    }
}
