//! References, tolerances, multi-rank harnesses, stall and fault injection for iris and what is built on it.
//!
//! The numeric half knows nothing of ranks' machinery: it takes plain slices. [`random`] makes inputs that
//! differ by rank and call, [`reference`](mod@reference) says in f64 what an operation on them gives each
//! rank, and [`tolerance`] says how far from that a right answer may lie.

pub mod number;
pub mod random;
pub mod reference;
pub mod tolerance;

pub use number::{Format, Number};
pub use random::{Stream, Tensor};
pub use reference::{Operand, Reference, ReferenceError, Share, shard};
pub use tolerance::{Comparison, Tolerance, Worst, compare};
