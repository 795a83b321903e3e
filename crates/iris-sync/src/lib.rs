//! The signal protocol of fused multi-GPU operations, as types.
//!
//! In a fused operation, tiles of a product are handed to other ranks while the product still runs, each announced by a
//! *signal*: a word that one rank stores with release order and another awaits with acquire order. Every call signals with a
//! fresh value of a [`SignalCounter`], so between two calls nothing is zeroed and nobody meets at a barrier.
//!
//! * [`signal`]: values, the ring they lie on, the *reached* compare, the counter.
//! * [`layout`], [`memory`]: which words there are, and where.
//! * [`call`]: the protocol itself, as the steps of one call.
//! * [`wait`], [`fault`]: how a rank waits, and what it says when a wait does not end.
//! * [`lock`], [`barrier`]: the spin lock and the reusable barrier.
//! * [`rules`], [`probe`]: for tests: the protocol with a rule taken out, and a look into a running call.
//!
//! The crate is `no_std` without its feature `std`. It runs under loom (`--cfg loom`) and shuttle (`--cfg shuttle`); see
//! [`primitive`].
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(all(test, not(feature = "std")))]
extern crate std;

pub mod barrier;
pub mod call;
pub mod fault;
pub mod layout;
pub mod lock;
pub mod memory;
pub mod primitive;
pub mod probe;
pub mod rules;
pub mod signal;
pub mod wait;
pub mod word;

pub use barrier::Barrier;
pub use call::{Call, Port};
pub use fault::{Cause, Fault, Wait, WordKind};
pub use layout::{Announcement, Layout};
pub use lock::{Held, SpinLock};
#[cfg(not(loom))]
pub use memory::Mapped;
pub use memory::Memory;
pub use probe::{Phase, Point, Probe};
pub use rules::{Rule, Rules};
pub use signal::{Signal, SignalCounter, bank, reached};
#[cfg(feature = "std")]
pub use wait::Patience;
pub use wait::{Pause, Polls, Step, Waiting};
pub use word::{Ring, Word};
