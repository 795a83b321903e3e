//! References, tolerances, multi-rank harnesses, stall and fault injection for iris and what is built on it.
//!
//! The numeric half knows nothing of ranks' machinery: it takes plain slices. [`random`] makes inputs that
//! differ by rank and call, [`reference`](mod@reference) says in f64 what an operation on them gives each
//! rank, and [`tolerance`] says how far from that a right answer may lie.
//!
//! The other half runs operations: [`op`] has all of them as values, [`exercise`] calls them with fresh inputs and checks every
//! result, [`stall`] holds chosen ranks up in the midst of their calls, [`worlds`] has ranks as threads and as processes.
//! [`device`] is what tests on GPUs have in common. [`skipped`] says that a test was left out.

pub mod device;
pub mod exercise;
pub mod number;
pub mod op;
pub mod operand;
pub mod random;
pub mod reference;
mod skip;
pub mod stall;
pub mod tolerance;
pub mod worlds;

pub use exercise::{Exercise, Failure, RAGGED};
pub use number::{Format, Number};
pub use op::{AnyOperation, Op};
pub use operand::{Operand, ReferenceError};
pub use random::{Stream, Tensor};
pub use reference::{Reference, Share, shard};
pub use skip::skipped;
pub use stall::{ChosenStall, RandomStalls};
pub use tolerance::{Comparison, Tolerance, Worst, compare};
