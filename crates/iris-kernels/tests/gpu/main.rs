//! The programs on the GPUs of this host, at the level of their raw arguments: ranks are threads, with a GPU each or sharing them.
//!
//! Inputs are made and results checked by the devices, so calls are enqueued back to back with nothing in between. Where the host
//! has too few GPUs, or no compiler library, a test says so in a line that begins with `SKIPPED`.

#[path = "../common/mod.rs"]
mod common;
mod harness;

mod bits;
mod checks;
mod controls;
mod faults;
mod graphs;
mod offsets;
mod reuse;
mod shapes;
mod source;
