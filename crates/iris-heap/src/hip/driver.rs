//! [`Driver`] by the HIP runtime.

use super::sharing::Shares;
use crate::device::{DeviceError, Driver, Grid, Info, Pointer, Raw, Reach};
use hip_sys::{
    HipError, LoadError, Loaded, OLDEST_SUPPORTED, Runtime, Version, hipDeviceptr_t, hipError_t,
    hipErrorNoDevice, hipErrorNotReady, hipErrorOutOfMemory, hipEvent_t, hipEventDefault,
    hipFunction_t, hipGraphExec_t, hipHostMallocCoherent, hipHostMallocMapped,
    hipHostMallocPortable, hipMemcpyDeviceToDevice, hipMemcpyDeviceToHost, hipMemcpyHostToDevice,
    hipModule_t, hipStream_t, hipStreamCaptureModeThreadLocal, hipStreamNonBlocking, hipSuccess,
};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_void};
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::{Mutex, OnceLock};

/// The runtime's name, for messages.
pub(super) const NAME: &str = "HIP runtime";

/// The HIP runtime.
pub struct Hip {
    pub(super) loaded: &'static Loaded,
    /// What devices are, once asked for.
    pub(super) known: Mutex<BTreeMap<usize, Info>>,
    /// What is shared.
    pub(super) shares: Shares,
}

impl fmt::Debug for Hip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hip")
            .field("library", &self.loaded.origin().name())
            .finish_non_exhaustive()
    }
}

/// A handle of the runtime's, of type `*mut T`.
pub(super) fn handle<T>(raw: Raw) -> *mut T {
    ptr::with_exposed_provenance_mut(raw as usize)
}

pub(super) fn raw<T>(handle: *mut T) -> Raw {
    handle.expose_provenance() as Raw
}

impl Hip {
    fn new() -> Result<Self, DeviceError> {
        let loaded = Loaded::load().map_err(not_there)?;
        let hip = Self {
            loaded,
            known: Mutex::default(),
            shares: Shares::default(),
        };
        let found = hip.runtime_version()?;
        if found < OLDEST_SUPPORTED {
            return Err(DeviceError::TooOld {
                runtime: NAME,
                found: found.to_string(),
                needed: OLDEST_SUPPORTED.to_string(),
            });
        }
        Ok(hip)
    }

    /// The functions.
    pub(super) fn runtime(&self) -> &'static Runtime {
        self.loaded.runtime()
    }

    pub(super) fn runtime_version(&self) -> Result<Version, DeviceError> {
        let version = self.loaded.runtime_version();
        version.map_err(|error| self.error("reading the version", None, error.code))
    }

    /// The error of a code, if it is one.
    pub(super) fn check(
        &self,
        what: &'static str,
        device: Option<usize>,
        code: hipError_t,
    ) -> Result<(), DeviceError> {
        if code == hipSuccess {
            return Ok(());
        }
        Err(self.error(what, device, code))
    }

    /// The value, or the error, of a call of the bindings'.
    pub(super) fn done<T>(
        &self,
        what: &'static str,
        device: usize,
        result: Result<T, HipError>,
    ) -> Result<T, DeviceError> {
        result.map_err(|error| self.error(what, Some(device), error.code))
    }

    fn error(&self, what: &'static str, device: Option<usize>, code: hipError_t) -> DeviceError {
        if code == hipErrorOutOfMemory {
            // Who asked for how much is known to the caller.
            return DeviceError::OutOfMemory {
                device: device.unwrap_or(0),
                bytes: 0,
            };
        }
        let name = code.name().map_or_else(
            || match self.loaded.error_name(code) {
                name if name.is_empty() => "unknown".to_owned(),
                name => name,
            },
            str::to_owned,
        );
        DeviceError::Call {
            what,
            device: device.map_or_else(|| "-".into(), |device| device.to_string()),
            name,
            code: code.0.cast_signed(),
        }
    }

    /// The error of a function that the library lacks.
    pub(super) fn missing(&self, symbol: &'static str) -> DeviceError {
        DeviceError::MissingFunction {
            runtime: NAME,
            library: self.loaded.origin().name().to_owned(),
            symbol,
        }
    }

    /// The current device of this thread.
    pub(super) fn current(&self) -> Result<usize, DeviceError> {
        let mut device = 0;
        // SAFETY: `device` is valid.
        let code = unsafe { (self.runtime().hipGetDevice)(&raw mut device) };
        self.check("asking for the current device", None, code)?;
        Ok(usize::try_from(device).unwrap_or(0))
    }
}

