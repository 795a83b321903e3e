//! The enumerations and flags that HIP functions take.

use std::ffi::{c_int, c_uint};

use crate::dynamic::codes::{codes, flags};

codes! {
    /// From where to where a copy goes.
    pub struct hipMemcpyKind(c_uint) {
        /// From host memory to host memory.
        hipMemcpyHostToHost = 0;
        /// From host memory to a device.
        hipMemcpyHostToDevice = 1;
        /// From a device to host memory.
        hipMemcpyDeviceToHost = 2;
        /// From a device to a device.
        hipMemcpyDeviceToDevice = 3;
        /// As the addresses say.
        hipMemcpyDefault = 4;
        /// From a device to a device, by its copy engines.
        hipMemcpyDeviceToDeviceNoCU = 1024;
    }
}

codes! {
    /// A kind of memory. HIP 5 and older have other numbers: 0 for the host, 1 for a device.
    pub struct hipMemoryType(c_uint) {
        /// Memory that the runtime does not know.
        hipMemoryTypeUnregistered = 0;
        /// Host memory.
        hipMemoryTypeHost = 1;
        /// Device memory.
        hipMemoryTypeDevice = 2;
        /// Managed memory.
        hipMemoryTypeManaged = 3;
        /// An array on a device.
        hipMemoryTypeArray = 10;
        /// Memory in the address space of all.
        hipMemoryTypeUnified = 11;
    }
}

codes! {
    /// Which calls of other threads, that a capture cannot tell the effect of, are refused while a stream is captured.
    pub struct hipStreamCaptureMode(c_uint) {
        /// Those of all threads.
        hipStreamCaptureModeGlobal = 0;
        /// Those of the capturing thread.
        hipStreamCaptureModeThreadLocal = 1;
        /// None.
        hipStreamCaptureModeRelaxed = 2;
    }
}

codes! {
    /// Whether a stream is captured.
    pub struct hipStreamCaptureStatus(c_uint) {
        /// It is not.
        hipStreamCaptureStatusNone = 0;
        /// It is.
        hipStreamCaptureStatusActive = 1;
        /// It is, and the capture is spoilt.
        hipStreamCaptureStatusInvalidated = 2;
    }
}

codes! {
    /// What may be done with mapped memory.
    pub struct hipMemAccessFlags(c_uint) {
        /// Nothing.
        hipMemAccessFlagsProtNone = 0;
        /// It may be read.
        hipMemAccessFlagsProtRead = 1;
        /// It may be read and written.
        hipMemAccessFlagsProtReadWrite = 3;
    }
}

codes! {
    /// What memory can be created.
    pub struct hipMemAllocationType(c_uint) {
        /// None.
        hipMemAllocationTypeInvalid = 0;
        /// Memory that stays where it is.
        hipMemAllocationTypePinned = 1;
        /// Memory that stays where it is, and that devices do not cache. HIP 6 does not have it.
        hipMemAllocationTypeUncached = 0x4000_0000;
    }
}

codes! {
    /// What created memory can be exported as.
    pub struct hipMemAllocationHandleType(c_uint) {
        /// Nothing.
        hipMemHandleTypeNone = 0;
        /// A file descriptor.
        hipMemHandleTypePosixFileDescriptor = 1;
        /// A handle of Windows.
        hipMemHandleTypeWin32 = 2;
        /// A handle of the Windows kernel.
        hipMemHandleTypeWin32Kmt = 4;
    }
}

codes! {
    /// Which granularity is asked for.
    pub struct hipMemAllocationGranularity_flags(c_uint) {
        /// The smallest.
        hipMemAllocationGranularityMinimum = 0;
        /// The one that performs best.
        hipMemAllocationGranularityRecommended = 1;
    }
}

codes! {
    /// A kind of place where memory can be.
    pub struct hipMemLocationType(c_uint) {
        /// None.
        hipMemLocationTypeInvalid = 0;
        /// A device.
        hipMemLocationTypeDevice = 1;
        /// The host. HIP 6 does not have it.
        hipMemLocationTypeHost = 2;
    }
}

codes! {
    /// A handle for a range of addresses.
    pub struct hipMemRangeHandleType(c_uint) {
        /// The file descriptor of a DMA-BUF.
        hipMemRangeHandleTypeDmaBufFd = 1;
    }
}

codes! {
    /// How a code object is to be loaded.
    pub struct hipJitOption(c_uint) {
        /// A buffer for what the compiler says.
        hipJitOptionInfoLogBuffer = 3;
        /// The bytes of that buffer.
        hipJitOptionInfoLogBufferSizeBytes = 4;
        /// A buffer for the compiler's errors.
        hipJitOptionErrorLogBuffer = 5;
        /// The bytes of that buffer.
        hipJitOptionErrorLogBufferSizeBytes = 6;
        /// How hard the compiler tries: 0 to 3.
        hipJitOptionOptimizationLevel = 7;
    }
}

