//! Fused GEMM + collective operations: configuration, workspaces, validation and calls.
//!
//! An operation is created by all ranks together, for a largest number of rows; it is then called as often as wanted, on a
//! stream, with any number of rows up to that. Calls are not collective: they enqueue, and that is all. Between two calls
//! nothing is zeroed and nobody meets at a barrier.
//!
//! ```
//! use iris_heap::{Stream, World, WorldConfig};
//! use iris_ops::{FusedConfig, MatmulAllReduce, MatrixMut, MatrixRef, shard};
//!
//! let (m, n, k) = (4, 6, 10);
//! let results = World::threads(2, &WorldConfig::default(), |world| {
//!     let depth = shard(k, world.size(), world.rank()).len();
//!     let (a, b) = (world.buffer::<f32>(m * depth), world.buffer::<f32>(depth * n));
//!     a.fill(0.5);
//!     b.fill(1.0 + world.rank() as f32);
//!     let c = world.symmetric_buffer::<f32>(m * n)?;
//!
//!     let mut op = MatmulAllReduce::<f32>::new(&world, FusedConfig::new(m, n, k))?;
//!     let stream = Stream::new(&world)?;
//!     let mut bound = op.bind(&stream)?;
//!     for _ in 0..3 {
//!         bound.call(m, MatrixRef::new(&a, m, depth), MatrixRef::new(&b, depth, n), None, MatrixMut::new(&c, m, n))?;
//!     }
//!     stream.synchronize()?;
//!     Ok::<_, iris_ops::OpError>(c.read())
//! })?;
//! for c in results {
//!     assert!(c?.iter().all(|&value| value == 7.5)); // 5 * 0.5 * 1 + 5 * 0.5 * 2
//! }
//! # Ok::<(), iris_ops::OpError>(())
//! ```
//!
//! # On GPUs
//!
//! The same types, with another backend: `MatmulAllReduce<f32, i32, Cuda>` of a [`World`](iris_heap::World) that was moved
//! [on](iris_heap::World::on) to GPUs. Buffers are then filled by `upload` and read by `download`, and streams are
//! [`RankStream`](iris_heap::device::RankStream)s. Kernels are compiled when an operation is created, for the GPU that the rank has, unless
//! they were before. Calls can be captured in a graph; [`device::Launch`] launches it.
//!
//! ```no_run
//! use iris_heap::cuda::Cuda;
//! use iris_heap::device::{DeviceConfig, RankStream};
//! use iris_heap::{World, WorldConfig};
//! use iris_ops::device::Launch;
//! use iris_ops::{AllGatherMatmul, FusedConfig, MatrixMut, MatrixRef, shard};
//!
//! let (m, n, k) = (64, 4096, 1024);
//! let results = World::threads(2, &WorldConfig::default(), |world| {
//!     let world = world.on::<Cuda>(&DeviceConfig::default())?;
//!     let (rows, cols) = (shard(m, 2, world.rank()).len(), shard(n, 2, world.rank()).len());
//!     let a = world.plain_buffer(rows * k)?;
//!     let b = world.plain_buffer(k * cols)?;
//!     let c = world.plain_buffer(m * cols)?;
//!     let mut op = AllGatherMatmul::<f32, i32, Cuda>::new(&world, FusedConfig::new(m, n, k))?;
//!     let stream = RankStream::new(&world)?;
//!     let mut bound = op.bind(&stream)?;
//!     let graph = stream.capture(|| {
//!         let (a, b) = (MatrixRef::new(&a, rows, k), MatrixRef::new(&b, k, cols));
//!         bound.call(m, a, b, None, MatrixMut::new(&c, m, cols))
//!     })?;
//!     drop(bound);
//!     for _ in 0..100 {
//!         graph.launch(&stream, &mut [&mut op])?;
//!     }
//!     stream.synchronize()?;
//!     Ok::<_, iris_ops::OpError>(c.download()?)
//! })?;
//! # drop(results);
//! # Ok::<(), iris_ops::OpError>(())
//! ```
//!
//! # Faults
//!
//! A call that waits for a peer longer than its [budget](FusedConfig::budget) gives up. So do all ranks then, within two
//! seconds, and all name the same rank and reason: the stream's `synchronize` and every later call
//! return the verdict. Calls that are still queued leave at once. A [reset](MatmulAllReduce::reset) by all ranks makes the
//! operation work again.
//!
//! Not detected: a rank that leaves out a call on the host, and goes on, pairs its next call with its peers' previous one, as
//! with any collective library.

mod backend;
mod call;
mod config;
pub mod device;
mod error;
mod host;
mod matrix;
mod operation;
mod ops;
mod plan;
pub mod tuning;
pub mod unfused;
mod workspace;

pub use backend::{Executor, Runs};
#[doc(hidden)]
pub use config::Stall;
pub use config::{FusedConfig, UnknownVariant, Variant};
pub use error::OpError;
pub use iris_kernels::host::GatherDim;
pub use iris_kernels::{DType, Element, Tile, UnknownDType, shard};
pub use matrix::{MatrixMut, MatrixRef};
pub use operation::Bound;
pub use ops::{AllGatherMatmul, MatmulAllGather, MatmulAllReduce, MatmulReduceScatter};
pub use plan::Plan;
pub use workspace::FusedWorkspace;
