//! Libraries that are found or not, whole or not: made for the purpose by the C compiler of this machine.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use hip_sys::*;
use tempfile::TempDir;

use crate::support::compiler::Compiler;
use crate::support::fake::{Written, source};
use crate::support::skip;

/// What a library's functions return that are not written here.
const NOT_SUPPORTED: u32 = 801;

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

fn runtime(written: &[Written<'_>]) -> String {
    source(
        Runtime::SYMBOLS.iter().map(|symbol| symbol.name),
        NOT_SUPPORTED,
        written,
    )
}

const LEFT_OUT: &str = "";

#[test]
fn a_library_that_the_environment_names_is_loaded_from_there() {
    let Some(compiler) = compiler() else { return };
    let count = Written {
        name: "hipGetDeviceCount",
        source: "int hipGetDeviceCount(int *count) { *count = 3; return 0; }",
    };
    let name = Written {
        name: "hipDeviceGetName",
        source: "int hipDeviceGetName(char *name, int len, int device) \
                 { if (device != 2) return 101; memcpy(name, \"made up\", 8); return 0; }",
    };
    let version = Written {
        name: "hipRuntimeGetVersion",
        source: "int hipRuntimeGetVersion(int *version) { *version = 60443483; return 0; }",
    };
    let string = Written {
        name: "hipGetErrorString",
        source: "const char *hipGetErrorString(int code) { return code == 801 ? \"no\" : NULL; }",
    };
    let library = compiler.library("libmade.so", &runtime(&[count, name, version, string]));
    let hip = Loaded::load_from(only("IRIS_HIP_LIBRARY", &library)).unwrap();

    assert_eq!(hip.origin().name(), library.to_str().unwrap());
    assert_eq!(hip.origin().path(), Some(library.as_path()));
    assert_eq!(hip.device_count(), Ok(3));
    assert_eq!(hip.runtime_version(), Ok(Version::new(6, 4, 43483)));
    assert_eq!(hip.device_name(2).as_deref(), Ok("made up"));
    assert_eq!(hip.error_string(hipErrorNotSupported), "no");
    assert_eq!(hip.error_string(hipSuccess), "");
    let error = hip.device_name(3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "hipDeviceGetName: hipErrorInvalidDevice (101)"
    );
    let error = hip.can_access_peer(0, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "hipDeviceCanAccessPeer: hipErrorNotSupported (801)"
    );
    assert_eq!(hip.runtime().absent(), Vec::<&str>::new());
}

#[test]
fn a_library_without_an_optional_function_is_loaded_without_it() {
    let Some(compiler) = compiler() else { return };
    let written = ["hipLaunchHostFunc", "hipModuleLaunchCooperativeKernel"].map(|name| Written {
        name,
        source: LEFT_OUT,
    });
    let library = compiler.library("libmade.so", &runtime(&written));
    let hip = Loaded::load_from(only("IRIS_HIP_LIBRARY", library)).unwrap();
    assert!(hip.runtime().hipLaunchHostFunc.is_none());
    assert!(hip.runtime().hipModuleLaunchCooperativeKernel.is_none());
    assert!(hip.runtime().hipGraphUpload.is_some());
    assert_eq!(
        hip.runtime().absent(),
        ["hipLaunchHostFunc", "hipModuleLaunchCooperativeKernel"]
    );
}

#[test]
fn a_library_without_required_functions_is_refused_with_all_their_names() {
    let Some(compiler) = compiler() else { return };
    let written = ["hipMemCreate", "hipInit", "hipGraphUpload"].map(|name| Written {
        name,
        source: LEFT_OUT,
    });
    let library = compiler.library("libmade.so", &runtime(&written));
    let error = Loaded::load_from(only("IRIS_HIP_LIBRARY", &library)).unwrap_err();
    let LoadError::Unusable { attempt, .. } = &error else {
        panic!("{error:?}");
    };
    let symbols = vec!["hipInit", "hipMemCreate"];
    assert_eq!(attempt.rejection, Rejection::MissingSymbols { symbols });
    assert_eq!(
        error.to_string(),
        format!(
            "IRIS_HIP_LIBRARY names no usable HIP runtime: {}: lacks hipInit, hipMemCreate",
            library.display()
        )
    );
}

#[test]
fn a_file_that_is_no_library_is_refused_in_the_linkers_words() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("libtext.so");
    fs::write(
        &file,
        "This is not an ELF file, though it is long enough to be looked at as one.",
    )
    .unwrap();
    let error = Loaded::load_from(only("IRIS_HIP_LIBRARY", &file)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "IRIS_HIP_LIBRARY names no usable HIP runtime: {}: invalid ELF header",
            file.display()
        )
    );
}

