//! The HIP backend: AMD GPUs through the HIP runtime, whose library is found at run time by [`hip_sys`].
//!
//! **Contexts.** HIP has one context a device, which is there as long as the process. A stream of a device is a stream of it.
//!
//! **How memory is shared.** By file descriptors of physical memory (VMM) where the runtime makes them, else by IPC handles
//! ([`Sharing`]): a descriptor is then a sealed file in memory that holds the handle. IPC handles cannot be opened in the process
//! that made them; there, the allocation itself is shared, with peer access enabled. `IRIS_HIP_SHARING` can be set to `vmm` or `ipc`
//! to have the one or the other. GPUs are to be hidden by `HIP_VISIBLE_DEVICES`, by which the runtime still knows the owner of
//! memory that it is given; `ROCR_VISIBLE_DEVICES` takes that away.
//!
//! **What is coherent while kernels run.** The signals of the operations are stores with release order and loads with acquire order,
//! both of system scope, in memory of the rank that waits; data goes with them. That this is enough depends on how the pages of
//! shared memory are mapped, which for each page and device says what of it that device's caches may keep:
//!
//! | shared memory | its own GPU | a peer over XGMI | a peer over PCIe |
//! |---|---|---|---|
//! | plain | cached (RW); a peer's write removes the line | cached (NC), until the next acquire | not coherent |
//! | uncached | not cached (UC) | not cached (UC) | not cached (UC) |
//!
//! A release of system scope writes back the lines that the L2 caches hold dirty (`buffer_wbl2`, with `sc0 sc1` from gfx942 on), at
//! home and over the link, where the write removes the line from the owner's cache; an acquire drops what a cache holds of others'
//! memory (`buffer_invl2`; `buffer_inv sc0 sc1`). So plain memory carries data and signals between GPUs that XGMI links, and a
//! rank's own operands stay cached. It does not where no write of a peer removes a line, as over PCIe; and gfx90a carries out a
//! read-modify-write of a peer's plain memory in its own L2, where the owner does not see it.
//!
//! Therefore shared memory is plain on gfx94x and gfx950, and uncached on all others: right over any link and with any access, and
//! slower where a kernel reads its own rank's part again. GPUs that plain memory is not coherent between do not
//! [reach](crate::device::Reach) each other here. What this rests on: the memory models of gfx90a and gfx942 in LLVM's "User Guide
//! for AMDGPU Backend", and `gmc_v9_0_get_coherence_flags` of the kernel driver. It has not been tried on a GPU yet.
//!
//! Host memory for flags and records is pinned, mapped and coherent: a kernel's stores of system scope are seen while it runs.
//!
//! **Streams.** HIP runs streams on a few hardware queues, four a device by default (`GPU_MAX_HW_QUEUES`): kernels that wait for each
//! other on more streams of one device than that may wait for ever.
#![allow(non_upper_case_globals, reason = "the bindings' names are those of C")]

mod driver;
mod query;
mod sharing;
mod ticket;

pub use driver::Hip;
pub use sharing::Sharing;
