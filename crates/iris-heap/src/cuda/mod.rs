//! The CUDA backend: NVIDIA GPUs through the CUDA driver, whose library is found at run time.

mod driver;
mod query;
mod sharing;
mod table;

pub use driver::Cuda;
