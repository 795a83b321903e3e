//! The C compiler of this machine.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The C compiler: `$CC`, or `cc`.
pub(crate) struct Compiler {
    program: OsString,
    /// What it makes lies here, and goes with it.
    directory: TempDir,
}

impl Compiler {
    pub(crate) fn find() -> Option<Self> {
        let program = env::var_os("CC").unwrap_or_else(|| "cc".into());
        let works = Command::new(&program).arg("--version").output();
        works
            .is_ok_and(|output| output.status.success())
            .then(|| Self {
                program,
                directory: TempDir::new().expect("a temporary directory"),
            })
    }

    /// Where what it makes lies.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What becomes of `source` with `flags`, in a file of that name.
    pub(crate) fn compile(&self, name: &str, source: &str, flags: &[String]) -> PathBuf {
        let output = self.directory().join(name);
        if let Some(parent) = output.parent() {
            fs::create_dir_all(parent).expect("a directory");
        }
        let file = self.directory().join(format!("{name}.c"));
        fs::write(&file, source).expect("a source file");
        let mut command = Command::new(&self.program);
        command.args(flags).arg(&file).arg("-o").arg(&output);
        run(&mut command);
        output
    }

    /// A shared library of that name.
    pub(crate) fn library(&self, name: &str, source: &str) -> PathBuf {
        let flags = ["-shared", "-fPIC", "-w"].map(str::to_owned);
        self.compile(name, source, &flags)
    }
}

/// What a program prints. It must succeed.
pub(crate) fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("a program that can be started");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    String::from_utf8(stdout).expect("output in UTF-8")
}