#[test]
fn a_library_that_the_environment_names_wrongly_is_not_replaced_by_another() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("libnone.so");
    let error = Loaded::load_from(only("IRIS_HIP_LIBRARY", &file)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "IRIS_HIP_LIBRARY names no usable HIP runtime: {}: cannot open shared object file: No such file or directory",
            file.display()
        )
    );
}

#[test]
fn a_variable_that_is_set_to_nothing_counts_as_not_set() {
    let with = Loaded::load_from(only("IRIS_HIP_LIBRARY", ""));
    let without = Loaded::load_from(|_| None);
    match (with, without) {
        (Ok(with), Ok(without)) => assert_eq!(with.origin(), without.origin()),
        (with, without) => assert_eq!(with.unwrap_err(), without.unwrap_err()),
    }
}

#[test]
fn the_newest_of_an_installation_is_taken() {
    let Some(compiler) = compiler() else { return };
    compiler.library("lib/libamdhip64.so.6", &runtime(&[]));
    let hip = Loaded::load_from(only("ROCM_PATH", compiler.directory())).unwrap();
    let six = compiler.directory().join("lib/libamdhip64.so.6");
    assert_eq!(hip.origin().path(), Some(six.as_path()));

    let seven = compiler.library("lib/libamdhip64.so.7", &runtime(&[]));
    let hip = Loaded::load_from(only("ROCM_PATH", compiler.directory())).unwrap();
    assert_eq!(hip.origin().path(), Some(seven.as_path()));
}

/// A descriptor is given by its address before HIP 7.1, as a number from then on.
#[test]
fn a_descriptor_is_imported_in_the_way_of_the_loaded_version() {
    let Some(compiler) = compiler() else { return };
    for (version, read) in [
        (70_051_831, "*(int *)given"),
        (70_125_424, "(int)(intptr_t)given"),
    ] {
        let tell =
            format!("int hipRuntimeGetVersion(int *version) {{ *version = {version}; return 0; }}");
        let import = format!(
            "int hipMemImportFromShareableHandle(void **handle, void *given, int type) \
             {{ if (type != 1) return 1; *handle = (void *)(intptr_t)({read} + 1000); return 0; }}"
        );
        let written = [
            Written {
                name: "hipRuntimeGetVersion",
                source: &tell,
            },
            Written {
                name: "hipMemImportFromShareableHandle",
                source: &import,
            },
        ];
        let library = compiler.library(&format!("libmade{version}.so"), &runtime(&written));
        let hip = Loaded::load_from(only("IRIS_HIP_LIBRARY", library)).unwrap();
        let file = tempfile::tempfile().unwrap();
        let handle = hip.import_descriptor(file.as_fd()).unwrap();
        use std::os::fd::AsRawFd;
        assert_eq!(handle.addr(), file.as_raw_fd() as usize + 1000, "{version}");
    }
}

#[test]
fn hiprtc_tells_its_version() {
    let Some(compiler) = compiler() else { return };
    let version = Written {
        name: "hiprtcVersion",
        source: "int hiprtcVersion(int *major, int *minor) { *major = 7; *minor = 1; return 0; }",
    };
    let names = Hiprtc::SYMBOLS.iter().map(|symbol| symbol.name);
    let library = compiler.library("libmade.so", &source(names, 3, &[version]));
    let hiprtc = LoadedHiprtc::load_from(only("IRIS_HIPRTC_LIBRARY", library)).unwrap();
    assert_eq!(hiprtc.version(), Ok(Version::new(7, 1, 0)));
    // SAFETY: the function made here looks at nothing.
    let code = unsafe { (hiprtc.table().hiprtcDestroyProgram)(std::ptr::null_mut()) };
    let error = code.check("hiprtcDestroyProgram").unwrap_err();
    assert_eq!(
        error.to_string(),
        "hiprtcDestroyProgram: HIPRTC_ERROR_INVALID_INPUT (3)"
    );
}

#[test]
fn what_is_loaded_can_be_used_by_all_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Loaded>();
    shared::<LoadedHiprtc>();
    shared::<Runtime>();
    shared::<LoadError>();
    shared::<HipError>();
}
