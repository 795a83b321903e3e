//! The functions of the HIP runtime.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use crate::attributes::{
    hipDeviceAttribute_t, hipDeviceP2PAttr, hipFuncAttribute, hipFunction_attribute,
    hipPointer_attribute,
};
use crate::dynamic::table::table;
use crate::enums::{
    hipJitOption, hipMemAllocationGranularity_flags, hipMemAllocationHandleType,
    hipMemRangeHandleType, hipMemcpyKind, hipStreamCaptureMode, hipStreamCaptureStatus,
};
use crate::error::hipError_t;
use crate::types::{
    hipDevice_t, hipDeviceptr_t, hipEvent_t, hipFunction_t, hipGraph_t, hipGraphExec_t,
    hipGraphNode_t, hipHostFn_t, hipIpcEventHandle_t, hipIpcMemHandle_t, hipMemAccessDesc,
    hipMemAllocationProp, hipMemGenericAllocationHandle_t, hipMemLocation, hipModule_t,
    hipPointerAttribute_t, hipStream_t, hipStreamCallback_t, hipUUID,
};

table! {
    /// The functions of the HIP runtime, as they are in C.
    ///
    /// A function that all versions since 5.2 have is there. A younger one is an `Option`, which is empty where the
    /// loaded library does not have it. The functions may be called from any thread; the current device belongs to the
    /// thread. What else each asks for is said in AMD's reference of the HIP runtime.
    pub struct Runtime {
        // The runtime and its devices.

        /// Initialises the runtime. All other functions do so by themselves.
        required fn hipInit(flags: c_uint) -> hipError_t;
        /// The version of the driver; on AMD, that of the runtime.
        required fn hipDriverGetVersion(driverVersion: *mut c_int) -> hipError_t;
        /// The version of the runtime.
        required fn hipRuntimeGetVersion(runtimeVersion: *mut c_int) -> hipError_t;
        /// The name of a code.
        required fn hipGetErrorName(hip_error: hipError_t) -> *const c_char;
        /// What a code says.
        required fn hipGetErrorString(hipError: hipError_t) -> *const c_char;
        /// The last error of this thread, which is then forgotten.
        required fn hipGetLastError() -> hipError_t;
        /// The last error of this thread.
        required fn hipPeekAtLastError() -> hipError_t;
        /// The devices that this process sees.
        required fn hipGetDeviceCount(count: *mut c_int) -> hipError_t;
        /// Makes a device current for this thread.
        required fn hipSetDevice(deviceId: c_int) -> hipError_t;
        /// The current device of this thread.
        required fn hipGetDevice(deviceId: *mut c_int) -> hipError_t;
        /// How the host waits for the current device.
        required fn hipSetDeviceFlags(flags: c_uint) -> hipError_t;
        /// Waits for all work of the current device.
        required fn hipDeviceSynchronize() -> hipError_t;
        /// The device of an ordinal.
        required fn hipDeviceGet(device: *mut hipDevice_t, ordinal: c_int) -> hipError_t;
        /// A property of a device.
        required fn hipDeviceGetAttribute(
            pi: *mut c_int, attr: hipDeviceAttribute_t, deviceId: c_int,
        ) -> hipError_t;
        /// The name of a device, with its end, in `len` bytes.
        required fn hipDeviceGetName(
            name: *mut c_char, len: c_int, device: hipDevice_t,
        ) -> hipError_t;
        /// The PCI address of a device, with its end, in `len` bytes.
        required fn hipDeviceGetPCIBusId(
            pciBusId: *mut c_char, len: c_int, device: c_int,
        ) -> hipError_t;
        /// The device of a PCI address.
        required fn hipDeviceGetByPCIBusId(
            device: *mut c_int, pciBusId: *const c_char,
        ) -> hipError_t;
        /// What tells a device from all others.
        required fn hipDeviceGetUuid(uuid: *mut hipUUID, device: hipDevice_t) -> hipError_t;
        /// The bytes of a device's memory.
        required fn hipDeviceTotalMem(bytes: *mut usize, device: hipDevice_t) -> hipError_t;
        /// The bytes of the current device's memory, free and in all.
        required fn hipMemGetInfo(free: *mut usize, total: *mut usize) -> hipError_t;
        /// The priorities that streams can have. The greatest is the lowest number.
        required fn hipDeviceGetStreamPriorityRange(
            leastPriority: *mut c_int, greatestPriority: *mut c_int,
        ) -> hipError_t;

        // Peers.

        /// Whether a device can reach another's memory.
        required fn hipDeviceCanAccessPeer(
            canAccessPeer: *mut c_int, deviceId: c_int, peerDeviceId: c_int,
        ) -> hipError_t;
        /// Lets the current device reach a peer's memory.
        required fn hipDeviceEnablePeerAccess(peerDeviceId: c_int, flags: c_uint) -> hipError_t;
        /// No longer lets the current device reach a peer's memory.
        required fn hipDeviceDisablePeerAccess(peerDeviceId: c_int) -> hipError_t;
        /// A property of a pair of devices.
        required fn hipDeviceGetP2PAttribute(
            value: *mut c_int, attr: hipDeviceP2PAttr, srcDevice: c_int, dstDevice: c_int,
        ) -> hipError_t;
        /// The link between two devices: its type (2 PCIe, 4 XGMI) and its hops.
        required fn hipExtGetLinkTypeAndHopCount(
            device1: c_int, device2: c_int, linktype: *mut u32, hopcount: *mut u32,
        ) -> hipError_t;

        // Memory.

        /// Allocates memory of the current device.
        required fn hipMalloc(ptr: *mut *mut c_void, size: usize) -> hipError_t;
        /// Allocates memory of the current device that is fine-grained, uncached or a signal.
        required fn hipExtMallocWithFlags(
            ptr: *mut *mut c_void, sizeBytes: usize, flags: c_uint,
        ) -> hipError_t;
        /// Frees device memory, and waits for the device before it does.
        required fn hipFree(ptr: *mut c_void) -> hipError_t;
        /// Allocates device memory in the order of a stream.
        required fn hipMallocAsync(
            dev_ptr: *mut *mut c_void, size: usize, stream: hipStream_t,
        ) -> hipError_t;
        /// Frees device memory in the order of a stream.
        required fn hipFreeAsync(dev_ptr: *mut c_void, stream: hipStream_t) -> hipError_t;
        /// Allocates host memory that devices can reach.
        required fn hipHostMalloc(ptr: *mut *mut c_void, size: usize, flags: c_uint) -> hipError_t;
        /// Frees what [`hipHostMalloc`](Runtime::hipHostMalloc) gave.
        required fn hipHostFree(ptr: *mut c_void) -> hipError_t;
        /// The address of host memory on the current device.
        required fn hipHostGetDevicePointer(
            devPtr: *mut *mut c_void, hstPtr: *mut c_void, flags: c_uint,
        ) -> hipError_t;
        /// The flags that host memory was allocated with.
        required fn hipHostGetFlags(flagsPtr: *mut c_uint, hostPtr: *mut c_void) -> hipError_t;
        /// Lets devices reach host memory that the program has allocated.
        required fn hipHostRegister(
            hostPtr: *mut c_void, sizeBytes: usize, flags: c_uint,
        ) -> hipError_t;
        /// No longer lets devices reach it.
        required fn hipHostUnregister(hostPtr: *mut c_void) -> hipError_t;
        /// The allocation that an address lies in.
        required fn hipMemGetAddressRange(
            pbase: *mut hipDeviceptr_t, psize: *mut usize, dptr: hipDeviceptr_t,
        ) -> hipError_t;
        /// What the runtime knows of a pointer.
        required fn hipPointerGetAttributes(
            attributes: *mut hipPointerAttribute_t, ptr: *const c_void,
        ) -> hipError_t;
        /// A property of a pointer.
        required fn hipPointerGetAttribute(
            data: *mut c_void, attribute: hipPointer_attribute, ptr: hipDeviceptr_t,
        ) -> hipError_t;
        /// Sets a property of a pointer.
        optional fn hipPointerSetAttribute(
            value: *const c_void, attribute: hipPointer_attribute, ptr: hipDeviceptr_t,
        ) -> hipError_t;

        // Copies.

        /// Copies, and waits until it has.
        required fn hipMemcpy(
            dst: *mut c_void, src: *const c_void, sizeBytes: usize, kind: hipMemcpyKind,
        ) -> hipError_t;
        /// Copies in the order of a stream.
        required fn hipMemcpyAsync(
            dst: *mut c_void, src: *const c_void, sizeBytes: usize, kind: hipMemcpyKind,
            stream: hipStream_t,
        ) -> hipError_t;
        /// Copies from device to device in the order of a stream.
        required fn hipMemcpyPeerAsync(
            dst: *mut c_void, dstDeviceId: c_int, src: *const c_void, srcDevice: c_int,
            sizeBytes: usize, stream: hipStream_t,
        ) -> hipError_t;
        /// Sets each byte to a value.
        required fn hipMemset(dst: *mut c_void, value: c_int, sizeBytes: usize) -> hipError_t;
        /// Sets each byte to a value in the order of a stream.
        required fn hipMemsetAsync(
            dst: *mut c_void, value: c_int, sizeBytes: usize, stream: hipStream_t,
        ) -> hipError_t;
        /// Sets each of `count` 32-bit words to a value in the order of a stream.
        required fn hipMemsetD32Async(
            dst: hipDeviceptr_t, value: c_int, count: usize, stream: hipStream_t,
        ) -> hipError_t;

        // Streams.

        /// A new stream.
        required fn hipStreamCreateWithFlags(stream: *mut hipStream_t, flags: c_uint) -> hipError_t;
        /// A new stream with a priority.
        required fn hipStreamCreateWithPriority(
            stream: *mut hipStream_t, flags: c_uint, priority: c_int,
        ) -> hipError_t;
        /// Ends a stream. Its work goes on.
        required fn hipStreamDestroy(stream: hipStream_t) -> hipError_t;
        /// Whether all work of a stream has ended.
        required fn hipStreamQuery(stream: hipStream_t) -> hipError_t;
        /// Waits for all work of a stream.
        required fn hipStreamSynchronize(stream: hipStream_t) -> hipError_t;
        /// Lets a stream wait for an event.
        required fn hipStreamWaitEvent(
            stream: hipStream_t, event: hipEvent_t, flags: c_uint,
        ) -> hipError_t;
        /// The flags of a stream.
        required fn hipStreamGetFlags(stream: hipStream_t, flags: *mut c_uint) -> hipError_t;
        /// The priority of a stream.
        required fn hipStreamGetPriority(stream: hipStream_t, priority: *mut c_int) -> hipError_t;
        /// The device of a stream.
        optional fn hipStreamGetDevice(stream: hipStream_t, device: *mut hipDevice_t) -> hipError_t;
        /// Calls a host function in the order of a stream, and tells it how the stream fares.
        required fn hipStreamAddCallback(
            stream: hipStream_t, callback: hipStreamCallback_t, userData: *mut c_void,
            flags: c_uint,
        ) -> hipError_t;
        /// Calls a host function in the order of a stream.
        optional fn hipLaunchHostFunc(
            stream: hipStream_t, r#fn: hipHostFn_t, userData: *mut c_void,
        ) -> hipError_t;
        /// Lets a stream wait for a 32-bit word of
        /// [`hipMallocSignalMemory`](crate::hipMallocSignalMemory).
        required fn hipStreamWaitValue32(
            stream: hipStream_t, ptr: *mut c_void, value: u32, flags: c_uint, mask: u32,
        ) -> hipError_t;
        /// Lets a stream wait for a 64-bit word of
        /// [`hipMallocSignalMemory`](crate::hipMallocSignalMemory).
        required fn hipStreamWaitValue64(
            stream: hipStream_t, ptr: *mut c_void, value: u64, flags: c_uint, mask: u64,
        ) -> hipError_t;
        /// Writes a 32-bit word in the order of a stream.
        required fn hipStreamWriteValue32(
            stream: hipStream_t, ptr: *mut c_void, value: u32, flags: c_uint,
        ) -> hipError_t;
        /// Writes a 64-bit word in the order of a stream.
        required fn hipStreamWriteValue64(
            stream: hipStream_t, ptr: *mut c_void, value: u64, flags: c_uint,
        ) -> hipError_t;

        // Events.

        /// A new event.
        required fn hipEventCreateWithFlags(event: *mut hipEvent_t, flags: c_uint) -> hipError_t;
        /// Ends an event.
        required fn hipEventDestroy(event: hipEvent_t) -> hipError_t;
        /// Records an event in the order of a stream.
        required fn hipEventRecord(event: hipEvent_t, stream: hipStream_t) -> hipError_t;
        /// Whether an event has come.
        required fn hipEventQuery(event: hipEvent_t) -> hipError_t;
        /// Waits until an event has come.
        required fn hipEventSynchronize(event: hipEvent_t) -> hipError_t;
        /// The milliseconds between two events.
        required fn hipEventElapsedTime(
            ms: *mut f32, start: hipEvent_t, stop: hipEvent_t,
        ) -> hipError_t;

        // Modules and launches.

        /// Loads a code object for the current device.
        required fn hipModuleLoadData(module: *mut hipModule_t, image: *const c_void) -> hipError_t;
        /// Loads a code object for the current device with options.
        required fn hipModuleLoadDataEx(
            module: *mut hipModule_t, image: *const c_void, numOptions: c_uint,
            options: *mut hipJitOption, optionValues: *mut *mut c_void,
        ) -> hipError_t;
        /// Unloads a code object.
        required fn hipModuleUnload(module: hipModule_t) -> hipError_t;
        /// A kernel of a code object.
        required fn hipModuleGetFunction(
            function: *mut hipFunction_t, module: hipModule_t, kname: *const c_char,
        ) -> hipError_t;
        /// A global variable of a code object.
        required fn hipModuleGetGlobal(
            dptr: *mut hipDeviceptr_t, bytes: *mut usize, hmod: hipModule_t, name: *const c_char,
        ) -> hipError_t;
        /// Launches a kernel. The grid is in blocks.
        required fn hipModuleLaunchKernel(
            f: hipFunction_t, gridDimX: c_uint, gridDimY: c_uint, gridDimZ: c_uint,
            blockDimX: c_uint, blockDimY: c_uint, blockDimZ: c_uint, sharedMemBytes: c_uint,
            stream: hipStream_t, kernelParams: *mut *mut c_void, extra: *mut *mut c_void,
        ) -> hipError_t;
        /// Launches a kernel whose blocks run at the same time, or not at all.
        optional fn hipModuleLaunchCooperativeKernel(
            f: hipFunction_t, gridDimX: c_uint, gridDimY: c_uint, gridDimZ: c_uint,
            blockDimX: c_uint, blockDimY: c_uint, blockDimZ: c_uint, sharedMemBytes: c_uint,
            stream: hipStream_t, kernelParams: *mut *mut c_void,
        ) -> hipError_t;
        /// A property of a kernel.
        required fn hipFuncGetAttribute(
            value: *mut c_int, attrib: hipFunction_attribute, hfunc: hipFunction_t,
        ) -> hipError_t;
        /// Sets a property of a kernel that is linked to the program and known by its host function.
        required fn hipFuncSetAttribute(
            func: *const c_void, attr: hipFuncAttribute, value: c_int,
        ) -> hipError_t;
        /// The blocks of a kernel that a multiprocessor can hold.
        required fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
            numBlocks: *mut c_int, f: hipFunction_t, blockSize: c_int, dynSharedMemPerBlk: usize,
        ) -> hipError_t;
        /// The block size at which a kernel fills the device, and the blocks that do.
        required fn hipModuleOccupancyMaxPotentialBlockSize(
            gridSize: *mut c_int, blockSize: *mut c_int, f: hipFunction_t,
            dynSharedMemPerBlk: usize, blockSizeLimit: c_int,
        ) -> hipError_t;

        // Graphs.

        /// Begins to capture a stream's work in a graph.
        required fn hipStreamBeginCapture(
            stream: hipStream_t, mode: hipStreamCaptureMode,
        ) -> hipError_t;
        /// Ends a capture, and gives the graph.
        required fn hipStreamEndCapture(stream: hipStream_t, pGraph: *mut hipGraph_t) -> hipError_t;
        /// Whether a stream is captured.
        required fn hipStreamIsCapturing(
            stream: hipStream_t, pCaptureStatus: *mut hipStreamCaptureStatus,
        ) -> hipError_t;
        /// Whether a stream is captured, and the number of its capture.
        required fn hipStreamGetCaptureInfo(
            stream: hipStream_t, pCaptureStatus: *mut hipStreamCaptureStatus, pId: *mut c_ulonglong,
        ) -> hipError_t;
        /// Changes which calls this thread may make while a stream is captured; gives what was before.
        required fn hipThreadExchangeStreamCaptureMode(
            mode: *mut hipStreamCaptureMode,
        ) -> hipError_t;
        /// Makes a graph ready for launches.
        required fn hipGraphInstantiate(
            pGraphExec: *mut hipGraphExec_t, graph: hipGraph_t, pErrorNode: *mut hipGraphNode_t,
            pLogBuffer: *mut c_char, bufferSize: usize,
        ) -> hipError_t;
        /// Makes a graph ready for launches, with flags.
        required fn hipGraphInstantiateWithFlags(
            pGraphExec: *mut hipGraphExec_t, graph: hipGraph_t, flags: c_ulonglong,
        ) -> hipError_t;
        /// Brings a graph to the device before its first launch.
        optional fn hipGraphUpload(graphExec: hipGraphExec_t, stream: hipStream_t) -> hipError_t;
        /// Launches a graph in the order of a stream.
        required fn hipGraphLaunch(graphExec: hipGraphExec_t, stream: hipStream_t) -> hipError_t;
        /// The nodes of a graph.
        required fn hipGraphGetNodes(
            graph: hipGraph_t, nodes: *mut hipGraphNode_t, numNodes: *mut usize,
        ) -> hipError_t;
        /// Ends a graph.
        required fn hipGraphDestroy(graph: hipGraph_t) -> hipError_t;
        /// Ends a graph that could be launched.
        required fn hipGraphExecDestroy(graphExec: hipGraphExec_t) -> hipError_t;

        // Between processes.

        /// The name of an allocation, for another process of this host.
        required fn hipIpcGetMemHandle(
            handle: *mut hipIpcMemHandle_t, devPtr: *mut c_void,
        ) -> hipError_t;
        /// Maps another process's allocation for the current device.
        required fn hipIpcOpenMemHandle(
            devPtr: *mut *mut c_void, handle: hipIpcMemHandle_t, flags: c_uint,
        ) -> hipError_t;
        /// Unmaps another process's allocation.
        required fn hipIpcCloseMemHandle(devPtr: *mut c_void) -> hipError_t;
        /// The name of an event, for another process of this host.
        required fn hipIpcGetEventHandle(
            handle: *mut hipIpcEventHandle_t, event: hipEvent_t,
        ) -> hipError_t;
        /// Opens another process's event.
        required fn hipIpcOpenEventHandle(
            event: *mut hipEvent_t, handle: hipIpcEventHandle_t,
        ) -> hipError_t;

        // Memory that is created, exported and mapped apart.

        /// What sizes must be multiples of.
        required fn hipMemGetAllocationGranularity(
            granularity: *mut usize, prop: *const hipMemAllocationProp,
            option: hipMemAllocationGranularity_flags,
        ) -> hipError_t;
        /// Creates memory.
        required fn hipMemCreate(
            handle: *mut hipMemGenericAllocationHandle_t, size: usize,
            prop: *const hipMemAllocationProp, flags: c_ulonglong,
        ) -> hipError_t;
        /// Gives a handle back. The memory goes when it is mapped nowhere.
        required fn hipMemRelease(handle: hipMemGenericAllocationHandle_t) -> hipError_t;
        /// Reserves addresses.
        required fn hipMemAddressReserve(
            ptr: *mut *mut c_void, size: usize, alignment: usize, addr: *mut c_void,
            flags: c_ulonglong,
        ) -> hipError_t;
        /// Gives addresses back.
        required fn hipMemAddressFree(devPtr: *mut c_void, size: usize) -> hipError_t;
        /// Maps memory at reserved addresses. It cannot be used before its access is set.
        required fn hipMemMap(
            ptr: *mut c_void, size: usize, offset: usize, handle: hipMemGenericAllocationHandle_t,
            flags: c_ulonglong,
        ) -> hipError_t;
        /// Unmaps memory.
        required fn hipMemUnmap(ptr: *mut c_void, size: usize) -> hipError_t;
        /// Says who may do what with mapped memory.
        required fn hipMemSetAccess(
            ptr: *mut c_void, size: usize, desc: *const hipMemAccessDesc, count: usize,
        ) -> hipError_t;
        /// What a place may do with mapped memory.
        required fn hipMemGetAccess(
            flags: *mut c_ulonglong, location: *const hipMemLocation, ptr: *mut c_void,
        ) -> hipError_t;
        /// Exports memory. A file descriptor is written as an `int`.
        required fn hipMemExportToShareableHandle(
            shareableHandle: *mut c_void, handle: hipMemGenericAllocationHandle_t,
            handleType: hipMemAllocationHandleType, flags: c_ulonglong,
        ) -> hipError_t;
        /// Imports memory. How a file descriptor is given depends on the version:
        /// [`Loaded::import_descriptor`](crate::Loaded::import_descriptor) knows.
        required fn hipMemImportFromShareableHandle(
            handle: *mut hipMemGenericAllocationHandle_t, osHandle: *mut c_void,
            shHandleType: hipMemAllocationHandleType,
        ) -> hipError_t;
        /// The handle of mapped memory.
        required fn hipMemRetainAllocationHandle(
            handle: *mut hipMemGenericAllocationHandle_t, addr: *mut c_void,
        ) -> hipError_t;
        /// What memory a handle is of.
        required fn hipMemGetAllocationPropertiesFromHandle(
            prop: *mut hipMemAllocationProp, handle: hipMemGenericAllocationHandle_t,
        ) -> hipError_t;
        /// A DMA-BUF of a range of addresses.
        optional fn hipMemGetHandleForAddressRange(
            handle: *mut c_void, dptr: hipDeviceptr_t, size: usize,
            handleType: hipMemRangeHandleType, flags: c_ulonglong,
        ) -> hipError_t;
    }
}