fn not_there(error: LoadError) -> DeviceError {
    let attempts = match error {
        LoadError::NotFound { attempts, .. } => attempts,
        LoadError::Unusable { attempt, .. } => vec![attempt],
        other => {
            return DeviceError::NotThere {
                runtime: NAME,
                tried: vec![("?".into(), other.to_string())],
            };
        }
    };
    let tried = attempts.into_iter();
    DeviceError::NotThere {
        runtime: NAME,
        tried: tried
            .map(|attempt| (attempt.library, attempt.rejection.to_string()))
            .collect(),
    }
}

// SAFETY (all of the calls below): arguments are what the runtime's documentation asks for, given what `Driver` asks of its callers;
// results go to local variables that outlive the call.
impl Driver for Hip {
    const NAME: &'static str = NAME;
    const BACKEND: &'static str = "hip";

    fn load() -> Result<&'static Self, DeviceError> {
        static LOADED: OnceLock<Result<Hip, DeviceError>> = OnceLock::new();
        let loaded = LOADED.get_or_init(Hip::new);
        loaded.as_ref().map_err(Clone::clone)
    }

    fn count(&self) -> Result<usize, DeviceError> {
        match self.loaded.device_count() {
            Err(error) if error.code == hipErrorNoDevice => Ok(0),
            Err(error) => Err(self.error("counting devices", None, error.code)),
            Ok(count) => Ok(count),
        }
    }

    fn info(&self, device: usize) -> Result<Info, DeviceError> {
        self.describe(device)
    }

    fn reach(&self, device: usize, peer: usize) -> Result<Reach, DeviceError> {
        self.peer(device, peer)
    }

    fn version(&self) -> Result<i32, DeviceError> {
        let Version { major, minor, .. } = self.runtime_version()?;
        Ok((major * 1000 + minor * 10).cast_signed())
    }

    /// The context of a device is always there: nothing is retained, but that it is there is found out.
    fn retain(&self, device: usize) -> Result<(), DeviceError> {
        self.bind(device)
    }

    unsafe fn release(&self, _device: usize) {}

    fn bind(&self, device: usize) -> Result<(), DeviceError> {
        // SAFETY: takes no pointers.
        let code = unsafe { (self.runtime().hipSetDevice)(device as c_int) };
        self.check("making the device current", Some(device), code)
    }

    fn synchronize_device(&self) -> Result<(), DeviceError> {
        // SAFETY: takes no pointers.
        let code = unsafe { (self.runtime().hipDeviceSynchronize)() };
        self.check("synchronising the device", None, code)
    }

    fn free_memory(&self) -> Result<u64, DeviceError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipMemGetInfo)(&raw mut free, &raw mut total) };
        self.check("asking for the free memory", None, code)?;
        Ok(free as u64)
    }

    fn pointer(&self, address: Raw) -> Result<Option<Pointer>, DeviceError> {
        self.known_at(address)
    }

    unsafe fn allocate(&self, bytes: usize) -> Result<Raw, DeviceError> {
        let mut address = ptr::null_mut();
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipMalloc)(&raw mut address, bytes) };
        self.check("allocating device memory", None, code)?;
        Ok(raw(address))
    }

    unsafe fn free(&self, address: Raw) {
        // SAFETY: see above the impl. What it fails with, the next call that waits for the device says too.
        let _ = unsafe { (self.runtime().hipFree)(handle(address)) };
    }

    unsafe fn allocate_pinned(&self, bytes: usize) -> Result<(*mut u8, Raw), DeviceError> {
        let (mut host, mut address) = (ptr::null_mut(), ptr::null_mut());
        let flags = hipHostMallocPortable | hipHostMallocMapped | hipHostMallocCoherent;
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipHostMalloc)(&raw mut host, bytes, flags) };
        self.check("allocating pinned host memory", None, code)?;
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipHostGetDevicePointer)(&raw mut address, host, 0) };
        self.check("mapping pinned host memory", None, code)
            // SAFETY: just allocated.
            .inspect_err(|_| unsafe { self.free_pinned(host.cast()) })?;
        Ok((host.cast(), raw(address)))
    }

    unsafe fn free_pinned(&self, host: *mut u8) {
        // SAFETY: see above the impl.
        let _ = unsafe { (self.runtime().hipHostFree)(host.cast()) };
    }

    fn granularity(&self, device: usize) -> Result<usize, DeviceError> {
        self.share_granularity(device)
    }

    unsafe fn create(&self, device: usize, bytes: usize) -> Result<Raw, DeviceError> {
        self.create_share(device, bytes)
    }

    unsafe fn export(&self, handle: Raw) -> Result<OwnedFd, DeviceError> {
        self.export_share(handle)
    }

    unsafe fn import(&self, fd: BorrowedFd<'_>) -> Result<Raw, DeviceError> {
        self.import_share(fd)
    }

    unsafe fn release_handle(&self, handle: Raw) {
        self.release_share(handle);
    }

    unsafe fn map(
        &self,
        handle: Raw,
        bytes: usize,
        align: usize,
        device: usize,
    ) -> Result<Raw, DeviceError> {
        self.map_share(handle, bytes, align, device)
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
        let fill = self.runtime().hipMemsetAsync;
        // SAFETY: see above the impl.
        let code = unsafe { fill(handle(address), value.into(), bytes, handle(stream)) };
        self.check("filling device memory", None, code)
    }

    unsafe fn upload(
        &self,
        to: Raw,
        from: *const u8,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError> {
        let (copy, kind) = (self.runtime().hipMemcpyAsync, hipMemcpyHostToDevice);
        // SAFETY: see above the impl; pageable memory has been read when this returns.
        let code = unsafe { copy(handle(to), from.cast(), bytes, kind, handle(stream)) };
        self.check("copying to the device", None, code)
    }

    unsafe fn download(
        &self,
        to: *mut u8,
        from: Raw,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError> {
        let (copy, kind) = (self.runtime().hipMemcpyAsync, hipMemcpyDeviceToHost);
        let from = handle::<c_void>(from).cast_const();
        // SAFETY: see above the impl.
        let code = unsafe { copy(to.cast(), from, bytes, kind, handle(stream)) };
        self.check("copying from the device", None, code)
    }

    unsafe fn copy(
        &self,
        to: Raw,
        from: Raw,
        bytes: usize,
        stream: Raw,
    ) -> Result<(), DeviceError> {
        let (copy, kind) = (self.runtime().hipMemcpyAsync, hipMemcpyDeviceToDevice);
        let from = handle::<c_void>(from).cast_const();
        // SAFETY: see above the impl.
        let code = unsafe { copy(handle(to), from, bytes, kind, handle(stream)) };
        self.check("copying on the device", None, code)
    }

    unsafe fn create_stream(&self) -> Result<Raw, DeviceError> {
        let mut stream: hipStream_t = ptr::null_mut();
        let create = self.runtime().hipStreamCreateWithFlags;
        // SAFETY: see above the impl.
        let code = unsafe { create(&raw mut stream, hipStreamNonBlocking) };
        self.check("creating a stream", None, code)?;
        Ok(raw(stream))
    }

    unsafe fn destroy_stream(&self, stream: Raw) {
        // SAFETY: see above the impl.
        let _ = unsafe { (self.runtime().hipStreamDestroy)(handle(stream)) };
    }

    unsafe fn is_of_current_device(&self, stream: Raw) -> Result<bool, DeviceError> {
        let device = self.runtime().hipStreamGetDevice;
        let device = device.ok_or_else(|| self.missing("hipStreamGetDevice"))?;
        let mut found = 0;
        // SAFETY: see above the impl; the default stream's device is the current one.
        let code = unsafe { device(handle(stream), &raw mut found) };
        self.check("asking for a stream's device", None, code)?;
        Ok(usize::try_from(found) == Ok(self.current()?))
    }

    unsafe fn synchronize_stream(&self, stream: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipStreamSynchronize)(handle(stream)) };
        self.check("synchronising a stream", None, code)
    }

    unsafe fn is_idle(&self, stream: Raw) -> Result<bool, DeviceError> {
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipStreamQuery)(handle(stream)) };
        if code == hipErrorNotReady {
            return Ok(false);
        }
        self.check("querying a stream", None, code)?;
        Ok(true)
    }

    unsafe fn wait_event(&self, stream: Raw, event: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipStreamWaitEvent)(handle(stream), handle(event), 0) };
        self.check("waiting for an event", None, code)
    }

    unsafe fn create_event(&self) -> Result<Raw, DeviceError> {
        let mut event: hipEvent_t = ptr::null_mut();
        // SAFETY: see above the impl.
        let code =
            unsafe { (self.runtime().hipEventCreateWithFlags)(&raw mut event, hipEventDefault) };
        self.check("creating an event", None, code)?;
        Ok(raw(event))
    }

    unsafe fn destroy_event(&self, event: Raw) {
        // SAFETY: see above the impl.
        let _ = unsafe { (self.runtime().hipEventDestroy)(handle(event)) };
    }

    unsafe fn record(&self, event: Raw, stream: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipEventRecord)(handle(event), handle(stream)) };
        self.check("recording an event", None, code)
    }

    unsafe fn synchronize_event(&self, event: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipEventSynchronize)(handle(event)) };
        self.check("synchronising an event", None, code)
    }

    unsafe fn elapsed_ms(&self, from: Raw, to: Raw) -> Result<f32, DeviceError> {
        let mut elapsed = 0.0;
        let measure = self.runtime().hipEventElapsedTime;
        // SAFETY: see above the impl.
        let code = unsafe { measure(&raw mut elapsed, handle(from), handle(to)) };
        self.check("reading the time between events", None, code)?;
        Ok(elapsed)
    }

    unsafe fn load_module(&self, image: &[u8]) -> Result<Raw, DeviceError> {
        let mut module: hipModule_t = ptr::null_mut();
        // SAFETY: see above the impl; the image is an ELF file, which tells its own length.
        let code =
            unsafe { (self.runtime().hipModuleLoadData)(&raw mut module, image.as_ptr().cast()) };
        self.check("loading a module", None, code)?;
        Ok(raw(module))
    }

    unsafe fn unload_module(&self, module: Raw) {
        // SAFETY: see above the impl.
        let _ = unsafe { (self.runtime().hipModuleUnload)(handle(module)) };
    }

    /// All of a module is on the device since it was loaded.
    unsafe fn function(&self, module: Raw, name: &CStr) -> Result<Raw, DeviceError> {
        let mut function: hipFunction_t = ptr::null_mut();
        let find = self.runtime().hipModuleGetFunction;
        // SAFETY: see above the impl.
        let code = unsafe { find(&raw mut function, handle(module), name.as_ptr()) };
        self.check("looking a kernel up", None, code)?;
        Ok(raw(function))
    }

    /// A kernel may have as much as there is without being allowed to: that there is so much is found out.
    unsafe fn allow_shared(&self, function: Raw, bytes: u32) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        unsafe { self.check_shared(function, bytes) }
    }

    unsafe fn blocks_per_multiprocessor(
        &self,
        function: Raw,
        threads: u32,
        shared: u32,
    ) -> Result<u32, DeviceError> {
        let mut blocks = 0;
        // SAFETY: see above the impl.
        let code = unsafe {
            (self
                .runtime()
                .hipModuleOccupancyMaxActiveBlocksPerMultiprocessor)(
                &raw mut blocks,
                handle(function),
                threads as c_int,
                shared as usize,
            )
        };
        self.check("asking for the occupancy", None, code)?;
        Ok(blocks.max(0).cast_unsigned())
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
            programmatic: _, // no device says that there are such launches
        } = grid;
        let mut arguments = [arguments.cast_mut().cast::<c_void>()];
        let (function, stream): (hipFunction_t, hipStream_t) = (handle(function), handle(stream));
        let arguments = arguments.as_mut_ptr();
        let runtime = self.runtime();
        let code = if cooperative {
            let launch = runtime.hipModuleLaunchCooperativeKernel;
            let launch = launch.ok_or_else(|| self.missing("hipModuleLaunchCooperativeKernel"))?;
            // SAFETY: see above the impl; the runtime copies the one argument, whose size it knows from the kernel.
            unsafe {
                launch(
                    function, blocks, 1, 1, threads, 1, 1, shared, stream, arguments,
                )
            }
        } else {
            let (launch, none) = (runtime.hipModuleLaunchKernel, ptr::null_mut());
            // SAFETY: as above.
            unsafe {
                launch(
                    function, blocks, 1, 1, threads, 1, 1, shared, stream, arguments, none,
                )
            }
        };
        self.check("launching a kernel", None, code)
    }

    unsafe fn begin_capture(&self, stream: Raw) -> Result<(), DeviceError> {
        let begin = self.runtime().hipStreamBeginCapture;
        // SAFETY: see above the impl.
        let code = unsafe { begin(handle(stream), hipStreamCaptureModeThreadLocal) };
        self.check("beginning a capture", None, code)
    }

    unsafe fn end_capture(&self, stream: Raw) -> Result<Raw, DeviceError> {
        let runtime = self.runtime();
        let (mut graph, mut exec): (_, hipGraphExec_t) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: see above the impl.
        let code = unsafe { (runtime.hipStreamEndCapture)(handle(stream), &raw mut graph) };
        self.check("ending a capture", None, code)?;
        // SAFETY: see above the impl; an executable graph is a copy of the one it was made from.
        let (code, _) = unsafe {
            (
                (runtime.hipGraphInstantiateWithFlags)(&raw mut exec, graph, 0),
                (runtime.hipGraphDestroy)(graph),
            )
        };
        self.check("instantiating a graph", None, code)?;
        Ok(raw(exec))
    }

    unsafe fn launch_graph(&self, graph: Raw, stream: Raw) -> Result<(), DeviceError> {
        // SAFETY: see above the impl.
        let code = unsafe { (self.runtime().hipGraphLaunch)(handle(graph), handle(stream)) };
        self.check("launching a graph", None, code)
    }

    unsafe fn destroy_graph(&self, graph: Raw) {
        // SAFETY: see above the impl.
        let _ = unsafe { (self.runtime().hipGraphExecDestroy)(handle(graph)) };
    }
}

const _: () = assert!(size_of::<hipDeviceptr_t>() == size_of::<Raw>());
