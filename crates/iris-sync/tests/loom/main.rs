//! The protocol's behaviours, one short model each, under loom, which explores the interleavings of two ranks and the
//! values that the memory model lets each of their loads see.
//!
//! Models of up to two calls are explored in full, in seconds (only the abort by a host, with its third thread, is not);
//! those of three and four calls, and the wraps, with at most three preemptions (a rank interrupted where it could have gone
//! on), and the longest with at most two. Beside each model stand its negative controls: the same model with a rule taken
//! out, and how it fails: by a data race, by data of another call, or by a wait that never ends.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo nextest run --release -p iris-sync --test loom
//! ```
#![cfg(loom)]

mod barrier;
mod harness;
mod lock;
mod output;
mod poison;
mod reset;
mod staging;
mod wrap;
