//! The bindings against AMD's C headers, as the C compiler of this machine reads them.
//!
//! The headers are those below `$IRIS_HIP_INCLUDE`, those of Debian's `libamdhip64-dev` unpacked in
//! `target/headers/hip`, or those of an installed ROCm.

use std::env;
use std::mem::offset_of;
use std::path::{Path, PathBuf};

use hip_sys::*;

use crate::support::compiler::Compiler;
use crate::support::header::{Checks, Header, size_of_field};
use crate::support::{skip, unpacked};

/// What headers before a version do not have.
const SINCE: &[(Version, &[&str])] = &[
    (
        Version::new(5, 3, 0),
        &[
            "HIPRTC_ERROR_LINKING",
            "hipDeviceAttributeVirtualMemoryManagementSupported",
            "hipDeviceAttributeWallClockRate",
            "hipGraphUpload",
            "hipMemAllocationProp.allocFlags",
            "hipMemAllocationProp.allocFlags.compressionType",
            "hipMemAllocationProp.allocFlags.gpuDirectRDMACapable",
            "hipMemAllocationProp.allocFlags.usage",
            "hipMemoryTypeManaged",
            "hiprtcGetBitcode",
            "hiprtcGetBitcodeSize",
        ],
    ),
    (
        Version::new(5, 5, 0),
        &[
            "hipDeviceMallocUncached",
            "hipModuleLaunchCooperativeKernel",
            "hipPointerSetAttribute",
        ],
    ),
    (
        Version::new(5, 6, 0),
        &[
            "hipEventDisableSystemFence",
            "hipGraphInstantiateFlagUpload",
            "hipStreamGetDevice",
        ],
    ),
    (
        Version::new(6, 0, 0),
        &[
            "hipDeviceAttributeHostRegisterSupported",
            "hipMemoryTypeUnregistered",
        ],
    ),
    (Version::new(6, 1, 0), &["hipMemcpyDeviceToDeviceNoCU"]),
    (Version::new(6, 2, 0), &["hipDeviceMallocContiguous"]),
    (
        Version::new(6, 3, 0),
        &["hipErrorInvalidChannelDescriptor", "hipErrorInvalidTexture"],
    ),
    (
        Version::new(7, 1, 0),
        &[
            "hipDeviceAttributeNumberOfXccs",
            "hipMemAllocationTypeUncached",
            "hipMemGetHandleForAddressRange",
            "hipMemLocationTypeHost",
            "hipMemRangeHandleType",
            "hipMemRangeHandleTypeDmaBufFd",
        ],
    ),
];

/// What headers before a version say otherwise.
const DIFFERENT_BEFORE: &[(Version, &[&str])] = &[
    (
        Version::new(5, 3, 0),
        &[
            "hipMemAllocationProp.location",
            "hipMemAllocationProp.requestedHandleType",
            "hipMemAllocationProp.type",
            "hipMemAllocationProp.win32HandleMetaData",
        ],
    ),
    (
        Version::new(6, 0, 0),
        &[
            "hipIpcMemLazyEnablePeerAccess",
            "hipMemoryTypeArray",
            "hipMemoryTypeDevice",
            "hipMemoryTypeHost",
            "hipMemoryTypeManaged",
            "hipMemoryTypeUnified",
        ],
    ),
];

/// The directory with `hip/hip_runtime_api.h`.
fn include() -> Option<PathBuf> {
    let has = |directory: &Path| directory.join("hip/hip_runtime_api.h").is_file();
    if let Some(named) = env::var_os("IRIS_HIP_INCLUDE") {
        let named = PathBuf::from(named);
        assert!(
            has(&named),
            "IRIS_HIP_INCLUDE is {}, which has no HIP header",
            named.display()
        );
        return Some(named);
    }
    let known = [
        unpacked("hip/usr/include"),
        "/opt/rocm/include".into(),
        "/usr/include".into(),
    ];
    known.into_iter().find(|directory| has(directory))
}

fn header(prelude: &str) -> Option<(Header, PathBuf)> {
    let Some(compiler) = Compiler::find() else {
        skip("there is no C compiler");
        return None;
    };
    let Some(include) = include() else {
        skip("there is no HIP header");
        return None;
    };
    let defines = ["__HIP_PLATFORM_AMD__"];
    let directories = std::slice::from_ref(&include);
    Some((
        Header::new(compiler, prelude, directories, &defines),
        include,
    ))
}

fn version(header: &Header) -> Version {
    let [major, minor] = header.evaluate(["HIP_VERSION_MAJOR", "HIP_VERSION_MINOR"])[..] else {
        panic!("a version has two numbers");
    };
    Version::new(major as u32, minor as u32, 0)
}

/// Asks, and holds the answer against what this version of the header may lack and differ in.
fn ask(header: &Header, checks: Checks) {
    let version = version(header);
    let report = header.ask(checks);
    eprintln!(
        "HIP {version}: {} agree; {} differ: {:?}; {} not in the header: {:?}",
        report.agreed,
        report.different.len(),
        report
            .different
            .iter()
            .map(|(_, words)| words)
            .collect::<Vec<_>>(),
        report.absent.len(),
        report.absent,
    );
    let excused = |name: &str, list: &[(Version, &[&str])]| {
        let mut list = list.iter().filter(|&&(since, _)| version < since);
        list.any(|(_, names)| names.contains(&name))
    };
    let mut absent = report.absent;
    absent.retain(|name| !excused(name, SINCE));
    assert!(
        absent.is_empty(),
        "not in the header of HIP {version}: {absent:#?}"
    );
    let mut different = report.different;
    different.retain(|(name, _)| !excused(name, DIFFERENT_BEFORE));
    assert!(
        different.is_empty(),
        "different in the header of HIP {version}: {different:#?}"
    );
    assert!(report.agreed > 0, "nothing was compared");
}

