//! The C interface that NCCL and RCCL share, as a table of functions that are found at run time.
//!
//! Nothing of CUDA or ROCm is needed to build, and a program runs where neither library is installed:
//! [`Loaded::load`] then returns an error that names each library it tried. Where one is, [`Loaded::table`] is the table
//! of the C functions, and a few calls that cannot do harm are methods of [`Loaded`].
//!
//! AMD's RCCL has the interface of NVIDIA's NCCL, with HIP's streams in place of CUDA's; a stream is an opaque pointer
//! here, and [`Loaded::flavour`] says whose it must be. Names are those of C, so that NVIDIA's reference can be used as
//! it is. An enumeration of C is an integer here, of which some values have a name, because the loaded library may know
//! others.
//!
//! The environment variable `IRIS_NCCL_LIBRARY` names the library that is to be loaded in place of one that would be
//! found.
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    reason = "the names are those of C"
)]

mod dynamic;
mod loaded;
mod result;
mod table;
mod types;

pub use dynamic::{Attempt, LoadError, Origin, Rejection, Symbol, Version};
pub use loaded::{Flavour, Loaded};
pub use result::*;
pub use table::Nccl;
pub use types::*;
