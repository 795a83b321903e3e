//! Operations on GPUs: a kernel that the device runs, and what the host knows of it.

mod control;
mod fast;
mod graph;
mod kernel;
mod program;

pub use graph::{Captured, Launch};