macro_rules! codes {
    ($checks:ident: $($type:ident)*) => {$(
        $checks.size::<$type>(stringify!($type));
        for &(name, value) in $type::NAMED {
            $checks.constant(name, value.0.into());
        }
    )*};
}

macro_rules! sizes {
    ($checks:ident: $($type:ident)*) => {$($checks.size::<$type>(stringify!($type));)*};
}

/// Fields, each by its name here, and its name in the header where that is another.
macro_rules! fields {
    ($checks:ident: $type:ident { $($field:ident $(as $name:expr)?),* $(,)? }) => {$(
        let names = [stringify!($field) $(, $name)?];
        $checks.field(
            stringify!($type),
            names[names.len() - 1].trim_start_matches("r#"),
            offset_of!($type, $field),
            size_of_field(|value: &$type| &value.$field),
        );
    )*};
}

#[test]
fn the_runtimes_constants_are_those_of_the_header() {
    let Some((header, _)) = header("#include <hip/hip_runtime_api.h>") else {
        return;
    };
    let mut checks = Checks::default();
    codes!(checks:
        hipError_t hipDeviceAttribute_t hipDeviceP2PAttr hipFunction_attribute hipFuncAttribute
        hipPointer_attribute hipMemcpyKind hipMemoryType hipStreamCaptureMode hipStreamCaptureStatus
        hipMemAccessFlags hipMemAllocationType hipMemAllocationHandleType
        hipMemAllocationGranularity_flags hipMemLocationType hipMemRangeHandleType hipJitOption);
    for &(name, value) in FLAGS {
        checks.constant(name, value);
    }
    for (name, code) in [
        ("hipErrorMemoryAllocation", hipErrorMemoryAllocation),
        ("hipErrorInitializationError", hipErrorInitializationError),
        (
            "hipErrorInvalidResourceHandle",
            hipErrorInvalidResourceHandle,
        ),
        (
            "hipErrorMapBufferObjectFailed",
            hipErrorMapBufferObjectFailed,
        ),
    ] {
        checks.constant(name, code.0.into());
    }
    ask(&header, checks);
}

#[test]
fn the_runtimes_layouts_are_those_of_the_header() {
    let Some((header, _)) = header("#include <hip/hip_runtime_api.h>") else {
        return;
    };
    let mut checks = Checks::default();
    sizes!(checks:
        hipStream_t hipEvent_t hipModule_t hipFunction_t hipGraph_t hipGraphExec_t hipGraphNode_t
        hipMemGenericAllocationHandle_t hipDevice_t hipDeviceptr_t hipHostFn_t hipStreamCallback_t
        hipIpcMemHandle_t hipIpcEventHandle_t hipUUID hipMemLocation hipMemAllocationProp
        hipMemAccessDesc hipPointerAttribute_t);
    fields!(checks: hipMemLocation { r#type, id });
    fields!(checks: hipMemAccessDesc { location, flags });
    // The plural is the header's too since HIP 7, beside the singular.
    fields!(checks: hipMemAllocationProp {
        r#type, requestedHandleTypes as "requestedHandleType", location, win32HandleMetaData, allocFlags,
    });
    let flags = offset_of!(hipMemAllocationProp, allocFlags);
    for (field, offset, size) in [
        (
            "compressionType",
            offset_of!(hipMemAllocationFlags, compressionType),
            1,
        ),
        (
            "gpuDirectRDMACapable",
            offset_of!(hipMemAllocationFlags, gpuDirectRDMACapable),
            1,
        ),
        ("usage", offset_of!(hipMemAllocationFlags, usage), 2),
    ] {
        let field = format!("allocFlags.{field}");
        checks.field("hipMemAllocationProp", &field, flags + offset, size);
    }
    let older = version(&header) < Version::new(6, 0, 0);
    fields!(checks: hipPointerAttribute_t {
        r#type as if older { "memoryType" } else { "type" },
        device, devicePointer, hostPointer, isManaged, allocationFlags,
    });
    ask(&header, checks);
}

#[test]
fn the_runtimes_functions_are_those_of_the_header() {
    let Some((header, _)) = header("#include <hip/hip_runtime_api.h>") else {
        return;
    };
    let mut checks = Checks::default();
    for symbol in Runtime::SYMBOLS {
        checks.prototype(symbol.name, symbol.parameters, symbol.result);
    }
    ask(&header, checks);
}

#[test]
fn hiprtc_is_that_of_the_header() {
    let Some(include) = include() else {
        return skip("there is no HIP header");
    };
    if !include.join("hip/hiprtc.h").is_file() {
        return skip("the HIP headers lack that of HIPRTC");
    }
    let Some((header, _)) = header("#include <hip/hip_version.h>\n#include <hip/hiprtc.h>") else {
        return;
    };
    let mut checks = Checks::default();
    codes!(checks: hiprtcResult);
    sizes!(checks: hiprtcProgram);
    for symbol in Hiprtc::SYMBOLS {
        checks.prototype(symbol.name, symbol.parameters, symbol.result);
    }
    ask(&header, checks);
}
