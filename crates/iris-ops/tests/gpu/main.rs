//! Operations on the GPUs of this host: threads and processes, a GPU each, or several ranks on one where there are fewer.
//!
//! Where there is no GPU, or no compiler library, each test says that it was skipped.

mod bad_input;
mod faults;
mod graphs;
mod shapes;
mod support;
