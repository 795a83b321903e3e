//! Multi-GPU symmetric memory and fused GEMM + collective operations.
pub use iris_heap as heap;
pub use iris_kernels as kernels;
pub use iris_ops as ops;
pub use iris_sync as sync;

// The README's program is compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
