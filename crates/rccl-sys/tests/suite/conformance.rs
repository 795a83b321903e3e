//! The bindings against the C header of NCCL or RCCL, as the C compiler of this machine reads it.
//!
//! The header is the one below `$IRIS_NCCL_INCLUDE`, that of PyPI's `nvidia-nccl-cu13` unpacked in
//! `target/headers/nccl`, or an installed one. It includes headers of CUDA or HIP, for which there are stand-ins.

use std::env;
use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};

use rccl_sys::*;

use crate::support::compiler::Compiler;
use crate::support::header::{Checks, Header, size_of_field};
use crate::support::{skip, unpacked};

/// What headers before a version do not have. RCCL's numbers are those of the NCCL that it equals.
const SINCE: &[(Version, &[&str])] = &[
    (
        Version::new(2, 13, 0),
        &["ncclGetLastError", "ncclRemoteError"],
    ),
    (
        Version::new(2, 14, 0),
        &[
            "ncclCommFinalize",
            "ncclCommInitRankConfig",
            "ncclConfig_t",
            "ncclConfig_t.blocking",
            "ncclInProgress",
        ],
    ),
    (
        Version::new(2, 17, 0),
        &[
            "NCCL_CONFIG_UNDEF_INT",
            "ncclConfig_t.cgaClusterSize",
            "ncclConfig_t.maxCTAs",
            "ncclConfig_t.minCTAs",
            "ncclConfig_t.netName",
        ],
    ),
    (
        Version::new(2, 18, 0),
        &["ncclCommSplit", "ncclConfig_t.splitShare"],
    ),
    (
        Version::new(2, 19, 0),
        &[
            "ncclCommDeregister",
            "ncclCommRegister",
            "ncclMemAlloc",
            "ncclMemFree",
        ],
    ),
    (
        Version::new(2, 24, 0),
        &["ncclFloat8e4m3", "ncclFloat8e5m2"],
    ),
    (Version::new(2, 26, 0), &["ncclConfig_t.trafficClass"]),
    (
        Version::new(2, 27, 0),
        &[
            "NCCL_CTA_POLICY_DEFAULT",
            "NCCL_CTA_POLICY_EFFICIENCY",
            "NCCL_WIN_COLL_SYMMETRIC",
            "NCCL_WIN_DEFAULT",
            "ncclCommWindowDeregister",
            "ncclCommWindowRegister",
            "ncclConfig_t.CTAPolicy",
            "ncclConfig_t.collnetEnable",
            "ncclConfig_t.commName",
            "ncclConfig_t.nvlsCTAs",
            "ncclConfig_t.shrinkShare",
            "ncclWindow_t",
        ],
    ),
    (
        Version::new(2, 28, 0),
        &["NCCL_CTA_POLICY_ZERO", "NCCL_WIN_REQUIRED_ALIGNMENT"],
    ),
    (Version::new(2, 30, 0), &["ncclTimeout"]),
];

/// Names that RCCL has others for.
const NOT_IN_RCCL: &[&str] = &["ncclFloat8e4m3", "ncclFloat8e5m2"];

/// What stands in for the headers of CUDA and HIP: these bindings look at nothing of theirs but the stream.
const STAND_INS: &[(&str, &str)] = &[
    (
        "cuda_runtime.h",
        "typedef struct CUstream_st *cudaStream_t;",
    ),
    // Up to 2.23, the header has bf16 where CUDA's does.
    ("cuda_fp16.h", "#define __CUDA_BF16_TYPES_EXIST__"),
    (
        "hip/hip_runtime.h",
        "typedef struct ihipStream_t *hipStream_t;",
    ),
    (
        "hip/hip_runtime_api.h",
        "typedef struct ihipStream_t *hipStream_t;",
    ),
    ("hip/hip_fp16.h", ""),
];

/// The header's name below a directory: that of NCCL, then that of RCCL.
fn header_in(directory: &Path) -> Option<&'static str> {
    let names = ["nccl.h", "rccl/rccl.h"];
    names
        .into_iter()
        .find(|name| directory.join(name).is_file())
}

fn include() -> Option<(PathBuf, &'static str)> {
    if let Some(named) = env::var_os("IRIS_NCCL_INCLUDE") {
        let named = PathBuf::from(named);
        let Some(header) = header_in(&named) else {
            panic!(
                "IRIS_NCCL_INCLUDE is {}, which has no nccl.h",
                named.display()
            );
        };
        return Some((named, header));
    }
    let known = [
        unpacked("nccl/nvidia/nccl/include"),
        "/usr/include".into(),
        "/opt/rocm/include".into(),
    ];
    let mut known = known.into_iter();
    known.find_map(|directory| header_in(&directory).map(|header| (directory, header)))
}

