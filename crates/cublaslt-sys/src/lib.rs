//! The part of cuBLASLt that multiplies two matrices, as a table of functions that are found at run time.
//!
//! Nothing of CUDA is needed to build, and a program runs where the library is not installed: [`Loaded::load`] then
//! returns an error that names each library it tried. Where it is, [`Loaded::table`] is the table of the C functions.
//!
//! Names are those of C, so that NVIDIA's reference can be used as it is. An enumeration of C is an integer here, of which
//! some values have a name, because the loaded library may know others.
//!
//! The environment variable `IRIS_CUBLASLT_LIBRARY` names the library that is to be loaded in place of one that would be
//! found.
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    reason = "the names are those of C"
)]

mod dynamic;
mod loaded;
mod table;
mod types;

pub use dynamic::{Attempt, LoadError, Origin, Rejection, Symbol, Version};
pub use loaded::Loaded;
pub use table::CublasLt;
pub use types::*;
