//! Multi-GPU symmetric memory and fused GEMM + collective operations.
pub use iris_heap as heap;
pub use iris_kernels as kernels;
pub use iris_ops as ops;
pub use iris_sync as sync;
