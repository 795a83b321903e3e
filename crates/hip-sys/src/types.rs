//! Handles and structs, with the layouts of HIP 6.0 and later.

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_ushort, c_void};

use crate::dynamic::codes::handles;
use crate::enums::{
    hipMemAccessFlags, hipMemAllocationHandleType, hipMemAllocationType, hipMemLocationType,
    hipMemoryType,
};
use crate::error::hipError_t;

handles! {
    /// A stream. Null is the legacy default stream.
    hipStream_t = *mut ihipStream_t;
    /// An event.
    hipEvent_t = *mut ihipEvent_t;
    /// A loaded code object.
    hipModule_t = *mut ihipModule_t;
    /// A kernel of a loaded code object.
    hipFunction_t = *mut ihipModuleSymbol_t;
    /// A graph.
    hipGraph_t = *mut ihipGraph;
    /// A graph that can be launched.
    hipGraphExec_t = *mut hipGraphExec;
    /// A node of a graph.
    hipGraphNode_t = *mut hipGraphNode;
    /// Memory that can be mapped.
    hipMemGenericAllocationHandle_t = *mut ihipMemGenericAllocationHandle;
}

/// A device. HIP's are the ordinals themselves.
pub type hipDevice_t = c_int;

/// An address on a device.
pub type hipDeviceptr_t = *mut c_void;

/// A function that a stream calls on the host, with the data given along with it.
pub type hipHostFn_t = Option<unsafe extern "C" fn(userData: *mut c_void)>;

/// A function that a stream calls on the host, and that is told how the stream fares.
pub type hipStreamCallback_t =
    Option<unsafe extern "C" fn(stream: hipStream_t, status: hipError_t, userData: *mut c_void)>;

/// The name of an allocation, for another process of this host.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct hipIpcMemHandle_t {
    /// The runtime's own.
    pub reserved: [c_char; 64],
}

/// The name of an event, for another process of this host.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct hipIpcEventHandle_t {
    /// The runtime's own.
    pub reserved: [c_char; 64],
}

/// What tells a device from all others.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct hipUUID {
    /// On AMD, 16 characters in ASCII.
    pub bytes: [c_char; 16],
}

/// Where memory is, or who uses it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct hipMemLocation {
    /// What kind of place it is.
    pub r#type: hipMemLocationType,
    /// Which of its kind: the device's ordinal.
    pub id: c_int,
}

/// The rest of [`hipMemAllocationProp`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct hipMemAllocationFlags {
    /// Whether the memory is compressed.
    pub compressionType: c_uchar,
    /// Whether a network device can reach it.
    pub gpuDirectRDMACapable: c_uchar,
    /// What it is for.
    pub usage: c_ushort,
}

/// What memory is to be created.
///
/// HIP 5.2 and older have the same fields in another order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct hipMemAllocationProp {
    /// Its kind.
    pub r#type: hipMemAllocationType,
    /// What it can be exported as. Fixed when it is created.
    pub requestedHandleTypes: hipMemAllocationHandleType,
    /// Where it is.
    pub location: hipMemLocation,
    /// For Windows alone. Null.
    pub win32HandleMetaData: *mut c_void,
    /// The rest.
    pub allocFlags: hipMemAllocationFlags,
}

/// Who may do what with mapped memory.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct hipMemAccessDesc {
    /// Who.
    pub location: hipMemLocation,
    /// What.
    pub flags: hipMemAccessFlags,
}

/// What the runtime knows of a pointer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct hipPointerAttribute_t {
    /// The kind of memory. HIP 5 has other numbers for the kinds.
    pub r#type: hipMemoryType,
    /// The device that it was allocated for, or that was current.
    pub device: c_int,
    /// Its address on the device.
    pub devicePointer: *mut c_void,
    /// Its address on the host.
    pub hostPointer: *mut c_void,
    /// Whether it is managed memory.
    pub isManaged: c_int,
    /// The flags it was allocated with.
    pub allocationFlags: c_uint,
}

const _: () = {
    assert!(size_of::<hipIpcMemHandle_t>() == 64);
    assert!(size_of::<hipIpcEventHandle_t>() == 64);
    assert!(size_of::<hipUUID>() == 16);
    assert!(size_of::<hipMemLocation>() == 8);
    assert!(size_of::<hipMemAllocationFlags>() == 4);
    assert!(size_of::<hipMemAllocationProp>() == 32);
    assert!(size_of::<hipMemAccessDesc>() == 12);
    assert!(size_of::<hipPointerAttribute_t>() == 32);
    assert!(size_of::<hipHostFn_t>() == size_of::<*mut c_void>());
    assert!(size_of::<hipStreamCallback_t>() == size_of::<*mut c_void>());
};