flags! {
    /// The host waits for the device as the runtime thinks best.
    hipDeviceScheduleAuto: c_uint = 0x0;
    /// The host spins while it waits for the device.
    hipDeviceScheduleSpin: c_uint = 0x1;
    /// The host yields while it waits for the device.
    hipDeviceScheduleYield: c_uint = 0x2;
    /// The host sleeps while it waits for the device.
    hipDeviceScheduleBlockingSync: c_uint = 0x4;
    /// Host memory can be mapped for the device. Always so on AMD.
    hipDeviceMapHost: c_uint = 0x8;

    /// A stream that waits for the legacy default stream, and that one for it.
    hipStreamDefault: c_uint = 0x0;
    /// A stream that has nothing to do with the legacy default stream.
    hipStreamNonBlocking: c_uint = 0x1;
    /// A stream waits until (word AND mask) >= value.
    hipStreamWaitValueGte: c_uint = 0x0;
    /// A stream waits until (word AND mask) = value.
    hipStreamWaitValueEq: c_uint = 0x1;
    /// A stream waits until (word AND mask AND value) is not 0.
    hipStreamWaitValueAnd: c_uint = 0x2;
    /// A stream waits until NOT ((word AND mask) OR (value AND mask)) is not 0.
    hipStreamWaitValueNor: c_uint = 0x3;

    /// An event with all that events can do, except for other processes.
    hipEventDefault: c_uint = 0x0;
    /// The host sleeps while it waits for the event.
    hipEventBlockingSync: c_uint = 0x1;
    /// An event without time stamps.
    hipEventDisableTiming: c_uint = 0x2;
    /// An event that other processes can open. Needs [`hipEventDisableTiming`].
    hipEventInterprocess: c_uint = 0x4;
    /// The event does not make writes visible beyond the device.
    hipEventDisableSystemFence: c_uint = 0x2000_0000;
    /// The event makes writes visible to the device alone.
    hipEventReleaseToDevice: c_uint = 0x4000_0000;
    /// The event makes writes visible to all.
    hipEventReleaseToSystem: c_uint = 0x8000_0000;

    /// Host memory that is mapped and coherent.
    hipHostMallocDefault: c_uint = 0x0;
    /// Host memory that all devices know as theirs.
    hipHostMallocPortable: c_uint = 0x1;
    /// Host memory that is mapped for the device.
    hipHostMallocMapped: c_uint = 0x2;
    /// Host memory that the host writes past its caches.
    hipHostMallocWriteCombined: c_uint = 0x4;
    /// Host memory on the NUMA node that the caller's policy says.
    hipHostMallocNumaUser: c_uint = 0x2000_0000;
    /// Host memory that is coherent while kernels run: what a kernel writes there is seen before it ends.
    hipHostMallocCoherent: c_uint = 0x4000_0000;
    /// Host memory that devices may cache while kernels run.
    hipHostMallocNonCoherent: c_uint = 0x8000_0000;
    /// Host memory is registered for the current device.
    hipHostRegisterDefault: c_uint = 0x0;
    /// Host memory is registered for all devices.
    hipHostRegisterPortable: c_uint = 0x1;
    /// Registered host memory is mapped for the device.
    hipHostRegisterMapped: c_uint = 0x2;

    /// Device memory that is coherent when a kernel ends.
    hipDeviceMallocDefault: c_uint = 0x0;
    /// Device memory that is coherent with other devices and the host while kernels run.
    hipDeviceMallocFinegrained: c_uint = 0x1;
    /// 8 bytes that a stream can wait for, and the host and other devices can write.
    hipMallocSignalMemory: c_uint = 0x2;
    /// Device memory that devices do not cache. From HIP 5.5 on.
    hipDeviceMallocUncached: c_uint = 0x3;
    /// Device memory that is one piece physically. From HIP 6.2 on.
    hipDeviceMallocContiguous: c_uint = 0x4;

    /// Peer access is enabled when opened memory is first used. HIP 5 has 0.
    hipIpcMemLazyEnablePeerAccess: c_uint = 0x1;
    /// Occupancy as it is by default.
    hipOccupancyDefault: c_uint = 0x0;
    /// A graph frees what an earlier launch has allocated before it is launched again.
    hipGraphInstantiateFlagAutoFreeOnLaunch: c_uint = 0x1;
    /// A graph is uploaded when it is instantiated.
    hipGraphInstantiateFlagUpload: c_uint = 0x2;
    /// The host in place of a device.
    hipCpuDeviceId: c_int = -1;
    /// No device.
    hipInvalidDeviceId: c_int = -2;
}
