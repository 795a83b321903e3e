//! The signal protocol of fused multi-GPU operations, as types.
#![cfg_attr(not(feature = "std"), no_std)]

pub mod fault;
pub mod primitive;
pub mod signal;
pub mod word;

pub use fault::{Cause, Fault, Wait, WordKind};
pub use signal::{Signal, SignalCounter, bank, reached};
pub use word::{Ring, Word};