fn header() -> Option<(Header, Version, Flavour)> {
    let Some(compiler) = Compiler::find() else {
        skip("there is no C compiler");
        return None;
    };
    let Some((include, name)) = include() else {
        skip("there is no header of NCCL or RCCL");
        return None;
    };
    let stand_ins = compiler.directory().join("stand-ins");
    for (path, source) in STAND_INS {
        let path = stand_ins.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#pragma once\n{source}\n")).unwrap();
    }
    let prelude = format!(
        "#include <{name}>\n\
         #ifdef RCCL_BFLOAT16\n\
         typedef hipStream_t ncclStream_t;\n\
         #else\n\
         typedef cudaStream_t ncclStream_t;\n\
         #endif"
    );
    let header = Header::new(compiler, &prelude, &[stand_ins, include], &[]);
    let [major, minor, patch] = header.evaluate(["NCCL_MAJOR", "NCCL_MINOR", "NCCL_PATCH"])[..]
    else {
        panic!("a version has three numbers");
    };
    let version = Version::new(major as u32, minor as u32, patch as u32);
    let flavour = if header.has("RCCL_BFLOAT16") {
        Flavour::Rccl
    } else {
        Flavour::Nccl
    };
    Some((header, version, flavour))
}

/// Asks, and holds the answer against what this version of the header may lack.
fn ask((header, version, flavour): &(Header, Version, Flavour), checks: Checks) {
    let report = header.ask(checks);
    eprintln!(
        "{flavour} {version}: {} agree; not in the header: {:?}",
        report.agreed, report.absent
    );
    let mut absent = report.absent;
    absent.retain(|name| {
        let mut younger = SINCE.iter().filter(|(since, _)| version < since);
        let younger = younger.any(|(_, names)| names.contains(&name.as_str()));
        let other = *flavour == Flavour::Rccl && NOT_IN_RCCL.contains(&name.as_str());
        !younger && !other
    });
    assert!(
        absent.is_empty(),
        "not in the header of {flavour} {version}: {absent:#?}"
    );
    let different = report.different;
    assert!(
        different.is_empty(),
        "different in the header of {flavour} {version}: {different:#?}"
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

macro_rules! fields {
    ($checks:ident: $type:ident { $($field:ident),* $(,)? }) => {$(
        $checks.field(
            stringify!($type),
            stringify!($field),
            offset_of!($type, $field),
            size_of_field(|value: &$type| &value.$field),
        );
    )*};
}

#[test]
fn the_constants_are_those_of_the_header() {
    let Some(header) = header() else { return };
    let mut checks = Checks::default();
    codes!(checks: ncclResult_t ncclDataType_t ncclRedOp_t);
    for &(name, value) in FLAGS {
        checks.constant(name, value);
    }
    ask(&header, checks);
}

#[test]
fn the_layouts_are_those_of_the_header() {
    let Some(header) = header() else { return };
    let mut checks = Checks::default();
    checks.size::<ncclUniqueId>("ncclUniqueId");
    checks.size::<ncclComm_t>("ncclComm_t");
    checks.size::<ncclWindow_t>("ncclWindow_t");
    checks.size::<ncclStream_t>("ncclStream_t");
    if header.0.has("ncclConfig_t") {
        fields!(checks: ncclConfig_t {
            size, magic, version, blocking, cgaClusterSize, minCTAs, maxCTAs, netName, splitShare,
            trafficClass, commName, collnetEnable, CTAPolicy, shrinkShare, nvlsCTAs,
        });
    }
    ask(&header, checks);
}

/// A later library has more fields at the end, and none between.
#[test]
fn the_configuration_is_the_beginning_of_the_headers() {
    let Some((header, version, _)) = header() else {
        return;
    };
    if !header.has("ncclConfig_t") {
        return assert!(version < Version::new(2, 14, 0));
    }
    let theirs = header.evaluate(["sizeof(ncclConfig_t)"])[0];
    let ours = i64::try_from(size_of::<ncclConfig_t>()).unwrap();
    match version {
        version if version < Version::new(2, 27, 0) => assert!(theirs < ours),
        version if version < Version::new(2, 28, 0) => assert_eq!(theirs, ours),
        _ => assert!(theirs > ours),
    }
}

/// The header's initialiser leaves the same to the library as ours.
#[test]
fn an_untouched_configuration_is_that_of_the_header() {
    let Some((header, ..)) = header() else { return };
    if !header.has("NCCL_CONFIG_INITIALIZER") {
        return;
    }
    let fields = ["magic", "blocking", "cgaClusterSize", "minCTAs", "maxCTAs"];
    let known: Vec<_> = fields
        .into_iter()
        .filter(|field| header.has(field))
        .collect();
    let expressions = known.iter().map(|field| {
        format!("({{ ncclConfig_t config = NCCL_CONFIG_INITIALIZER; config.{field}; }})")
    });
    let expressions: Vec<_> = expressions.collect();
    let theirs = header.evaluate(expressions.iter().map(String::as_str));
    let config = ncclConfig_t::default();
    for (field, theirs) in known.into_iter().zip(theirs) {
        let ours = match field {
            "magic" => config.magic.into(),
            "blocking" => config.blocking.into(),
            "cgaClusterSize" => config.cgaClusterSize.into(),
            "minCTAs" => config.minCTAs.into(),
            _ => config.maxCTAs.into(),
        };
        // 2.14 to 2.16 had `blocking` alone, with a default of its own.
        if header.has("NCCL_CONFIG_UNDEF_INT") || field == "magic" {
            assert_eq!(theirs, ours, "{field}");
        }
    }
}

#[test]
fn the_functions_are_those_of_the_header() {
    let Some(header) = header() else { return };
    let mut checks = Checks::default();
    for symbol in Nccl::SYMBOLS {
        checks.prototype(symbol.name, symbol.parameters, symbol.result);
    }
    ask(&header, checks);
}
