//! [`Driver`] by the CUDA driver.

use super::table::{Handle, LaunchAttribute, LaunchConfig, NAME, Status, Table};
use crate::device::{Boxes, DeviceError, Driver, Grid, Info, Pointer, Raw, Reach};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

// Values of cuda.h.
pub(super) const SUCCESS: Status = 0;
const OUT_OF_MEMORY: Status = 2;
const NO_DEVICE: Status = 100;
const NOT_READY: Status = 600;
const PORTABLE_AND_MAPPED: c_uint = 1 | 2;
const NON_BLOCKING: c_uint = 1;
const DYNAMIC_SHARED: c_int = 8;
const CAPTURE_THREAD: c_uint = 1;
const TENSOR_F16: c_uint = 6;
const TENSOR_BF16: c_uint = 9;
const SWIZZLE_128: c_uint = 3;
const PROMOTE_TO_128: c_uint = 2;
const PROMOTE_TO_256: c_uint = 3;

/// The CUDA driver.
pub struct Cuda {
    pub(super) table: Table,
    /// Whether the driver could not be initialised for want of a device: it then answers no other question.
    deviceless: bool,
    /// The primary contexts that are retained: how often, by device.
    contexts: Mutex<BTreeMap<usize, (usize, u32)>>,
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuda")
            .field("library", &self.table.library)
            .finish_non_exhaustive()
    }
}

fn handle(raw: Raw) -> Handle {
    ptr::with_exposed_provenance_mut(raw as usize)
}

fn raw(handle: Handle) -> Raw {
    handle.expose_provenance() as Raw
}

impl Cuda {
    /// The error of a status, if it is one.
    pub(super) fn check(
        &self,
        what: &'static str,
        device: Option<usize>,
        status: Status,
    ) -> Result<(), DeviceError> {
        if status == SUCCESS {
            return Ok(());
        }
        if status == OUT_OF_MEMORY {
            // Who asked for how much is known to the caller.
            return Err(DeviceError::OutOfMemory {
                device: device.unwrap_or(0),
                bytes: 0,
            });
        }
        let mut name = ptr::null();
        // SAFETY: the name is a constant of the driver's, or null.
        let known = unsafe { (self.table.error_name)(status, &raw mut name) } == SUCCESS;
        let name = if known && !name.is_null() {
            // SAFETY: just so.
            unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned()
        } else {
            "unknown".into()
        };
        Err(DeviceError::Call {
            what,
            device: device.map_or_else(|| "-".into(), |device| device.to_string()),
            name,
            code: status,
        })
    }
}

// SAFETY (all of the calls below): arguments are what the driver's documentation asks for, given what `Driver` asks of its callers;
// results go to local variables that outlive the call.
impl Driver for Cuda {
    const NAME: &'static str = NAME;
    const BACKEND: &'static str = "cuda";

