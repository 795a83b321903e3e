//! Which offsets of the symmetric heap are in use.
//!
//! Every rank runs its own copy and is given the same requests in the same order, so all copies are in the same state:
//! nothing in here may depend on anything but those requests.

use std::collections::BTreeMap;

/// The least alignment: two cache lines, or one of a GPU's, so that no two regions share one.
pub(crate) const MIN_ALIGN: usize = 256;
/// The largest alignment: that of a heap's base on every machine.
pub(crate) const MAX_ALIGN: usize = 4096;

/// A first-fit allocator of offsets.
///
/// Invariant: the pieces of `free` and of `used` are disjoint, cover the heap together, begin and end at multiples of
/// [`MIN_ALIGN`], and no two free pieces touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allocator {
    size: usize,
    /// Length of each free piece by its offset.
    free: BTreeMap<usize, usize>,
    /// Length of each piece in use by its offset.
    used: BTreeMap<usize, usize>,
}

/// A request that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) needed: usize,
    pub(crate) free: usize,
    pub(crate) largest: usize,
}

impl Allocator {
    pub(crate) fn new(size: usize) -> Self {
        let size = size - size % MIN_ALIGN;
        Self {
            size,
            free: BTreeMap::from_iter((size > 0).then_some((0, size))),
            used: BTreeMap::new(),
        }
    }

    /// The lowest offset with room for `bytes` bytes at a multiple of `align`, a power of two.
    ///
    /// A request of no bytes takes [`MIN_ALIGN`] of them, so that every region in use has an offset of its own.
    pub(crate) fn allocate(&mut self, bytes: usize, align: usize) -> Result<usize, Full> {
        debug_assert!(align.is_power_of_two());
        let align = align.max(MIN_ALIGN);
        let Some(bytes) = bytes.max(1).checked_next_multiple_of(MIN_ALIGN) else {
            return Err(self.full(usize::MAX));
        };
        let fit = self.free.iter().find_map(|(&at, &len)| {
            let start = at.next_multiple_of(align);
            let skipped = start - at;
            (skipped < len && bytes <= len - skipped).then_some((at, len, start))
        });
        let Some((at, len, start)) = fit else {
            return Err(self.full(bytes));
        };
        self.free.remove(&at);
        if start > at {
            self.free.insert(at, start - at);
        }
        let end = start + bytes;
        if at + len > end {
            self.free.insert(end, at + len - end);
        }
        self.used.insert(start, bytes);
        Ok(start)
    }

    /// Gives back what lies at `offset`; false where nothing in use begins there.
    pub(crate) fn free(&mut self, offset: usize) -> bool {
        let Some(mut len) = self.used.remove(&offset) else {
            return false;
        };
        let mut at = offset;
        if let Some(after) = self.free.remove(&(at + len)) {
            len += after;
        }
        if let Some((&before, &before_len)) = self.free.range(..at).next_back()
            && before + before_len == at
        {
            self.free.remove(&before);
            at = before;
            len += before_len;
        }
        self.free.insert(at, len);
        true
    }

    /// Whether something in use begins at `offset`.
    pub(crate) fn is_used(&self, offset: usize) -> bool {
        self.used.contains_key(&offset)
    }

    /// The bytes free.
    pub(crate) fn free_bytes(&self) -> usize {
        self.free.values().sum()
    }

    fn full(&self, needed: usize) -> Full {
        Full {
            needed,
            free: self.free_bytes(),
            largest: self.free.values().copied().max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn freed_neighbours_become_one_piece() {
        let mut allocator = Allocator::new(1024);
        let a = allocator.allocate(256, 1).unwrap();
        let b = allocator.allocate(200, 1).unwrap();
        let c = allocator.allocate(512, 1).unwrap();
        assert_eq!((a, b, c), (0, 256, 512));
        assert_eq!(
            allocator.allocate(1, 1),
            Err(Full {
                needed: 256,
                free: 0,
                largest: 0
            })
        );
        assert!(allocator.free(a) && allocator.free(c) && allocator.free(b));
        assert_eq!(allocator, Allocator::new(1024));
        assert!(!allocator.free(b), "freed twice");
    }

    #[test]
    fn requests_beyond_all_bounds_are_full_and_change_nothing() {
        let mut allocator = Allocator::new(4096);
        for bytes in [4097, usize::MAX / 2, usize::MAX - 1, usize::MAX] {
            let full = allocator.allocate(bytes, 4096).unwrap_err();
            assert!(full.needed >= bytes && full.largest == 4096);
        }
        assert_eq!(allocator, Allocator::new(4096));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate(usize, u32),
        Free(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0usize..6000, 0u32..=12).prop_map(|(bytes, log)| Step::Allocate(bytes, log)),
            2 => (0usize..64).prop_map(Step::Free),
        ];
        proptest::collection::vec(step, 1..120)
    }

    proptest! {
        /// Regions never overlap, are aligned, lie in the heap, and two copies given the same steps agree.
        #[test]
        fn regions_are_disjoint_and_copies_agree(steps in steps()) {
            const SIZE: usize = 64 * 1024;
            let mut one = Allocator::new(SIZE);
            let mut two = Allocator::new(SIZE);
            let mut live: Vec<(usize, usize)> = Vec::new();
            for step in steps {
                match step {
                    Step::Allocate(bytes, log) => {
                        let align = 1 << log;
                        let got = one.allocate(bytes, align);
                        prop_assert_eq!(got, two.allocate(bytes, align));
                        match got {
                            Ok(at) => {
                                prop_assert_eq!(at % align.max(MIN_ALIGN), 0);
                                prop_assert!(at + bytes <= SIZE);
                                for &(other, len) in &live {
                                    prop_assert!(at != other);
                                    prop_assert!(at + bytes <= other || other + len <= at);
                                }
                                live.push((at, bytes));
                            }
                            Err(full) => {
                                // First fit fails only where no free piece holds the request at its alignment.
                                prop_assert!(full.largest < full.needed + align.max(MIN_ALIGN) - MIN_ALIGN);
                                prop_assert_eq!(full.free, one.free_bytes());
                            }
                        }
                    }
                    Step::Free(n) if !live.is_empty() => {
                        let (at, _) = live.swap_remove(n % live.len());
                        prop_assert!(one.free(at) && two.free(at));
                    }
                    Step::Free(_) => {}
                }
            }
            for (at, _) in live {
                prop_assert!(one.free(at));
            }
            prop_assert_eq!(one, Allocator::new(SIZE));
        }
    }
}
