//! Operations on the GPUs of this host: threads and processes, a GPU each, or several ranks on one where there are fewer.
//!
//! Where there is no GPU, or no compiler library, each test says so in a line that begins with `SKIPPED`.

mod bad_input;
mod drops;
mod environment;
mod fast;
mod faults;
mod foreign;
mod graphs;
mod rig;
mod shapes;
mod sharing;
mod support;
mod tuning;
