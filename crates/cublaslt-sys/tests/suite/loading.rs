//! Libraries that are found or not, whole or not: made for the purpose by the C compiler of this machine; and cuBLASLt itself,
//! where the machine has it.

use std::ffi::OsString;
use std::path::Path;

use cublaslt_sys::*;

use crate::support::compiler::Compiler;
use crate::support::fake::{Written, source};
use crate::support::{skip, skipped};

/// What a library's functions return that are not written here.
const INVALID_VALUE: u32 = 7;

fn compiler() -> Option<Compiler> {
    let compiler = Compiler::find();
    if compiler.is_none() {
        skip("there is no C compiler");
    }
    compiler
}

fn named(library: impl AsRef<Path>) -> impl Fn(&str) -> Option<OsString> {
    let library = library.as_ref().as_os_str().to_owned();
    move |asked| (asked == "IRIS_CUBLASLT_LIBRARY").then(|| library.clone())
}

fn library(written: &[Written<'_>]) -> String {
    source(
        CublasLt::SYMBOLS.iter().map(|symbol| symbol.name),
        INVALID_VALUE,
        written,
    )
}

#[test]
fn a_library_that_the_environment_names_is_loaded_from_there() {
    let Some(compiler) = compiler() else { return };
    let version = Written {
        name: "cublasLtGetVersion",
        source: "size_t cublasLtGetVersion(void) { return 130002; }",
    };
    let name = Written {
        name: "cublasLtGetStatusName",
        source: "const char *cublasLtGetStatusName(int status) { return status == 7 ? \"wrong\" : NULL; }",
    };
    let made = compiler.library("libmade.so", &library(&[version, name]));
    let cublaslt = Loaded::load_from(named(&made)).unwrap();
    assert_eq!(cublaslt.origin().path(), Some(made.as_path()));
    assert_eq!(cublaslt.version(), Version::new(13, 0, 2));
    assert_eq!(
        cublaslt.status_name(CUBLAS_STATUS_INVALID_VALUE).as_deref(),
        Some("wrong")
    );
    assert_eq!(cublaslt.status_name(CUBLAS_STATUS_SUCCESS), None);
    let mut handle = std::ptr::null_mut();
    // SAFETY: the function made here looks at nothing.
    let status = unsafe { (cublaslt.table().cublasLtCreate)(&raw mut handle) };
    assert_eq!(
        status.check("cublasLtCreate").unwrap_err().to_string(),
        "cublasLtCreate: CUBLAS_STATUS_INVALID_VALUE (7)"
    );
}

#[test]
fn a_library_without_functions_is_refused_unless_they_are_optional() {
    let Some(compiler) = compiler() else { return };
    let without = |name| Written { name, source: "" };
    let made = compiler.library("libold.so", &library(&[without("cublasLtGetStatusName")]));
    let cublaslt = Loaded::load_from(named(made)).unwrap();
    assert_eq!(cublaslt.table().absent(), ["cublasLtGetStatusName"]);
    assert_eq!(cublaslt.status_name(CUBLAS_STATUS_SUCCESS), None);

    let made = compiler.library("libless.so", &library(&[without("cublasLtMatmul")]));
    let error = Loaded::load_from(named(&made)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "IRIS_CUBLASLT_LIBRARY names no usable cuBLASLt: {}: lacks cublasLtMatmul",
            made.display()
        )
    );
}

#[test]
fn the_library_itself_tells_its_version() {
    match Loaded::load() {
        Ok(cublaslt) => {
            assert!(cublaslt.version().major >= 11, "{}", cublaslt.version());
            assert_eq!(cublaslt.table().absent(), Vec::<&str>::new());
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("libcublasLt.so.13"), "{text}");
            skipped(&text);
        }
    }
}
