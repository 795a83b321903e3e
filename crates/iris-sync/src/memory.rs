//! Where the words are: real symmetric memory, or a model's.

use crate::layout::Layout;
use crate::primitive::AtomicU64;
use crate::word::Word;

/// One rank's view of the words and cells of all ranks of a workspace.
pub trait Memory<W: Word> {
    /// The rank whose view this is.
    fn rank(&self) -> usize;
    /// The places of the words.
    fn layout(&self) -> Layout;
    /// The word at `place` in `rank`'s memory.
    fn word(&self, rank: usize, place: usize) -> &W::Atomic;
    /// The cell at `place` in `rank`'s memory.
    fn cell(&self, rank: usize, place: usize) -> &AtomicU64;
}

impl<W: Word, M: Memory<W> + ?Sized> Memory<W> for &M {
    fn rank(&self) -> usize {
        (**self).rank()
    }
    fn layout(&self) -> Layout {
        (**self).layout()
    }
    fn word(&self, rank: usize, place: usize) -> &W::Atomic {
        (**self).word(rank, place)
    }
    fn cell(&self, rank: usize, place: usize) -> &AtomicU64 {
        (**self).cell(rank, place)
    }
}

/// Words in mapped memory: cells first, then words, at one offset from every rank's base.
///
/// Not under loom, whose atomics do not have the layout of memory.
#[cfg(not(loom))]
#[derive(Debug, Clone, Copy)]
pub struct Mapped<'a, W> {
    rank: usize,
    layout: Layout,
    /// The address of each rank's cells.
    cells: &'a [*mut u8],
    word: core::marker::PhantomData<W>,
}

// SAFETY: the pointers are only ever used to make shared references to atomics, which any thread may use; that the memory
// outlives the value is promised at `Mapped::new`, for whatever thread.
#[cfg(not(loom))]
unsafe impl<W> Send for Mapped<'_, W> {}
// SAFETY: as above.
#[cfg(not(loom))]
unsafe impl<W> Sync for Mapped<'_, W> {}

#[cfg(not(loom))]
impl<'a, W: Word> Mapped<'a, W> {
    /// The bytes a workspace's cells and words take at each rank.
    pub fn bytes(layout: Layout) -> usize {
        layout.cells() * size_of::<AtomicU64>() + layout.words() * size_of::<W::Atomic>()
    }

    /// A view for `rank`; `cells[r]` is where the cells and words of rank `r` lie.
    ///
    /// # Safety
    /// For `'a`, each of the `layout.world()` pointers is aligned to 8 bytes and valid for [`Mapped::bytes`] bytes, which
    /// nobody accesses but through atomics of these types, and which were zero before the first of these accesses.
    ///
    /// # Panics
    /// If there are not as many pointers as ranks, or `rank` is not one of them.
    pub unsafe fn new(rank: usize, layout: Layout, cells: &'a [*mut u8]) -> Self {
        assert_eq!(cells.len(), layout.world(), "one pointer a rank");
        assert!(rank < cells.len(), "rank {rank} of {}", cells.len());
        Self {
            rank,
            layout,
            cells,
            word: core::marker::PhantomData,
        }
    }
}

#[cfg(not(loom))]
impl<W: Word> Memory<W> for Mapped<'_, W> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    fn word(&self, rank: usize, place: usize) -> &W::Atomic {
        assert!(place < self.layout.words());
        // SAFETY: `new` was promised `bytes` valid, aligned bytes at each rank, used through atomics only; the words follow
        // the cells, whose size is a multiple of any word's alignment, and `place` lies inside, as just checked.
        unsafe {
            &*self.cells[rank]
                .add(self.layout.cells() * size_of::<AtomicU64>())
                .cast::<W::Atomic>()
                .add(place)
        }
    }

    fn cell(&self, rank: usize, place: usize) -> &AtomicU64 {
        assert!(place < self.layout.cells());
        // SAFETY: as above; the cells come first.
        unsafe { &*self.cells[rank].cast::<AtomicU64>().add(place) }
    }
}
