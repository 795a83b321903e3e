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
//!
//! # On GPUs
//!
//! A world begins on the host. [`World::on`] gives the same ranks a symmetric heap on GPUs, one a rank, which kernels of all ranks
//! reach; `World<Cuda>` and `World<Host>` are then two handles of one rank, and collectives of either go the same way. What a world
//! and its buffers have in common is written over [`Backend`], of which [`Host`], [`cuda::Cuda`] and [`hip::Hip`] are the three; what GPUs
//! have beside it is in [`device`]. GPU libraries are found at run time: a program runs where there are none, and is told so when it
//! asks.
//!
//! ```no_run
//! use iris_heap::cuda::Cuda;
//! use iris_heap::device::DeviceConfig;
//! use iris_heap::{World, WorldConfig};
//!
//! let results = World::threads(2, &WorldConfig::default(), |world| {
//!     let world = world.on::<Cuda>(&DeviceConfig::default())?;
//!     let buffer = world.symmetric_buffer::<f32>(1000)?; // zero on all ranks, at the same offset
//!     buffer.upload(0, &[world.rank() as f32; 1000])?;
//!     let peer = (world.rank() + 1) % world.size();
//!     // For kernels of this rank: where the peer's is.
//!     let theirs = world.base(peer) + buffer.offset().unwrap_or_default() as u64;
//!     println!("{}: {theirs:#x}", world.device().info().name);
//!     world.free_buffer(buffer)
//! })?;
//! for result in results {
//!     result?;
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
