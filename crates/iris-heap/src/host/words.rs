//! Memory that several ranks may touch at once, by atomics only.
//!
//! Everything here is made of accesses of one size per element type: atomics of different sizes on the same bytes, at
//! the same time, would be undefined. An element is touched as a whole if it has the size of a word, and word by word
//! otherwise.

use bytemuck::{NoUninit, Pod};
use std::sync::atomic::{
    AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering,
};

/// Copies `to.len()` elements out of shared memory, word by word, relaxed.
///
/// # Safety
/// `from` is valid for as many elements, for atomic access, and aligned to 8 bytes; all accesses to that memory at the
/// same time are atomic and of the size that this function uses for `T`.
pub(super) unsafe fn load<T: Pod>(from: *const u8, to: &mut [T]) {
    macro_rules! copy {
        ($int:ty, $atomic:ty) => {
            for (i, bytes) in bytemuck::cast_slice_mut::<T, u8>(to)
                .chunks_exact_mut(size_of::<$int>())
                .enumerate()
            {
                // SAFETY: the chunks cover `to`, so the caller vouches for this word; its alignment follows from that of
                // `from`, since its size divides 8.
                let word = unsafe { &*from.cast::<$atomic>().add(i) };
                bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            }
        };
    }
    match word_size::<T>() {
        8 => copy!(u64, AtomicU64),
        4 => copy!(u32, AtomicU32),
        2 => copy!(u16, AtomicU16),
        _ => copy!(u8, AtomicU8),
    }
}

/// Copies elements into shared memory, word by word, relaxed.
///
/// # Safety
/// As for [`load`], with `to` in the place of `from`.
pub(super) unsafe fn store<T: Pod>(to: *mut u8, from: &[T]) {
    macro_rules! copy {
        ($int:ty, $atomic:ty) => {
            for (i, bytes) in bytemuck::cast_slice::<T, u8>(from)
                .chunks_exact(size_of::<$int>())
                .enumerate()
            {
                let mut word = [0; size_of::<$int>()];
                word.copy_from_slice(bytes);
                // SAFETY: as in `load`.
                let at = unsafe { &*to.cast::<$atomic>().add(i) };
                at.store(<$int>::from_ne_bytes(word), Ordering::Relaxed);
            }
        };
    }
    match word_size::<T>() {
        8 => copy!(u64, AtomicU64),
        4 => copy!(u32, AtomicU32),
        2 => copy!(u16, AtomicU16),
        _ => copy!(u8, AtomicU8),
    }
}

/// The size of the words that elements of type `T` are touched by: the largest that they are a whole number of.
const fn word_size<T>() -> usize {
    let size = size_of::<T>();
    if size == 0 {
        return 1;
    }
    let power = 1 << size.trailing_zeros();
    if power < 8 { power } else { 8 }
}

mod sealed {
    pub trait Sealed {}
}

/// An element that can be loaded, stored and exchanged as a whole by any rank: `i32`, `u32`, `i64`, `u64`, `f32`, `f64`.
pub trait AtomicElement: Pod + sealed::Sealed {
    /// The atomic of its size.
    #[doc(hidden)]
    type Atomic;
    #[doc(hidden)]
    fn load(atomic: &Self::Atomic, order: Ordering) -> Self;
    #[doc(hidden)]
    fn store(atomic: &Self::Atomic, value: Self, order: Ordering);
    #[doc(hidden)]
    fn exchange(atomic: &Self::Atomic, value: Self, order: Ordering) -> Self;
    #[doc(hidden)]
    fn fetch_add(atomic: &Self::Atomic, value: Self, order: Ordering) -> Self;
}

/// An [`AtomicElement`] that is an integer.
pub trait AtomicInteger: AtomicElement {
    #[doc(hidden)]
    fn compare_exchange(
        atomic: &Self::Atomic,
        old: Self,
        new: Self,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Self, Self>;
    #[doc(hidden)]
    fn fetch(atomic: &Self::Atomic, operation: Fetch, value: Self, order: Ordering) -> Self;
}

/// What a read-modify-write does.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    Sub,
    And,
    Or,
    Xor,
    Min,
    Max,
}

