//! Libraries that are found at run time: where they are looked for, what of them must be there, and what is said when
//! they are not.
//!
//! A library is described by a [`table::Table`] of functions and a [`open::Wanted`] list of names. Opening it gives the
//! filled table, or an error that names each library tried and why it was not taken. A library once opened stays open
//! until the process ends, so that the functions of a table can be called whenever there is a table.

pub(crate) mod codes;
mod error;
pub(crate) mod open;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod version;

pub use error::{Attempt, LoadError, Rejection};
pub use open::Origin;
pub use table::Symbol;
pub use version::Version;
