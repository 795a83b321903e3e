//! What a device, a pair of devices, a kernel or a pointer can be asked for.

use std::ffi::c_uint;

use crate::dynamic::codes::codes;

codes! {
    /// A property of a device, for [`hipDeviceGetAttribute`](crate::Runtime::hipDeviceGetAttribute).
    ///
    /// Those of use to a compute runtime, and of the same number in all versions of HIP. The layout of
    /// `hipDeviceProp_t` is not the same in all, which is why these bindings do not have it.
    pub struct hipDeviceAttribute_t(c_uint) {
        /// Whether its memory corrects errors.
        hipDeviceAttributeEccEnabled = 0;
        /// Copies that it makes at the same time.
        hipDeviceAttributeAsyncEngineCount = 2;
        /// Whether it can reach host memory that is mapped for it.
        hipDeviceAttributeCanMapHostMemory = 3;
        /// Whether registered host memory has the same address on it as on the host.
        hipDeviceAttributeCanUseHostPointerForRegisteredMem = 4;
        /// Its highest clock rate, in kHz.
        hipDeviceAttributeClockRate = 5;
        /// Who may use it.
        hipDeviceAttributeComputeMode = 6;
        /// Whether kernels can run on it side by side.
        hipDeviceAttributeConcurrentKernels = 8;
        /// Whether it and the host may use managed memory at the same time.
        hipDeviceAttributeConcurrentManagedAccess = 9;
        /// Whether it takes cooperative launches.
        hipDeviceAttributeCooperativeLaunch = 10;
        /// Whether it takes cooperative launches on several devices.
        hipDeviceAttributeCooperativeMultiDeviceLaunch = 11;
        /// Whether the host can reach managed memory on it in place.
        hipDeviceAttributeDirectManagedMemAccessFromHost = 13;
        /// Whether its link to the host has native atomic operations.
        hipDeviceAttributeHostNativeAtomicSupported = 15;
        /// Whether it shares its memory with the host.
        hipDeviceAttributeIntegrated = 16;
        /// Whether its kernels have a time limit.
        hipDeviceAttributeKernelExecTimeout = 18;
        /// Bytes of its L2 cache.
        hipDeviceAttributeL2CacheSize = 19;
        /// The first number of its architecture: 9 for gfx942.
        hipDeviceAttributeComputeCapabilityMajor = 23;
        /// Whether it has managed memory.
        hipDeviceAttributeManagedMemory = 24;
        /// Blocks that a multiprocessor can hold.
        hipDeviceAttributeMaxBlocksPerMultiProcessor = 25;
        /// Threads of a block in x.
        hipDeviceAttributeMaxBlockDimX = 26;
        /// Threads of a block in y.
        hipDeviceAttributeMaxBlockDimY = 27;
        /// Threads of a block in z.
        hipDeviceAttributeMaxBlockDimZ = 28;
        /// Blocks of a grid in x.
        hipDeviceAttributeMaxGridDimX = 29;
        /// Blocks of a grid in y.
        hipDeviceAttributeMaxGridDimY = 30;
        /// Blocks of a grid in z.
        hipDeviceAttributeMaxGridDimZ = 31;
        /// Threads of a block in all.
        hipDeviceAttributeMaxThreadsPerBlock = 56;
        /// Threads that a multiprocessor can hold.
        hipDeviceAttributeMaxThreadsPerMultiProcessor = 57;
        /// The largest pitch of a copy, in bytes.
        hipDeviceAttributeMaxPitch = 58;
        /// The width of its memory bus, in bits.
        hipDeviceAttributeMemoryBusWidth = 59;
        /// Its memory's highest clock rate, in kHz.
        hipDeviceAttributeMemoryClockRate = 60;
        /// The second number of its architecture: 4 for gfx942.
        hipDeviceAttributeComputeCapabilityMinor = 61;
        /// Its multiprocessors: compute units, as a rule.
        hipDeviceAttributeMultiprocessorCount = 63;
        /// Whether it can reach pageable host memory.
        hipDeviceAttributePageableMemoryAccess = 65;
        /// Whether it does so through the host's page tables.
        hipDeviceAttributePageableMemoryAccessUsesHostPageTables = 66;
        /// Its bus, of its PCI address.
        hipDeviceAttributePciBusId = 67;
        /// Its slot, of its PCI address.
        hipDeviceAttributePciDeviceId = 68;
        /// Its domain, of its PCI address.
        hipDeviceAttributePciDomainID = 69;
        /// Registers of a block.
        hipDeviceAttributeMaxRegistersPerBlock = 71;
        /// Registers of a multiprocessor.
        hipDeviceAttributeMaxRegistersPerMultiprocessor = 72;
        /// Bytes of shared memory (LDS) of a block.
        hipDeviceAttributeMaxSharedMemoryPerBlock = 74;
        /// Bytes of shared memory of a block that asks for the most.
        hipDeviceAttributeSharedMemPerBlockOptin = 75;
        /// Bytes of shared memory of a multiprocessor.
        hipDeviceAttributeSharedMemPerMultiprocessor = 76;
        /// Whether streams can have priorities.
        hipDeviceAttributeStreamPrioritiesSupported = 78;
        /// Bytes of constant memory.
        hipDeviceAttributeTotalConstantMemory = 83;
        /// Bytes of its memory, as far as an `int` can tell;
        /// [`hipDeviceTotalMem`](crate::Runtime::hipDeviceTotalMem) has the whole number.
        hipDeviceAttributeTotalGlobalMem = 84;
        /// Whether it shares its address space with the host.
        hipDeviceAttributeUnifiedAddressing = 85;
        /// Threads of a wave.
        hipDeviceAttributeWarpSize = 87;
        /// Whether it allocates in stream order.
        hipDeviceAttributeMemoryPoolsSupported = 88;
        /// Whether its memory can be created and mapped apart.
        hipDeviceAttributeVirtualMemoryManagementSupported = 89;
        /// Whether host memory can be registered for it.
        hipDeviceAttributeHostRegisterSupported = 90;
        /// The rate of the counter behind `clock()` in kernels, in kHz.
        hipDeviceAttributeClockInstructionRate = 10000;
        /// Bytes of shared memory of a multiprocessor: AMD's number for it.
        hipDeviceAttributeMaxSharedMemoryPerMultiprocessor = 10002;
        /// Where its register that flushes the HDP's memory is mapped.
        hipDeviceAttributeHdpMemFlushCntl = 10005;
        /// Where its register that flushes the HDP's registers is mapped.
        hipDeviceAttributeHdpRegFlushCntl = 10006;
        /// Whether the host can reach all of its memory over PCI.
        hipDeviceAttributeIsLargeBar = 10011;
        /// The revision of its chip.
        hipDeviceAttributeAsicRevision = 10012;
        /// Whether streams can wait for a value in memory.
        hipDeviceAttributeCanUseStreamWaitValue = 10013;
        /// Compute units that it has, enabled for this process or not.
        hipDeviceAttributePhysicalMultiProcessorCount = 10015;
        /// Whether its memory can be fine-grained.
        hipDeviceAttributeFineGrainSupport = 10016;
        /// The rate of the counter behind `wall_clock64()` in kernels, in kHz.
        hipDeviceAttributeWallClockRate = 10017;
        /// Its accelerator complex dies (XCDs).
        hipDeviceAttributeNumberOfXccs = 10018;
    }
}

