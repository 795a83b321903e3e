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
//! # Faults
//!
//! A call that waits for a peer longer than its [budget](FusedConfig::budget) gives up. So do all ranks then, within two
//! seconds, and all name the same rank and reason: [`Stream::synchronize`](iris_heap::Stream::synchronize) and every later call
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
