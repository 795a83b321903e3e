//! A GPU runtime as it is.

use super::{DeviceError, Reach};
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A handle or an address of a runtime: as wide as either.
pub type Raw = u64;

/// What tells a GPU, or a part of one that is a device by itself, from all others of the host: the same in every process,
/// whatever number the device has there and whatever other devices are visible.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) {
                "-"
            } else {
                ""
            };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its product name.
    pub name: String,
    /// Which of all GPUs it is.
    pub uuid: Uuid,
    /// What kernels are compiled for: `sm_90`, `gfx942`.
    pub architecture: String,
    /// Where it sits.
    pub pci_bus_id: String,
    /// Its memory in bytes.
    pub memory: u64,
    /// Its multiprocessors or compute units.
    pub multiprocessors: u32,
    /// Shared memory that one block can have, in bytes.
    pub shared_memory: u32,
    /// Whether grids can be launched whose blocks are all resident at once, and are refused otherwise.
    pub cooperative: bool,
    /// Whether a grid may begin before the one before it on its stream has ended, and then waits for that by itself.
    pub programmatic: bool,
    /// Whether its memory can be shared with other devices and processes by file descriptors.
    pub shareable: bool,
}

/// What a runtime knows of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// The kind of memory that it is in.
    pub kind: MemoryKind,
    /// The device that the memory was allocated on; where it is the host's, a device that it was allocated for.
    pub device: usize,
    /// Where the memory begins that is mapped there as one piece, an allocation or a part of one, as far as the runtime tells.
    pub start: Raw,
    /// Its bytes: at least that of the address.
    pub bytes: u64,
}

/// A kind of memory that a runtime knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// A device's.
    Device,
    /// The host's, pinned.
    Host,
    /// The runtime's, which moves it between host and devices.
    Managed,
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device memory",
            Self::Host => "host memory",
            Self::Managed => "managed memory",
        })
    }
}

/// A matrix of 16-bit elements, to be copied box by box by a device's copy engine: rows of 128 bytes in shared memory, whose 16-byte
/// parts are permuted by the row's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Boxes {
    /// Whether elements are bf16, else f16.
    pub bf16: bool,
    /// Where it begins: a multiple of 16.
    pub address: Raw,
    /// Elements side by side, and lines; what is copied from outside of them is zero.
    pub lens: [u64; 2],
    /// Bytes from one line to the next: a multiple of 16.
    pub stride: u64,
    /// A box: elements side by side, of which there are 64 at most, and lines, of which there are 256 at most.
    pub sides: [u32; 2],
    /// Whether what a box's line takes from memory is brought to the cache together with as much beside it: 256 bytes in place of 128.
    pub doubly: bool,
}

/// A grid of blocks, along one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// Whether all blocks must be resident at once.
    pub cooperative: bool,
    /// Whether it may begin before the grid before it on its stream has ended, where [`Info::programmatic`] says that this can be.
    pub programmatic: bool,
}

