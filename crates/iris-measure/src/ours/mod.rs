//! What of ours is measured: any of the fused operations ([`Fused`]), and our collective and our product alone, on what a
//! [`Comparison`](crate::Comparison) has ([`Exchange`], [`Multiplication`]).

mod calls;
mod exchange;
mod fused;
mod product;

pub use calls::{Calls, Measured};
pub use exchange::Exchange;
pub use fused::Fused;
pub use product::Multiplication;

/// Elements of each result that are checked, on each of the sets that are.
pub const SAMPLES: usize = 24;
