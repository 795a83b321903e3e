//! The HIP runtime and HIPRTC as tables of functions that are found at run time.
//!
//! Nothing of ROCm is needed to build, and a program runs where ROCm is not installed: [`Loaded::load`] then returns an
//! error that names each library it tried. Where it is, [`Loaded::runtime`] is the table of the C functions, and a few
//! calls that cannot do harm are methods of [`Loaded`]. HIPRTC, the compiler, needs no device and is loaded apart, by
//! [`LoadedHiprtc::load`].
//!
//! Names are those of C, so that AMD's reference can be used as it is. An enumeration of C is an integer here, of which
//! some values have a name, because the loaded library may know others. The layouts and numbers are those of HIP 6.0
//! and later ([`OLDEST_SUPPORTED`]); what they do not have is `hipDeviceProp_t`, whose layout is different in each.
//! A device's properties are had one by one, from [`Loaded::device_attribute`], and its architecture from
//! [`architecture`].
//!
//! The environment variables `IRIS_HIP_LIBRARY` and `IRIS_HIPRTC_LIBRARY` name the libraries that are to be loaded in
//! place of those that would be found.
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    reason = "the names are those of C"
)]

mod architecture;
mod attributes;
mod dynamic;
mod enums;
mod error;
mod loaded;
mod rtc;
mod runtime;
mod types;

pub use architecture::{ArchitectureError, architecture, effective_architecture};
pub use attributes::*;
pub use dynamic::{Attempt, LoadError, Origin, Rejection, Symbol, Version};
pub use enums::*;
pub use error::*;
pub use loaded::{Loaded, OLDEST_SUPPORTED};
pub use rtc::*;
pub use runtime::Runtime;
pub use types::*;
