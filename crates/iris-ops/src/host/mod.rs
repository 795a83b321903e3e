//! Operations on the host backend: a kernel that a stream's worker runs.

mod kernel;