codes! {
    /// A property of a pair of devices, for
    /// [`hipDeviceGetP2PAttribute`](crate::Runtime::hipDeviceGetP2PAttribute).
    pub struct hipDeviceP2PAttr(c_uint) {
        /// How fast the link between them is; lower is faster.
        hipDevP2PAttrPerformanceRank = 0;
        /// Whether one can reach the other's memory.
        hipDevP2PAttrAccessSupported = 1;
        /// Whether the link has native atomic operations.
        hipDevP2PAttrNativeAtomicSupported = 2;
        /// Whether one can reach the other's arrays.
        hipDevP2PAttrHipArrayAccessSupported = 3;
    }
}

codes! {
    /// A property of a kernel, for [`hipFuncGetAttribute`](crate::Runtime::hipFuncGetAttribute).
    pub struct hipFunction_attribute(c_uint) {
        /// The most threads that a block of it can have.
        HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0;
        /// Bytes of shared memory that it declares.
        HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1;
        /// Bytes of constant memory that it declares.
        HIP_FUNC_ATTRIBUTE_CONST_SIZE_BYTES = 2;
        /// Bytes of scratch memory of a thread: more than 0 where registers spill.
        HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3;
        /// Registers of a thread.
        HIP_FUNC_ATTRIBUTE_NUM_REGS = 4;
        /// The version of its PTX. For NVIDIA alone.
        HIP_FUNC_ATTRIBUTE_PTX_VERSION = 5;
        /// The version of its code.
        HIP_FUNC_ATTRIBUTE_BINARY_VERSION = 6;
        /// How its loads are cached.
        HIP_FUNC_ATTRIBUTE_CACHE_MODE_CA = 7;
        /// The most shared memory that a launch may add, in bytes.
        HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
        /// The part of the L1 cache that it wants as shared memory, in percent.
        HIP_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT = 9;
    }
}

codes! {
    /// A property of a kernel that can be set, for
    /// [`hipFuncSetAttribute`](crate::Runtime::hipFuncSetAttribute).
    pub struct hipFuncAttribute(c_uint) {
        /// The most shared memory that a launch may add, in bytes.
        hipFuncAttributeMaxDynamicSharedMemorySize = 8;
        /// The part of the L1 cache that it wants as shared memory, in percent.
        hipFuncAttributePreferredSharedMemoryCarveout = 9;
    }
}

codes! {
    /// A property of a pointer, for [`hipPointerGetAttribute`](crate::Runtime::hipPointerGetAttribute).
    pub struct hipPointer_attribute(c_uint) {
        /// The kind of memory.
        HIP_POINTER_ATTRIBUTE_MEMORY_TYPE = 2;
        /// The address on the device.
        HIP_POINTER_ATTRIBUTE_DEVICE_POINTER = 3;
        /// The address on the host.
        HIP_POINTER_ATTRIBUTE_HOST_POINTER = 4;
        /// Whether calls that are synchronous by their name are so on this memory.
        HIP_POINTER_ATTRIBUTE_SYNC_MEMOPS = 6;
        /// A number that no other allocation of this process has.
        HIP_POINTER_ATTRIBUTE_BUFFER_ID = 7;
        /// Whether it is managed memory.
        HIP_POINTER_ATTRIBUTE_IS_MANAGED = 8;
        /// The device that it was allocated for.
        HIP_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9;
        /// The start of its allocation.
        HIP_POINTER_ATTRIBUTE_RANGE_START_ADDR = 11;
        /// The bytes of its allocation.
        HIP_POINTER_ATTRIBUTE_RANGE_SIZE = 12;
        /// Whether memory is mapped there.
        HIP_POINTER_ATTRIBUTE_MAPPED = 13;
        /// The handles that it can be exported as.
        HIP_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES = 14;
        /// Whether a network device can reach it.
        HIP_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE = 15;
    }
}
