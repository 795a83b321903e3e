//! Compilation for GPUs on machines that have none: the cache by a compiler that is none, and the real compilers that are there.

mod cache;
mod compilers;
mod fake;
mod processes;
