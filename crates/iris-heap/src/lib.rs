//! Ranks and their rendezvous, the symmetric heap, typed symmetric buffers, host RMA, and streams.
//!
//! A [`World`] is one rank's handle on W ranks, which are threads of one process or processes of one host. Each rank has
//! a heap of the same size, and what is allocated from it lies at the same offset on all, so that an address on one rank
//! translates to any other by base + offset.
//!
//! ```
//! use iris_heap::{World, WorldConfig};
//!
//! let config = WorldConfig { heap_bytes: 1 << 20, ..WorldConfig::default() };
//! let sums = World::threads(4, &config, |world| {
//!     let ranks = world.all_gather(world.rank() as u64)?;
//!     Ok::<u64, iris_heap::WorldError>(ranks.iter().sum())
//! })?;
//! for sum in sums {
//!     assert_eq!(sum?, 6);
//! }
//! # Ok::<(), iris_heap::WorldError>(())
//! ```

mod allocator;
mod backend;
pub mod cuda;
pub mod device;
mod error;
mod fault;
pub mod hip;
mod host;
mod hub;
pub mod launch;
mod world;

pub use backend::{AnyBuffer, Backend, Buffer, Faults, Heap, Point, Queue, Storage};
pub use error::WorldError;
pub use fault::{Activity, Reason, Report, Verdict, WatchId, Watched};
pub use host::Host;
pub use host::buffer::{Access, RangeError};
pub use host::event::Event;
pub use host::kernel::{Kernel, KernelArgs, KernelLaunch, MAX_BUFFERS, MAX_SCALARS};
pub use host::stream::{CAPACITY as STREAM_CAPACITY, Stream, StreamError};
pub use host::window::{RmaError, Window};
pub use host::words::{AtomicElement, AtomicInteger};
pub use launch::{Launch, LaunchError};
pub use world::{MAX_RANKS, Region, World, WorldConfig};