macro_rules! integers {
    ($($int:ty, $atomic:ty);*) => {$(
        impl sealed::Sealed for $int {}
        impl AtomicElement for $int {
            type Atomic = $atomic;
            fn load(atomic: &$atomic, order: Ordering) -> Self { atomic.load(order) }
            fn store(atomic: &$atomic, value: Self, order: Ordering) { atomic.store(value, order) }
            fn exchange(atomic: &$atomic, value: Self, order: Ordering) -> Self { atomic.swap(value, order) }
            fn fetch_add(atomic: &$atomic, value: Self, order: Ordering) -> Self { atomic.fetch_add(value, order) }
        }
        impl AtomicInteger for $int {
            fn compare_exchange(atomic: &$atomic, old: Self, new: Self, success: Ordering, failure: Ordering) -> Result<Self, Self> {
                atomic.compare_exchange(old, new, success, failure)
            }
            fn fetch(atomic: &$atomic, operation: Fetch, value: Self, order: Ordering) -> Self {
                match operation {
                    Fetch::Sub => atomic.fetch_sub(value, order),
                    Fetch::And => atomic.fetch_and(value, order),
                    Fetch::Or => atomic.fetch_or(value, order),
                    Fetch::Xor => atomic.fetch_xor(value, order),
                    Fetch::Min => atomic.fetch_min(value, order),
                    Fetch::Max => atomic.fetch_max(value, order),
                }
            }
        }
    )*};
}
integers!(i32, AtomicI32; u32, AtomicU32; i64, AtomicI64; u64, AtomicU64);

macro_rules! floats {
    ($($float:ty, $atomic:ty);*) => {$(
        impl sealed::Sealed for $float {}
        impl AtomicElement for $float {
            type Atomic = $atomic;
            fn load(atomic: &$atomic, order: Ordering) -> Self { Self::from_bits(atomic.load(order)) }
            fn store(atomic: &$atomic, value: Self, order: Ordering) { atomic.store(value.to_bits(), order) }
            fn exchange(atomic: &$atomic, value: Self, order: Ordering) -> Self {
                Self::from_bits(atomic.swap(value.to_bits(), order))
            }
            fn fetch_add(atomic: &$atomic, value: Self, order: Ordering) -> Self {
                let mut old = atomic.load(Ordering::Relaxed);
                loop {
                    let new = (Self::from_bits(old) + value).to_bits();
                    match atomic.compare_exchange_weak(old, new, order, Ordering::Relaxed) {
                        Ok(old) => return Self::from_bits(old),
                        Err(seen) => old = seen,
                    }
                }
            }
        }
    )*};
}
floats!(f32, AtomicU32; f64, AtomicU64);

/// The atomic at `at`.
///
/// # Safety
/// `at` is valid for as long as `'a`, aligned to the size of `T`, and only accessed by atomics of that size.
pub(super) unsafe fn atomic<'a, T: AtomicElement + NoUninit>(at: *mut u8) -> &'a T::Atomic {
    // SAFETY: all implementations of the sealed trait name an atomic of the element's size, whose alignment is its size.
    unsafe { &*at.cast::<T::Atomic>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_touched_by_the_largest_words_they_are_made_of() {
        assert_eq!(word_size::<f64>(), 8);
        assert_eq!(word_size::<[u8; 12]>(), 4);
        assert_eq!(word_size::<[u16; 3]>(), 2);
        assert_eq!(word_size::<[u8; 7]>(), 1);
        assert_eq!(word_size::<[u64; 3]>(), 8);
        assert_eq!(word_size::<()>(), 1);
    }

    fn round_trip<T: Pod + PartialEq + std::fmt::Debug>(values: &[T]) {
        let mut memory = [0u64; 32];
        let mut back = vec![T::zeroed(); values.len()];
        let at = memory.as_mut_ptr().cast::<u8>();
        // SAFETY: the memory is larger than any list below, aligned, and this thread's own.
        unsafe {
            store(at, values);
            load(at, &mut back);
        }
        assert_eq!(values, back);
        assert_eq!(
            &bytemuck::cast_slice::<u64, u8>(&memory)[..size_of_val(values)],
            bytemuck::cast_slice::<T, u8>(values)
        );
    }

    #[test]
    fn copies_keep_every_byte() {
        round_trip(&[1u8, 2, 3]);
        round_trip(&[[1u8; 3], [2; 3], [3; 3]]);
        round_trip(&[-1i16, 2, 3]);
        round_trip(&[1.5f32, f32::MIN]);
        round_trip(&[[1u32, 2, 3], [4, 5, 6]]);
        round_trip(&[u64::MAX, 1]);
        round_trip::<u64>(&[]);
    }
}