/// A GPU runtime: raw handles, nothing validated.
///
/// Functions that go by the current device say so; [`Driver::bind`] sets it for the calling thread.
///
/// # Safety
/// What each unsafe function asks for beside its own words: handles and addresses come from this driver and have not been
/// given back, ranges lie inside their memory, and what is destroyed or unmapped is not in use by anything enqueued.
#[allow(clippy::missing_errors_doc, clippy::missing_safety_doc)] // said once, above: every function fails where the runtime says so
pub trait Driver: fmt::Debug + Send + Sync + Sized + 'static {
    /// The runtime's name.
    const NAME: &'static str;
    /// The backend's name, as the command takes it.
    const BACKEND: &'static str;

    /// Loads the runtime's library, once a process.
    fn load() -> Result<&'static Self, DeviceError>;

    /// How many devices are visible.
    fn count(&self) -> Result<usize, DeviceError>;
    /// What a device is.
    fn info(&self, device: usize) -> Result<Info, DeviceError>;
    /// How far kernels on `device` reach into memory of `peer`.
    fn reach(&self, device: usize, peer: usize) -> Result<Reach, DeviceError>;
    /// The runtime's version: major * 1000 + minor * 10.
    fn version(&self) -> Result<i32, DeviceError>;

    /// Has the runtime keep its state for a device until it is released as often.
    fn retain(&self, device: usize) -> Result<(), DeviceError>;
    /// See [`Driver::retain`].
    unsafe fn release(&self, device: usize);
    /// Makes a retained device current on this thread.
    fn bind(&self, device: usize) -> Result<(), DeviceError>;
    /// Waits for everything on the current device.
    fn synchronize_device(&self) -> Result<(), DeviceError>;
    /// The bytes of the current device's memory that nobody has, be it this process or another.
    fn free_memory(&self) -> Result<u64, DeviceError>;
    /// What the runtime knows of an address, or `None` where it knows nothing of it. Any address may be asked for.
    fn pointer(&self, address: Raw) -> Result<Option<Pointer>, DeviceError>;

    /// Memory of the current device.
    unsafe fn allocate(&self, bytes: usize) -> Result<Raw, DeviceError>;
    /// See [`Driver::allocate`].
    unsafe fn free(&self, address: Raw);
    /// Zeroed host memory that kernels of all devices can access at the second address.
    unsafe fn allocate_pinned(&self, bytes: usize) -> Result<(*mut u8, Raw), DeviceError>;
    /// See [`Driver::allocate_pinned`].
    unsafe fn free_pinned(&self, host: *mut u8);

    /// What the size of shareable memory of a device is a multiple of, in bytes: a power of two.
    fn granularity(&self, device: usize) -> Result<usize, DeviceError>;
    /// Memory of the current device, shareable by file descriptor; `bytes` is a multiple of the granularity. What is returned is a
    /// handle; the memory has no address yet.
    unsafe fn create(&self, device: usize, bytes: usize) -> Result<Raw, DeviceError>;
    /// A file descriptor for shareable memory. The memory stays as long as a handle or a mapping of it does, here or elsewhere;
    /// whether a descriptor alone keeps it is up to the runtime.
    unsafe fn export(&self, handle: Raw) -> Result<OwnedFd, DeviceError>;
    /// Shareable memory by a file descriptor of [`Driver::export`], of this or another process, for the current device.
    unsafe fn import(&self, fd: BorrowedFd<'_>) -> Result<Raw, DeviceError>;
    /// Gives a handle of shareable memory back; mappings keep the memory.
    unsafe fn release_handle(&self, handle: Raw);
    /// Makes shareable memory accessible from `device`, which is current; where it begins, a multiple of `align`, which is the
    /// granularity or less.
    unsafe fn map(
        &self,
        handle: Raw,
        bytes: usize,
        align: usize,
        device: usize,
    ) -> Result<Raw, DeviceError>;
    /// See [`Driver::map`]; the same address and bytes.
    unsafe fn unmap(&self, address: Raw, bytes: usize);

    /// Fills device memory; enqueued on a stream of the current device.
    unsafe fn fill(
        &self,
        address: Raw,
        value: u8,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError>;
    /// Copies from the host; enqueued, but done with `from` when it returns.
    unsafe fn upload(
        &self,
        to: Raw,
        from: *const u8,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError>;
    /// Copies to the host; `to` is valid until the stream has been synchronised.
    unsafe fn download(
        &self,
        to: *mut u8,
        from: Raw,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError>;
    /// Copies between addresses of this device's reach; enqueued.
    unsafe fn copy(&self, to: Raw, from: Raw, bytes: usize, stream: Raw)
    -> Result<(), DeviceError>;

    /// A stream of the current device, which does not wait for the default one.
    unsafe fn create_stream(&self) -> Result<Raw, DeviceError>;
    /// See [`Driver::create_stream`].
    unsafe fn destroy_stream(&self, stream: Raw);
    /// Whether a stream is one of the current device, retained by [`Driver::retain`]. One of the runtime's own streams, such as
    /// the default one, is.
    unsafe fn is_of_current_device(&self, stream: Raw) -> Result<bool, DeviceError>;
    /// Waits for all that is enqueued.
    unsafe fn synchronize_stream(&self, stream: Raw) -> Result<(), DeviceError>;
    /// Whether all that is enqueued has run.
    unsafe fn is_idle(&self, stream: Raw) -> Result<bool, DeviceError>;
    /// Has a stream wait for an event.
    unsafe fn wait_event(&self, stream: Raw, event: Raw) -> Result<(), DeviceError>;
    /// An event of the current device, with a time stamp.
    unsafe fn create_event(&self) -> Result<Raw, DeviceError>;
    /// See [`Driver::create_event`].
    unsafe fn destroy_event(&self, event: Raw);
    /// Records an event.
    unsafe fn record(&self, event: Raw, stream: Raw) -> Result<(), DeviceError>;
    /// Waits for an event.
    unsafe fn synchronize_event(&self, event: Raw) -> Result<(), DeviceError>;
    /// Milliseconds between two events that have been reached.
    unsafe fn elapsed_ms(&self, from: Raw, to: Raw) -> Result<f32, DeviceError>;

    /// Loads machine code for the current device, all of it at once.
    unsafe fn load_module(&self, image: &[u8]) -> Result<Raw, DeviceError>;
    /// See [`Driver::load_module`].
    unsafe fn unload_module(&self, module: Raw);
    /// A kernel of a module, on the device when this returns: no launch of it loads anything.
    unsafe fn function(&self, module: Raw, name: &CStr) -> Result<Raw, DeviceError>;
    /// Allows a kernel so much dynamic shared memory.
    unsafe fn allow_shared(&self, function: Raw, bytes: u32) -> Result<(), DeviceError>;
    /// How many blocks of a kernel fit one multiprocessor at once.
    unsafe fn blocks_per_multiprocessor(
        &self,
        function: Raw,
        threads: u32,
        shared: u32,
    ) -> Result<u32, DeviceError>;
    /// Launches a kernel with one argument block. A cooperative grid is refused where its blocks are not all resident at once.
    unsafe fn launch(
        &self,
        function: Raw,
        grid: Grid,
        stream: Raw,
        arguments: *const u8,
    ) -> Result<(), DeviceError>;

    /// Whether the runtime encodes tensor maps.
    fn has_tensor_maps(&self) -> bool {
        false
    }
    /// A tensor map, by which kernels copy boxes; `None` where the runtime has none, or cannot express these.
    fn tensor_map(&self, _: &Boxes) -> Option<[u64; 16]> {
        None
    }

    /// Begins to capture what is enqueued on a stream, on this thread.
    unsafe fn begin_capture(&self, stream: Raw) -> Result<(), DeviceError>;
    /// Ends a capture; the executable graph.
    unsafe fn end_capture(&self, stream: Raw) -> Result<Raw, DeviceError>;
    /// Enqueues a graph.
    unsafe fn launch_graph(&self, graph: Raw, stream: Raw) -> Result<(), DeviceError>;
    /// See [`Driver::end_capture`].
    unsafe fn destroy_graph(&self, graph: Raw);
}
