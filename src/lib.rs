//! Multi-GPU symmetric memory and fused GEMM + collective operations, for tensor-parallel layers.
//!
//! This package holds the `iris` command, and its library names the layers, each of which is a crate that can be used alone:
//!
//! * [`ops`]: the operations. [`ops::MatmulAllReduce`] and its three siblings; begin here.
//! * [`heap`]: ranks, symmetric memory, buffers, windows, streams. [`heap::World`] is one rank's handle.
//! * [`kernels`]: the tile programs that operations run.
//! * [`sync`]: the signal protocol that keeps calls apart without zeroing and without barriers.

pub use iris_heap as heap;
pub use iris_kernels as kernels;
pub use iris_ops as ops;
pub use iris_sync as sync;

// The README's program is compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
