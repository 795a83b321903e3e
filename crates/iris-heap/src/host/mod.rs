//! The host backend: heaps in shared memory, kernels on worker threads.

pub(crate) mod access;
pub(crate) mod buffer;
pub(crate) mod event;
pub(crate) mod kernel;
pub(crate) mod memory;
pub(crate) mod stream;
pub(crate) mod window;
pub(crate) mod words;
