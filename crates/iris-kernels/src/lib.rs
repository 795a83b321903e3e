//! The tile programs of the fused operations.
//!
//! [`host`] has them in Rust, for the backend that runs everywhere; [`device`] as HIP sources for GPUs, with the headers that they are
//! made of, for kernels of one's own, and the compilers of either. They share [`geometry`] with the operations that launch them: how
//! matrices are split among ranks and products into tiles.
//!
//! A program is given pointers, and checks nothing: `iris_ops` does. It waits and signals by the protocol of [`iris_sync`], and through
//! nothing else.

pub mod device;
pub mod element;
pub mod geometry;
pub mod host;
pub mod view;

pub use element::{DType, Element, UnknownDType};
pub use geometry::{Block, Deal, Grid, Groups, Tile, shard};
pub use view::{View, ViewMut};
