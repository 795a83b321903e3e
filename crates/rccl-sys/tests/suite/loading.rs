//! Libraries that are found or not, whole or not: made for the purpose by the C compiler of this machine.

use std::ffi::OsString;
use std::path::Path;
use std::ptr;

use rccl_sys::*;

use crate::support::compiler::Compiler;
use crate::support::fake::{Written, source};
use crate::support::skip;

/// What a library's functions return that are not written here.
const INVALID_USAGE: u32 = 5;

fn compiler() -> Option<Compiler> {
    let compiler = Compiler::find();
    if compiler.is_none() {
        skip("there is no C compiler");
    }
    compiler
}

/// An environment of one variable.
fn only(name: &str, value: impl AsRef<Path>) -> impl Fn(&str) -> Option<OsString> {
    let (name, value) = (name.to_owned(), value.as_ref().as_os_str().to_owned());
    move |asked| (asked == name).then(|| value.clone())
}

fn library(written: &[Written<'_>]) -> String {
    source(
        Nccl::SYMBOLS.iter().map(|symbol| symbol.name),
        INVALID_USAGE,
        written,
    )
}

fn left_out(name: &str) -> Written<'_> {
    Written { name, source: "" }
}

#[test]
fn a_library_that_the_environment_names_is_loaded_from_there() {
    let Some(compiler) = compiler() else { return };
    let version = Written {
        name: "ncclGetVersion",
        source: "int ncclGetVersion(int *version) { *version = 22703; return 0; }",
    };
    let id = Written {
        name: "ncclGetUniqueId",
        source: "int ncclGetUniqueId(char *id) { for (int i = 0; i < 128; i++) id[i] = i + 100; return 0; }",
    };
    let string = Written {
        name: "ncclGetErrorString",
        source: "const char *ncclGetErrorString(int code) { return code == 5 ? \"used wrongly\" : NULL; }",
    };
    let last = Written {
        name: "ncclGetLastError",
        source: "const char *ncclGetLastError(void *comm) { return comm ? \"wrong\" : \"said so\"; }",
    };
    let library = compiler.library("libmade.so", &library(&[version, id, string, last]));
    let nccl = Loaded::load_from(None, only("IRIS_NCCL_LIBRARY", &library)).unwrap();

    assert_eq!(nccl.origin().path(), Some(library.as_path()));
    assert_eq!(nccl.flavour(), Flavour::Nccl);
    assert_eq!(nccl.version(), Ok(Version::new(2, 27, 3)));
    assert_eq!(nccl.error_string(ncclInvalidUsage), "used wrongly");
    assert_eq!(nccl.error_string(ncclSuccess), "");
    assert_eq!(nccl.last_error().as_deref(), Some("said so"));
    let id = nccl.unique_id().unwrap().to_bytes();
    assert_eq!((id[0], id[127]), (100, 227));
    // SAFETY: the function made here looks at nothing.
    let code = unsafe { (nccl.table().ncclCommDestroy)(ptr::null_mut()) };
    let error = code.check("ncclCommDestroy").unwrap_err();
    assert_eq!(error.to_string(), "ncclCommDestroy: ncclInvalidUsage (5)");
}

#[test]
fn a_library_without_optional_functions_is_loaded_without_them() {
    let Some(compiler) = compiler() else { return };
    let absent = ["ncclGetLastError", "ncclMemAlloc", "ncclCommWindowRegister"];
    let library = compiler.library("libmade.so", &library(&absent.map(left_out)));
    let nccl = Loaded::load_from(None, only("IRIS_NCCL_LIBRARY", library)).unwrap();
    assert_eq!(nccl.table().absent(), absent);
    assert!(nccl.table().ncclCommWindowRegister.is_none());
    assert!(nccl.table().ncclCommInitRankConfig.is_some());
    assert_eq!(nccl.last_error(), None);
}

#[test]
fn a_library_without_required_functions_is_refused_with_all_their_names() {
    let Some(compiler) = compiler() else { return };
    let absent = ["ncclGroupEnd", "ncclCommInitAll", "ncclCommSplit"].map(left_out);
    let library = compiler.library("libmade.so", &library(&absent));
    let error = Loaded::load_from(None, only("IRIS_NCCL_LIBRARY", &library)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "IRIS_NCCL_LIBRARY names no usable NCCL or RCCL: {}: lacks ncclCommInitAll, ncclGroupEnd",
            library.display()
        )
    );
}

#[test]
fn the_library_that_takes_hip_streams_is_found_in_an_installation() {
    let Some(compiler) = compiler() else { return };
    let made = compiler.library("lib/librccl.so.1", &library(&[]));
    let rocm = only("ROCM_PATH", compiler.directory());
    for flavour in [Some(Flavour::Rccl), None] {
        let rccl = Loaded::load_from(flavour, &rocm).unwrap();
        assert_eq!(rccl.origin().path(), Some(made.as_path()));
        assert_eq!(rccl.flavour(), Flavour::Rccl);
    }
    // NCCL is no part of ROCm, and is not looked for there.
    match Loaded::load_from(Some(Flavour::Nccl), &rocm) {
        Ok(nccl) => assert_ne!(nccl.origin().path(), Some(made.as_path())),
        Err(LoadError::NotFound { attempts, .. }) => {
            let tried: Vec<_> = attempts
                .iter()
                .map(|attempt| attempt.library.as_str())
                .collect();
            assert_eq!(tried, ["libnccl.so.2", "libnccl.so"]);
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_loaded_can_be_used_by_all_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Loaded>();
    shared::<Nccl>();
    shared::<LoadError>();
    shared::<NcclError>();
}
