//! Drivers that cannot be used: libraries made for the purpose by this machine's C compiler.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use iris_testkit::skipped;

use crate::common::{Files, Ran, iris};

/// A CUDA driver of that version which has no other function, unless there is no C compiler.
fn driver(files: &Files, version: u32) -> Option<PathBuf> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        skipped("drivers", "there is no C compiler");
        return None;
    }
    let (source, library) = (files.path("driver.c"), files.path("libcuda.so.1"));
    let text =
        format!("int cuDriverGetVersion(int *version) {{ *version = {version}; return 0; }}\n");
    std::fs::write(&source, text).unwrap();
    let mut command = Command::new(compiler);
    command
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source);
    assert!(command.status().unwrap().success());
    Some(library)
}

/// What a run over such a driver says.
fn refused(version: u32) -> Option<String> {
    let files = Files::new();
    Some(refused_over(&driver(&files, version)?))
}

/// What a run over a driver says that cannot be used: it is refused before any rank is started.
fn refused_over(library: &Path) -> String {
    let mut command = iris(&["run", "matmul-all-reduce", "--backend", "cuda"]);
    let ran: Ran = command
        .env("IRIS_CUDA_LIBRARY", library)
        .output()
        .unwrap()
        .into();
    assert_eq!(ran.status, Some(2), "{ran:?}");
    assert_eq!(ran.stdout, "");
    ran.stderr
}

#[test]
fn a_driver_that_is_not_there_is_named() {
    let said = refused_over(Path::new("/nowhere/libcuda.so.1"));
    let because =
        "--backend cuda cannot be had here: CUDA driver is not there: /nowhere/libcuda.so.1";
    assert!(said.contains(because), "{said}");
}

#[test]
fn a_driver_that_is_too_old_tells_its_version_and_the_oldest() {
    if let Some(said) = refused(11_030) {
        let because = "CUDA driver is of version 11.3, and 11.4 is the oldest that can be used";
        assert!(said.contains(because), "{said}");
    }
}

#[test]
fn a_driver_that_lacks_a_function_tells_which() {
    if let Some(said) = refused(13_000) {
        assert!(said.contains("has no function cu"), "{said}");
        assert!(said.contains("libcuda.so.1"), "{said}");
    }
}
