//! What tests on GPUs have in common: the GPUs of this host, kernels compiled once, inputs made and results checked by the devices
//! themselves.

pub mod check;
pub mod kernels;
pub mod machine;

pub use check::{Checks, Content, Expected, Found, Numbers, Part, Verdict};
pub use kernels::{Kernel, images};
pub use machine::{Gpus, Placement, budget, budget_or, wanted};

/// The runtime that GPU tests run on.
pub type Gpu = iris_heap::cuda::Cuda;
