//! The command as a user meets it: arguments, exit status, what is printed where, and what is left behind.

mod bench_files;
mod common;
mod compile;
mod drivers;
mod gpu;
mod inputs;
mod processes;
mod results;
mod tune;
