//! Operations on GPUs: a kernel that the device runs, and what the host knows of it.

mod control;
mod fast;
mod graph;
mod kernel;
mod product;
mod program;

use std::sync::atomic::{AtomicU64, Ordering};

pub use graph::{Captured, Launch};
pub use product::Product;
pub use program::Tiles;

/// A number that nothing else has in this process of what graphs call.
fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}
