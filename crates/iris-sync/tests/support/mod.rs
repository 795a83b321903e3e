//! Words of several ranks in this process's memory, as operations find them in symmetric memory.

use iris_sync::{Layout, Mapped, Word};
use std::marker::PhantomData;
use std::ptr::slice_from_raw_parts_mut;

/// Zeroed cells and words of all ranks of a layout.
pub(crate) struct Words<W> {
    layout: Layout,
    /// Each rank's allocation of `len` integers of 8 bytes.
    ranks: Vec<*mut u8>,
    len: usize,
    word: PhantomData<W>,
}

// SAFETY: the pointers are used for nothing but `Mapped` views, which any thread may use, and to free the memory.
unsafe impl<W> Send for Words<W> {}
// SAFETY: as above.
unsafe impl<W> Sync for Words<W> {}

impl<W: Word> Words<W> {
    pub(crate) fn new(layout: Layout) -> Self {
        let len = Mapped::<W>::bytes(layout).div_ceil(8);
        let ranks = (0..layout.world())
            .map(|_| Box::into_raw(vec![0_u64; len].into_boxed_slice()).cast())
            .collect();
        Self {
            layout,
            ranks,
            len,
            word: PhantomData,
        }
    }

    /// What `rank` sees of them.
    pub(crate) fn view(&self, rank: usize) -> Mapped<'_, W> {
        // SAFETY: `new` allocated as many zeroed bytes a rank as a view takes, aligned to 8, which live as long as `self`
        // and are used through views of this word only.
        unsafe { Mapped::new(rank, self.layout, &self.ranks) }
    }
}

impl<W> Drop for Words<W> {
    fn drop(&mut self) {
        for &rank in &self.ranks {
            // SAFETY: a boxed slice of `len` integers that `new` leaked; every view borrowed `self`.
            drop(unsafe { Box::from_raw(slice_from_raw_parts_mut(rank.cast::<u64>(), self.len)) });
        }
    }
}
