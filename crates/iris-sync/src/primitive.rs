//! The atomics and hints everything else in this crate is written with, and the only place that names where they come from.
//!
//! * By default they are those of `core`, so a word in shared memory is used through a reference to a `core` atomic.
//! * Under `--cfg loom` they are loom's, which explore every ordering the memory model allows. They do not have the layout
//!   of real memory, so loom models keep their words in a `Vec`.
//! * Under `--cfg shuttle` they are wrappers with the layout of `core`'s atomics that put a scheduling point before each
//!   access. Shuttle explores sequentially consistent interleavings only, so that is all its own atomics do; with the
//!   layout kept, the operations' real code runs on real memory under it.

pub use core::sync::atomic::Ordering;

#[cfg(not(any(loom, shuttle)))]
mod imp {
    pub use core::hint::spin_loop;
    pub use core::sync::atomic::{
        AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU32, AtomicU64, fence,
    };

    /// Lets another thread run, where there is a scheduler to ask.
    pub fn yield_now() {
        #[cfg(feature = "std")]
        std::thread::yield_now();
        #[cfg(not(feature = "std"))]
        spin_loop();
    }
}

#[cfg(loom)]
mod imp {
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{
        AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU32, AtomicU64, fence,
    };
    pub use loom::thread::yield_now;
}

#[cfg(all(shuttle, not(loom)))]
mod imp {
    use super::Ordering;
    pub use shuttle::hint::spin_loop;
    pub use shuttle::thread::yield_now;

    /// A scheduling point: any access to one of shuttle's own atomics is one.
    fn step() {
        shuttle::sync::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
    }

    /// A fence. Shuttle's memory is sequentially consistent, so only the scheduling point matters.
    pub fn fence(order: Ordering) {
        step();
        core::sync::atomic::fence(order);
    }

    macro_rules! wrap {
        ($($name:ident $int:ty),*) => {$(
            /// `core`'s atomic of the same name and layout, with a scheduling point before each access.
            #[repr(transparent)]
            #[derive(Debug, Default)]
            pub struct $name(core::sync::atomic::$name);
            impl $name {
                /// A new word.
                pub const fn new(value: $int) -> Self { Self(core::sync::atomic::$name::new(value)) }
                /// See `core`.
                pub fn load(&self, order: Ordering) -> $int { step(); self.0.load(order) }
                /// See `core`.
                pub fn store(&self, value: $int, order: Ordering) { step(); self.0.store(value, order) }
                /// See `core`.
                pub fn swap(&self, value: $int, order: Ordering) -> $int { step(); self.0.swap(value, order) }
                /// See `core`.
                pub fn fetch_add(&self, value: $int, order: Ordering) -> $int { step(); self.0.fetch_add(value, order) }
                /// See `core`.
                pub fn compare_exchange(&self, old: $int, new: $int, ok: Ordering, no: Ordering) -> Result<$int, $int> {
                    step();
                    self.0.compare_exchange(old, new, ok, no)
                }
                /// See `core`.
                pub fn compare_exchange_weak(&self, old: $int, new: $int, ok: Ordering, no: Ordering) -> Result<$int, $int> {
                    self.compare_exchange(old, new, ok, no)
                }
            }
        )*};
    }
    wrap!(AtomicI8 i8, AtomicI16 i16, AtomicI32 i32, AtomicI64 i64, AtomicU32 u32, AtomicU64 u64);
}

pub use imp::*;
