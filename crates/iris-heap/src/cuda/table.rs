//! The functions of the CUDA driver that are used, as they are: status codes are integers, since a newer driver may return codes
//! that no enum of ours knows.

use crate::device::DeviceError;
use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

/// The driver library's names, in the order in which they are tried.
const LIBRARIES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
/// What names another one.
const OVERRIDE: &str = "IRIS_CUDA_LIBRARY";
/// The runtime's name, for messages.
pub(super) const NAME: &str = "CUDA driver";

pub(super) type Status = c_int;
pub(super) type Pointer = u64; // CUdeviceptr
pub(super) type Handle = *mut c_void; // contexts, streams, events, modules, functions, graphs

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct AllocationProp {
    pub(super) kind: c_uint,
    pub(super) handle_types: c_uint,
    pub(super) location: Location,
    pub(super) win32: *mut c_void,
    /// `allocFlags`: compression, RDMA, usage and four reserved bytes.
    pub(super) flags: [u8; 8],
}

/// `CUmemLocation`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Location {
    pub(super) kind: c_uint,
    pub(super) id: c_int,
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct AccessDesc {
    pub(super) location: Location,
    pub(super) flags: c_uint,
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct LaunchConfig {
    pub(super) blocks: [c_uint; 3],
    pub(super) threads: [c_uint; 3],
    pub(super) shared: c_uint,
    pub(super) stream: Handle,
    pub(super) attributes: *const LaunchAttribute,
    pub(super) count: c_uint,
}

/// `CUlaunchAttribute`, of those whose value is a number.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct LaunchAttribute {
    pub(super) id: c_uint,
    pad: c_uint,
    pub(super) value: c_int,
    rest: [c_int; 15],
}

impl LaunchAttribute {
    /// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
    pub(super) const COOPERATIVE: c_uint = 2;
    /// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
    pub(super) const PROGRAMMATIC: c_uint = 6;

    /// That one, set.
    pub(super) const fn set(id: c_uint) -> Self {
        Self {
            id,
            pad: 0,
            value: 1,
            rest: [0; 15],
        }
    }
}

const _: () = assert!(size_of::<AllocationProp>() == 32 && size_of::<AccessDesc>() == 12);
const _: () = assert!(size_of::<LaunchConfig>() == 56 && size_of::<LaunchAttribute>() == 72);

/// The oldest version whose driver has all functions of the table that are not optional: 11.4, of `cuGraphInstantiateWithFlags`
/// and `cuDeviceGetUuid_v2`.
const OLDEST: c_int = 11_040;

/// `12.4` for 12040.
fn version_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Whether a driver of that version has what is needed.
fn check_version(version: c_int) -> Result<(), DeviceError> {
    if version >= OLDEST {
        return Ok(());
    }
    Err(DeviceError::TooOld {
        runtime: NAME,
        found: version_text(version),
        needed: version_text(OLDEST),
    })
}

macro_rules! table {
    (
        required { $($field:ident: $symbol:literal ($($argument:ty),*);)* }
        optional { $($younger:ident: $younger_symbol:literal ($($younger_argument:ty),*);)* }
    ) => {
        /// Pointers into the loaded library.
        pub(super) struct Table {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> Status,)*
            $(pub(super) $younger: Option<unsafe extern "C" fn($($younger_argument),*) -> Status>,)*
            /// The library's name.
            pub(super) library: String,
        }

        impl Table {
            /// Loads the library and looks all functions up.
            pub(super) fn load() -> Result<Self, DeviceError> {
                let named = std::env::var(OVERRIDE).ok();
                let names: Vec<&str> = match &named {
                    Some(name) => vec![name],
                    None => LIBRARIES.to_vec(),
                };
                let mut tried = Vec::new();
                for name in names {
                    // SAFETY: the driver's initialisers run, as they do in every program that uses it.
                    let library = match unsafe { libloading::Library::new(name) } {
                        Ok(library) => library,
                        Err(error) => {
                            tried.push((name.to_owned(), error.to_string()));
                            continue;
                        }
                    };
                    // Never unloaded: the driver's threads may outlive whoever used it last.
                    let library = std::mem::ManuallyDrop::new(library);
                    // Before anything is missed: that it is too old says more than what it lacks.
                    // SAFETY: the signature is that of cuda.h.
                    let version = unsafe {
                        library.get::<unsafe extern "C" fn(*mut c_int) -> Status>(b"cuDriverGetVersion\0")
                    };
                    let mut found = 0;
                    // SAFETY: takes one pointer, which is valid; may be called before the driver is initialised.
                    if version.is_ok_and(|version| unsafe { version(&raw mut found) } == 0) {
                        check_version(found)?;
                    }
                    return Ok(Self {
                        $($field: {
                            // SAFETY: the signature is that of the function of this name in cuda.h.
                            let found = unsafe { library.get(concat!($symbol, "\0").as_bytes()) };
                            *found.map_err(|_| DeviceError::MissingFunction {
                                runtime: NAME,
                                library: name.to_owned(),
                                symbol: $symbol,
                            })?
                        },)*
                        $($younger: {
                            // SAFETY: as above.
                            let found = unsafe { library.get(concat!($younger_symbol, "\0").as_bytes()) };
                            found.ok().map(|function| *function)
                        },)*
                        library: name.to_owned(),
                    });
                }
                Err(DeviceError::NotThere { runtime: NAME, tried })
            }
        }
    };
}

