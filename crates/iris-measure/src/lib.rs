//! What a fused operation is measured against, and how.
//!
//! A fused operation does in one kernel what a user would otherwise do by two calls of the vendor's: a product, and a collective
//! before or after it. [`Comparison`] measures both in the same processes, in turn, on the same operands: the product alone
//! (cuBLASLt, the best of its first suggestions), the collective alone (NCCL, on plain memory and on registered windows), the two
//! in sequence, and whatever of ours is given to it ([`Enqueue`]).
//!
//! [`Trial`] measures one thing of ours alone, in the same way on the same operands, and without the vendor's libraries. [`ours`] makes a
//! fused operation something that can be measured.
//!
//! A measurement is a captured graph of many calls, between two events of the device ([`timing`]). Calls take turns through
//! several sets of operands, so that no weight is still in a cache when it is needed again. All ranks measure at the same
//! time, and the slowest one's time counts. Results are checked against exact sums before and after, where they were timed.
//!
//! NVLink multicast is off, for the vendor's library as for us: [`nccl::turn_multicast_off`].

mod alone;
mod bandwidth;
mod case;
mod comparison;
pub mod cublaslt;
mod error;
mod kernels;
mod meeting;
pub mod nccl;
mod operands;
pub mod ours;
pub mod random;
mod sample;
pub mod timing;

pub use alone::{Alone, Trial};
pub use case::{Case, CollectiveKind, Operation, Part, Plan, Storage};
pub use comparison::{Comparison, Item, Ours, Rank, Times};
pub use error::MeasureError;
pub use operands::{Addresses, Operands};
pub use sample::{Sample, Samples};
pub use timing::{Effort, Enqueue, Failure};