    fn load() -> Result<&'static Self, DeviceError> {
        static LOADED: OnceLock<Result<Cuda, DeviceError>> = OnceLock::new();
        let loaded = LOADED.get_or_init(|| {
            let mut cuda = Cuda {
                table: Table::load()?,
                deviceless: false,
                contexts: Mutex::default(),
            };
            // SAFETY: takes no pointers. May be called any number of times.
            let status = unsafe { (cuda.table.init)(0) };
            // A driver without a device is there, and has none to count.
            if status == NO_DEVICE {
                cuda.deviceless = true;
            } else {
                cuda.check("initialising the driver", None, status)?;
            }
            Ok(cuda)
        });
        loaded.as_ref().map_err(Clone::clone)
    }

    fn count(&self) -> Result<usize, DeviceError> {
        if self.deviceless {
            return Ok(0);
        }
        let mut count = 0;
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.count)(&raw mut count) };
        if status == NO_DEVICE {
            return Ok(0);
        }
        self.check("counting devices", None, status)?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn info(&self, device: usize) -> Result<Info, DeviceError> {
        self.describe(device)
    }

    fn reach(&self, device: usize, peer: usize) -> Result<Reach, DeviceError> {
        self.peer(device, peer)
    }

    fn version(&self) -> Result<i32, DeviceError> {
        let mut version = 0;
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.version)(&raw mut version) };
        self.check("reading the driver's version", None, status)?;
        Ok(version)
    }

    fn retain(&self, device: usize) -> Result<(), DeviceError> {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut context = ptr::null_mut();
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.retain)(&raw mut context, device as c_int) };
        self.check("retaining the primary context", Some(device), status)?;
        let entry = contexts
            .entry(device)
            .or_insert((context.expose_provenance(), 0));
        entry.1 += 1;
        Ok(())
    }

    unsafe fn release(&self, device: usize) {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, times)) = contexts.get_mut(&device) {
            *times -= 1;
            if *times == 0 {
                contexts.remove(&device);
            }
            // SAFETY: see above the impl.
            unsafe { (self.table.release)(device as c_int) };
        }
    }

    fn bind(&self, device: usize) -> Result<(), DeviceError> {
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let context = contexts.get(&device).map_or(0, |&(context, _)| context);
        drop(contexts);
        // SAFETY: a retained primary context, or null, which unbinds.
        let status = unsafe { (self.table.set_current)(handle(context as Raw)) };
        self.check("making the device current", Some(device), status)
    }

    fn synchronize_device(&self) -> Result<(), DeviceError> {
        // SAFETY: takes no pointers.
        let status = unsafe { (self.table.synchronize)() };
        self.check("synchronising the device", None, status)
    }

    fn free_memory(&self) -> Result<u64, DeviceError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.memory_info)(&raw mut free, &raw mut total) };
        self.check("asking for the free memory", None, status)?;
        Ok(free as u64)
    }

    fn pointer(&self, address: Raw) -> Result<Option<Pointer>, DeviceError> {
        self.known(address)
    }

    unsafe fn allocate(&self, bytes: usize) -> Result<Raw, DeviceError> {
        let mut address = 0;
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.allocate)(&raw mut address, bytes) };
        self.check("allocating device memory", None, status)?;
        Ok(address)
    }

    unsafe fn free(&self, address: Raw) {
        // SAFETY: see above the impl.
        unsafe { (self.table.free)(address) };
    }

    unsafe fn allocate_pinned(&self, bytes: usize) -> Result<(*mut u8, Raw), DeviceError> {
        let (mut host, mut address) = (ptr::null_mut(), 0);
        // SAFETY: see above the impl.
        let status =
            unsafe { (self.table.allocate_host)(&raw mut host, bytes, PORTABLE_AND_MAPPED) };
        self.check("allocating pinned host memory", None, status)?;
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.device_pointer)(&raw mut address, host, 0) };
        self.check("mapping pinned host memory", None, status)
            // SAFETY: just allocated.
            .inspect_err(|_| unsafe {
                (self.table.free_host)(host);
            })?;
        Ok((host.cast(), address))
    }

    unsafe fn free_pinned(&self, host: *mut u8) {
        // SAFETY: see above the impl.
        unsafe { (self.table.free_host)(host.cast()) };
    }

    fn granularity(&self, device: usize) -> Result<usize, DeviceError> {
        self.share_granularity(device)
    }

    unsafe fn create(&self, device: usize, bytes: usize) -> Result<Raw, DeviceError> {
        self.create_share(device, bytes)
    }

    unsafe fn export(&self, handle: Raw) -> Result<OwnedFd, DeviceError> {
        // SAFETY: see above the impl.
        unsafe { self.export_share(handle) }
    }

    unsafe fn import(&self, fd: BorrowedFd<'_>) -> Result<Raw, DeviceError> {
        self.import_share(fd)
    }

    unsafe fn release_handle(&self, handle: Raw) {
        // SAFETY: see above the impl.
        unsafe { self.release_share(handle) };
    }

    unsafe fn map(
        &self,
        handle: Raw,
        bytes: usize,
        align: usize,
        device: usize,
    ) -> Result<Raw, DeviceError> {
        // SAFETY: see above the impl.
        unsafe { self.map_share(handle, bytes, align, device) }
    }

    unsafe fn unmap(&self, address: Raw, bytes: usize) {
        // SAFETY: see above the impl.
        unsafe { self.unmap_share(address, bytes) };
    }

    unsafe fn fill(
        &self,
        address: Raw,
        value: u8,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.fill)(address, value, bytes, handle(stream)) };
        self.check("filling device memory", None, status)
    }

    unsafe fn upload(
        &self,
        to: Raw,
        from: *const u8,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.upload)(to, from.cast(), bytes, handle(stream)) };
        self.check("copying to the device", None, status)
    }

    unsafe fn download(
        &self,
        to: *mut u8,
        from: Raw,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.download)(to.cast(), from, bytes, handle(stream)) };
        self.check("copying from the device", None, status)
    }

    unsafe fn copy(
        &self,
        to: Raw,
        from: Raw,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.copy)(to, from, bytes, handle(stream)) };
        self.check("copying on the device", None, status)
    }

    unsafe fn create_stream(&self) -> Result<Raw, DeviceError> {
        let mut stream = ptr::null_mut();
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.create_stream)(&raw mut stream, NON_BLOCKING) };
        self.check("creating a stream", None, status)?;
        Ok(raw(stream))
    }

    unsafe fn destroy_stream(&self, stream: Raw) {
        // SAFETY: see above the impl.
        unsafe { (self.table.destroy_stream)(handle(stream)) };
    }

    unsafe fn is_of_current_device(&self, stream: Raw) -> Result<bool, DeviceError> {
        let (mut context, mut current) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: see above the impl; the default stream's context is the current one.
        let status = unsafe { (self.table.stream_context)(handle(stream), &raw mut context) };
        self.check("asking for a stream's context", None, status)?;
        // SAFETY: as above.
        let status = unsafe { (self.table.stream_context)(handle(0), &raw mut current) };
        self.check("asking for the current context", None, status)?;
        Ok(context == current)
    }

    unsafe fn synchronize_stream(&self, stream: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.synchronize_stream)(handle(stream)) };
        self.check("synchronising a stream", None, status)
    }

    unsafe fn is_idle(&self, stream: Raw) -> Result<bool, DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.query_stream)(handle(stream)) };
        if status == NOT_READY {
            return Ok(false);
        }
        self.check("querying a stream", None, status)?;
        Ok(true)
    }

    unsafe fn wait_event(&self, stream: Raw, event: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.wait_event)(handle(stream), handle(event), 0) };
        self.check("waiting for an event", None, status)
    }

    unsafe fn create_event(&self) -> Result<Raw, DeviceError> {
        let mut event = ptr::null_mut();
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.create_event)(&raw mut event, 0) };
        self.check("creating an event", None, status)?;
        Ok(raw(event))
    }

    unsafe fn destroy_event(&self, event: Raw) {
        // SAFETY: see above the impl.
        unsafe { (self.table.destroy_event)(handle(event)) };
    }

    unsafe fn record(&self, event: Raw, stream: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.record)(handle(event), handle(stream)) };
        self.check("recording an event", None, status)
    }

    unsafe fn synchronize_event(&self, event: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.synchronize_event)(handle(event)) };
        self.check("synchronising an event", None, status)
    }

    unsafe fn elapsed_ms(&self, from: Raw, to: Raw) -> Result<f32, DeviceError> {
        let mut elapsed = 0.0;
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.elapsed)(&raw mut elapsed, handle(from), handle(to)) };
        self.check("reading the time between events", None, status)?;
        Ok(elapsed)
    }

    unsafe fn load_module(&self, image: &[u8]) -> Result<Raw, DeviceError> {
        let mut module = ptr::null_mut();
        // SAFETY: see above the impl; the image is an ELF file, which tells its own length.
        let status = unsafe { (self.table.load_module)(&raw mut module, image.as_ptr().cast()) };
        self.check("loading a module", None, status)?;
        Ok(raw(module))
    }

    unsafe fn unload_module(&self, module: Raw) {
        // SAFETY: see above the impl.
        unsafe { (self.table.unload_module)(handle(module)) };
    }

    unsafe fn function(&self, module: Raw, name: &CStr) -> Result<Raw, DeviceError> {
        let mut function = ptr::null_mut();
        // SAFETY: see above the impl.
        let status =
            unsafe { (self.table.function)(&raw mut function, handle(module), name.as_ptr()) };
        self.check("looking a kernel up", None, status)?;
        // A driver that loads lazily may otherwise do so at the first launch, and wait for kernels that wait for this one. A
        // driver without this function loads here at the latest.
        if let Some(load) = self.table.load_function {
            // SAFETY: see above the impl.
            let status = unsafe { load(function) };
            self.check("loading a kernel", None, status)?;
        }
        Ok(raw(function))
    }

    unsafe fn allow_shared(&self, function: Raw, bytes: u32) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe {
            (self.table.set_function_attribute)(handle(function), DYNAMIC_SHARED, bytes as c_int)
        };
        self.check("allowing shared memory", None, status)
    }

    unsafe fn blocks_per_multiprocessor(
        &self,
        function: Raw,
        threads: u32,
        shared: u32,
    ) -> Result<u32, DeviceError> {
        let mut blocks = 0;
        // SAFETY: see above the impl.
        let status = unsafe {
            (self.table.occupancy)(
                &raw mut blocks,
                handle(function),
                threads as c_int,
                shared as usize,
            )
        };
        self.check("asking for the occupancy", None, status)?;
        Ok(blocks.max(0) as u32)
    }

    unsafe fn launch(
        &self,
        function: Raw,
        grid: Grid,
        stream: Raw,
        arguments: *const u8,
    ) -> Result<(), DeviceError> {
        let Grid {
            blocks,
            threads,
            shared,
            cooperative,
            programmatic,
        } = grid;
        let mut arguments = [arguments.cast_mut().cast::<c_void>()];
        let (function, stream) = (handle(function), handle(stream));
        let arguments = arguments.as_mut_ptr();
        // SAFETY: see above the impl; the driver copies the one argument, whose size it knows from the kernel.
        let status = unsafe {
            if let (true, Some(launch)) = (programmatic, self.table.launch_with) {
                let attributes = [
                    LaunchAttribute::set(LaunchAttribute::PROGRAMMATIC),
                    LaunchAttribute::set(LaunchAttribute::COOPERATIVE),
                ];
                let config = LaunchConfig {
                    blocks: [blocks, 1, 1],
                    threads: [threads, 1, 1],
                    shared,
                    stream,
                    attributes: attributes.as_ptr(),
                    count: if cooperative { 2 } else { 1 },
                };
                launch(&raw const config, function, arguments, ptr::null_mut())
            } else if cooperative {
                (self.table.launch_cooperative)(
                    function, blocks, 1, 1, threads, 1, 1, shared, stream, arguments,
                )
            } else {
                (self.table.launch)(
                    function,
                    blocks,
                    1,
                    1,
                    threads,
                    1,
                    1,
                    shared,
                    stream,
                    arguments,
                    ptr::null_mut(),
                )
            }
        };
        self.check("launching a kernel", None, status)
    }

    fn has_tensor_maps(&self) -> bool {
        self.table.encode_tensor_map.is_some()
    }

    fn tensor_map(&self, boxes: &Boxes) -> Option<[u64; 16]> {
        /// Where the driver writes a map, which it wants aligned to 64 bytes.
        #[repr(C, align(64))]
        struct Map([u64; 16]);

        let encode = self.table.encode_tensor_map?;
        let mut map = Map([0; 16]);
        let &Boxes {
            bf16,
            address,
            lens,
            stride,
            sides,
            doubly,
        } = boxes;
        let (strides, steps) = ([stride], [1; 2]);
        // SAFETY: the map has the size and the alignment that the driver asks for, and all arrays at least as many elements as there are
        // dimensions; the address is not accessed. What cannot be expressed is refused.
        let status = unsafe {
            encode(
                (&raw mut map).cast(),
                if bf16 { TENSOR_BF16 } else { TENSOR_F16 },
                2,
                ptr::with_exposed_provenance_mut(address as usize),
                lens.as_ptr(),
                strides.as_ptr(),
                sides.as_ptr(),
                steps.as_ptr(),
                0,
                SWIZZLE_128,
                if doubly {
                    PROMOTE_TO_256
                } else {
                    PROMOTE_TO_128
                },
                0,
            )
        };
        (status == SUCCESS).then_some(map.0)
    }

    unsafe fn begin_capture(&self, stream: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.begin_capture)(handle(stream), CAPTURE_THREAD) };
        self.check("beginning a capture", None, status)
    }

    unsafe fn end_capture(&self, stream: Raw) -> Result<Raw, DeviceError> {
        let (mut graph, mut exec) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.end_capture)(handle(stream), &raw mut graph) };
        self.check("ending a capture", None, status)?;
        // SAFETY: see above the impl; an executable graph does not need the one it was made from.
        let status = unsafe {
            let status = (self.table.instantiate)(&raw mut exec, graph, 0);
            (self.table.destroy_graph)(graph);
            status
        };
        self.check("instantiating a graph", None, status)?;
        Ok(raw(exec))
    }

    unsafe fn launch_graph(&self, graph: Raw, stream: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let status = unsafe { (self.table.launch_graph)(handle(graph), handle(stream)) };
        self.check("launching a graph", None, status)
    }

    unsafe fn destroy_graph(&self, graph: Raw) {
        // SAFETY: see above the impl.
        unsafe { (self.table.destroy_exec)(handle(graph)) };
    }
}