table! {
    required {
        init: "cuInit" (c_uint);
        version: "cuDriverGetVersion" (*mut c_int);
        error_name: "cuGetErrorName" (Status, *mut *const c_char);
        count: "cuDeviceGetCount" (*mut c_int);
        name: "cuDeviceGetName" (*mut c_char, c_int, c_int);
        pci_bus_id: "cuDeviceGetPCIBusId" (*mut c_char, c_int, c_int);
        uuid: "cuDeviceGetUuid_v2" (*mut [u8; 16], c_int);
        total_memory: "cuDeviceTotalMem_v2" (*mut usize, c_int);
        attribute: "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
        can_access: "cuDeviceCanAccessPeer" (*mut c_int, c_int, c_int);
        p2p_attribute: "cuDeviceGetP2PAttribute" (*mut c_int, c_int, c_int, c_int);
        retain: "cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
        release: "cuDevicePrimaryCtxRelease_v2" (c_int);
        set_current: "cuCtxSetCurrent" (Handle);
        synchronize: "cuCtxSynchronize" ();
        memory_info: "cuMemGetInfo_v2" (*mut usize, *mut usize);
        pointer_attribute: "cuPointerGetAttribute" (*mut c_void, c_int, Pointer);
        address_range: "cuMemGetAddressRange_v2" (*mut Pointer, *mut usize, Pointer);
        allocate: "cuMemAlloc_v2" (*mut Pointer, usize);
        free: "cuMemFree_v2" (Pointer);
        allocate_host: "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
        free_host: "cuMemFreeHost" (*mut c_void);
        device_pointer: "cuMemHostGetDevicePointer_v2" (*mut Pointer, *mut c_void, c_uint);
        granularity: "cuMemGetAllocationGranularity" (*mut usize, *const AllocationProp, c_uint);
        create: "cuMemCreate" (*mut c_ulonglong, usize, *const AllocationProp, c_ulonglong);
        release_handle: "cuMemRelease" (c_ulonglong);
        export: "cuMemExportToShareableHandle" (*mut c_void, c_ulonglong, c_uint, c_ulonglong);
        import: "cuMemImportFromShareableHandle" (*mut c_ulonglong, *mut c_void, c_uint);
        reserve: "cuMemAddressReserve" (*mut Pointer, usize, usize, Pointer, c_ulonglong);
        unreserve: "cuMemAddressFree" (Pointer, usize);
        map: "cuMemMap" (Pointer, usize, usize, c_ulonglong, c_ulonglong);
        unmap: "cuMemUnmap" (Pointer, usize);
        set_access: "cuMemSetAccess" (Pointer, usize, *const AccessDesc, usize);
        fill: "cuMemsetD8Async" (Pointer, u8, usize, Handle);
        upload: "cuMemcpyHtoDAsync_v2" (Pointer, *const c_void, usize, Handle);
        download: "cuMemcpyDtoHAsync_v2" (*mut c_void, Pointer, usize, Handle);
        copy: "cuMemcpyAsync" (Pointer, Pointer, usize, Handle);
        create_stream: "cuStreamCreate" (*mut Handle, c_uint);
        destroy_stream: "cuStreamDestroy_v2" (Handle);
        stream_context: "cuStreamGetCtx" (Handle, *mut Handle);
        synchronize_stream: "cuStreamSynchronize" (Handle);
        query_stream: "cuStreamQuery" (Handle);
        wait_event: "cuStreamWaitEvent" (Handle, Handle, c_uint);
        create_event: "cuEventCreate" (*mut Handle, c_uint);
        destroy_event: "cuEventDestroy_v2" (Handle);
        record: "cuEventRecord" (Handle, Handle);
        synchronize_event: "cuEventSynchronize" (Handle);
        elapsed: "cuEventElapsedTime" (*mut f32, Handle, Handle);
        load_module: "cuModuleLoadData" (*mut Handle, *const c_void);
        unload_module: "cuModuleUnload" (Handle);
        function: "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
        set_function_attribute: "cuFuncSetAttribute" (Handle, c_int, c_int);
        occupancy: "cuOccupancyMaxActiveBlocksPerMultiprocessor" (*mut c_int, Handle, c_int, usize);
        launch: "cuLaunchKernel" (
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void
        );
        launch_cooperative: "cuLaunchCooperativeKernel" (
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void
        );
        begin_capture: "cuStreamBeginCapture_v2" (Handle, c_uint);
        end_capture: "cuStreamEndCapture" (Handle, *mut Handle);
        instantiate: "cuGraphInstantiateWithFlags" (*mut Handle, Handle, c_ulonglong);
        launch_graph: "cuGraphLaunch" (Handle, Handle);
        destroy_exec: "cuGraphExecDestroy" (Handle);
        destroy_graph: "cuGraphDestroy" (Handle);
    }
    optional {
        launch_with: "cuLaunchKernelEx" (*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void); // from 11.8 on
        load_function: "cuFuncLoad" (Handle); // from 12.4 on
        encode_tensor_map: "cuTensorMapEncodeTiled" (
            *mut c_void, c_uint, c_uint, *mut c_void, *const u64, *const u64, *const c_uint, *const c_uint, c_uint, c_uint, c_uint, c_uint
        ); // from 12.0 on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_is_too_old_is_refused_with_both_versions() {
        for version in [11_040, 11_080, 12_000, 13_000, 20_010] {
            check_version(version).unwrap();
        }
        for (version, found) in [(11_020, "11.2"), (10_010, "10.1"), (0, "0.0")] {
            assert_eq!(
                check_version(version).unwrap_err().to_string(),
                format!(
                    "CUDA driver is of version {found}, and 11.4 is the oldest that can be used"
                )
            );
        }
    }
}
