//! The bindings against the C header of cuBLASLt, as the C compiler of this machine reads it.
//!
//! The header is the one below `$IRIS_CUBLASLT_INCLUDE`, that of PyPI's `nvidia-cublas` unpacked in
//! `target/headers/cublas`, or that of an installed CUDA. It includes headers of CUDA, for which there are stand-ins: these
//! bindings look at nothing of theirs but the stream and the types of elements.

use std::env;
use std::fs;
use std::mem::offset_of;
use std::path::PathBuf;

use cublaslt_sys::*;

use crate::support::compiler::Compiler;
use crate::support::header::{Checks, Header, size_of_field};
use crate::support::{skipped, unpacked};

/// What stands in for the headers of CUDA.
const STAND_INS: &[(&str, &str)] = &[
    (
        "driver_types.h",
        "typedef struct CUstream_st *cudaStream_t;",
    ),
    (
        "library_types.h",
        "typedef enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16F = 2, CUDA_R_16BF = 14, CUDA_R_64F = 1, CUDA_C_32F = 4, \
         CUDA_C_64F = 5, CUDA_C_16F = 6, CUDA_R_8I = 3, CUDA_R_8F_E4M3 = 28 } cudaDataType; \
         typedef cudaDataType cudaDataType_t; \
         typedef enum cudaEmulationMantissaControl_t { M = 0 } cudaEmulationMantissaControl; \
         typedef enum cudaEmulationStrategy_t { S = 0 } cudaEmulationStrategy; \
         typedef enum cudaEmulationSpecialValuesSupport_t { V = 0 } cudaEmulationSpecialValuesSupport; \
         typedef enum libraryPropertyType_t { MAJOR_VERSION } libraryPropertyType;",
    ),
    (
        "cuComplex.h",
        "typedef struct { float x, y; } cuComplex; typedef struct { double x, y; } cuDoubleComplex;",
    ),
    (
        "cuda_fp16.h",
        "typedef struct { unsigned short x; } __half;",
    ),
    (
        "cuda_bf16.h",
        "typedef struct { unsigned short x; } __nv_bfloat16;",
    ),
];

fn include() -> Option<PathBuf> {
    if let Some(named) = env::var_os("IRIS_CUBLASLT_INCLUDE") {
        let named = PathBuf::from(named);
        assert!(
            named.join("cublasLt.h").is_file(),
            "IRIS_CUBLASLT_INCLUDE is {}, which has no cublasLt.h",
            named.display()
        );
        return Some(named);
    }
    let known = [
        unpacked("cublas/nvidia/cu13/include"),
        unpacked("cublas/nvidia/cublas/include"),
        "/usr/local/cuda/include".into(),
    ];
    known
        .into_iter()
        .find(|directory| directory.join("cublasLt.h").is_file())
}

/// The header. Said, where it is not there: its package is half a gigabyte, most of it the library.
fn header() -> Option<Header> {
    let (Some(compiler), Some(include)) = (Compiler::find(), include()) else {
        skipped("there is no C compiler, or no header of cuBLASLt");
        return None;
    };
    let stand_ins = compiler.directory().join("stand-ins");
    fs::create_dir_all(&stand_ins).unwrap();
    for (path, source) in STAND_INS {
        fs::write(stand_ins.join(path), format!("#pragma once\n{source}\n")).unwrap();
    }
    // Headers are first looked for beside the one that includes them, so these two are taken from where nothing else is.
    for name in ["cublasLt.h", "cublas_api.h"] {
        fs::copy(include.join(name), stand_ins.join(name)).unwrap();
    }
    Some(Header::new(
        compiler,
        "#include <cublasLt.h>",
        &[stand_ins],
        &[],
    ))
}

fn ask(header: &Header, checks: Checks) {
    let report = header.ask(checks);
    assert_eq!(report.absent, Vec::<String>::new(), "not in the header");
    assert_eq!(report.different, [], "different in the header");
    assert!(report.agreed > 0, "nothing was compared");
    eprintln!("{} agree", report.agreed);
}

macro_rules! codes {
    ($checks:ident: $($type:ident)*) => {$(
        $checks.size::<$type>(stringify!($type));
        for &(name, value) in $type::NAMED {
            $checks.constant(name, value.0.into());
        }
    )*};
}

#[test]
fn the_constants_are_those_of_the_header() {
    let Some(header) = header() else { return };
    let mut checks = Checks::default();
    // `cudaDataType_t` stands in CUDA's own `library_types.h`, for which there is a stand-in.
    codes!(checks: cublasStatus_t cublasComputeType_t cublasOperation_t cublasLtMatmulDescAttributes_t
        cublasLtMatmulPreferenceAttributes_t);
    ask(&header, checks);
}

#[test]
fn the_layouts_are_those_of_the_header() {
    let Some(header) = header() else { return };
    let mut checks = Checks::default();
    checks.size::<cublasLtMatmulAlgo_t>("cublasLtMatmulAlgo_t");
    checks.size::<cublasLtMatmulHeuristicResult_t>("cublasLtMatmulHeuristicResult_t");
    macro_rules! fields {
        ($($field:ident)*) => {$(
            checks.field(
                "cublasLtMatmulHeuristicResult_t",
                stringify!($field),
                offset_of!(cublasLtMatmulHeuristicResult_t, $field),
                size_of_field(|value: &cublasLtMatmulHeuristicResult_t| &value.$field),
            );
        )*};
    }
    fields!(algo workspaceSize state wavesCount reserved);
    ask(&header, checks);
}

#[test]
fn the_functions_are_those_of_the_header() {
    let Some(header) = header() else { return };
    let mut checks = Checks::default();
    for symbol in CublasLt::SYMBOLS {
        checks.prototype(symbol.name, symbol.parameters, symbol.result);
    }
    ask(&header, checks);
}
