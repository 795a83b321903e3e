//! Compilers that are programs: clang for AMD, nvcc for NVIDIA. They are tried where the vendor's library is not there, or too old,
//! and first where their variable names one.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ended, Stdio};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::{CompileError, Compiler, Identity, Output, Request, Vendor, hex};
use crate::device::nvrtc::with_specific;

/// Variables by which compilers take options or headers behind our back.
const MEDDLING: [&str; 7] = [
    "CCC_OVERRIDE_OPTIONS",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "HIPCC_COMPILE_FLAGS_APPEND",
    "NVCC_APPEND_FLAGS",
    "NVCC_PREPEND_FLAGS",
];
/// The oldest clang that knows all architectures of ours.
const OLDEST_CLANG: u32 = 22;
/// clang's options. No vendor's header or library takes part.
const CLANG: [&str; 8] = [
    "-x",
    "hip",
    "--cuda-device-only",
    "--no-gpu-bundle-output",
    "-nogpulib",
    "-nogpuinc",
    "-mcode-object-version=5",
    "-O3",
];

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Clang,
    Nvcc,
}

/// A compiler that is run.
#[derive(Debug)]
pub struct Program {
    kind: Kind,
    program: PathBuf,
    identity: Identity,
    supported: Vec<String>,
}

impl Program {
    /// clang for AMD: what IRIS_CLANG names; else `amdclang++` where a search for programs finds it or in ROCm's directory; else
    /// clang from version 22 on, as `clang-22`, `clang-23` and so on or as `clang`. It is looked for once a process.
    ///
    /// # Errors
    /// Where there is none.
    pub fn clang() -> Result<&'static Self, CompileError> {
        static FOUND: OnceLock<Result<Program, CompileError>> = OnceLock::new();
        FOUND
            .get_or_init(|| Self::find(Kind::Clang, &|name| std::env::var_os(name)))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// nvcc: what IRIS_NVCC names, else `nvcc` where a search for programs finds it or in CUDA's directory. It is looked for once a
    /// process.
    ///
    /// # Errors
    /// Where there is none.
    pub fn nvcc() -> Result<&'static Self, CompileError> {
        static FOUND: OnceLock<Result<Program, CompileError>> = OnceLock::new();
        FOUND
            .get_or_init(|| Self::find(Kind::Nvcc, &|name| std::env::var_os(name)))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn find(kind: Kind, lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, CompileError> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let named = set(kind.variable());
        let candidates: Vec<PathBuf> = match &named {
            Some(named) => vec![from_here(Path::new(named))],
            None => {
                let below = |variable: &str, usual: &str, name: &str| {
                    let prefix = set(variable).unwrap_or_else(|| usual.into());
                    Path::new(&prefix).join("bin").join(name)
                };
                match kind {
                    Kind::Clang => [
                        "amdclang++".into(),
                        below("ROCM_PATH", "/opt/rocm", "amdclang++"),
                    ]
                    .into_iter()
                    .chain((OLDEST_CLANG..OLDEST_CLANG + 8).map(|v| format!("clang-{v}").into()))
                    .chain(["clang".into()])
                    .collect(),
                    Kind::Nvcc => {
                        vec!["nvcc".into(), below("CUDA_HOME", "/usr/local/cuda", "nvcc")]
                    }
                }
            }
        };
        let mut tried = Vec::new();
        for program in candidates {
            match Self::ask(kind, &program, named.is_some()) {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{} ({why})", program.display())),
            }
        }
        Err(CompileError::NotThere {
            compiler: kind.name(),
            tried: tried.join(", "),
            remedy: kind.remedy(),
        })
    }

    /// Asks a program what it is. One that was named is taken whatever its version.
    fn ask(kind: Kind, program: &Path, named: bool) -> Result<Self, String> {
        let version = said(program, &["--version".as_ref()])?;
        let number = match kind {
            Kind::Clang => after(&version, "clang version "),
            Kind::Nvcc => after(&version, ", V"),
        };
        let number = number.ok_or_else(|| format!("is no {}", kind.name()))?;
        let of_amd = version.starts_with("AMD ");
        let major: u32 = number
            .split('.')
            .next()
            .and_then(|it| it.parse().ok())
            .unwrap_or(0);
        if kind == Kind::Clang && !named && !of_amd && major < OLDEST_CLANG {
            return Err(format!(
                "is version {number}; {OLDEST_CLANG} or newer is needed"
            ));
        }
        let known = match kind {
            Kind::Clang => said(
                program,
                &[
                    "--target=amdgcn-amd-amdhsa".as_ref(),
                    "--print-supported-cpus".as_ref(),
                ],
            )?,
            Kind::Nvcc => said(program, &["--list-gpu-code".as_ref()])?,
        };
        let known = known.split_whitespace();
        let supported = match kind {
            Kind::Clang => known
                .filter(|word| word.parse::<super::Architecture>().is_ok())
                .map(str::to_owned)
                .collect(),
            Kind::Nvcc => {
                let numbers = known.filter_map(|word| word.strip_prefix("sm_")?.parse().ok());
                with_specific(numbers, major.into())
            }
        };
        Ok(Self {
            kind,
            supported,
            identity: Identity {
                kind: kind.name(),
                version: number.to_owned(),
                build: hex(&Sha256::digest(version.as_bytes())[..8]),
                path: Some(program.to_owned()),
            },
            program: program.to_owned(),
        })
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Clang => "clang",
            Self::Nvcc => "nvcc",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Clang => "IRIS_CLANG",
            Self::Nvcc => "IRIS_NVCC",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Clang => {
                "install clang 22 or newer with lld (Debian: clang-22 lld-22) or AMD's ROCm, or name the program in IRIS_CLANG"
            }
            Self::Nvcc => "install NVIDIA's CUDA toolkit, or name the program in IRIS_NVCC",
        }
    }
}

impl Compiler for Program {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn vendor(&self) -> Vendor {
        match self.kind {
            Kind::Clang => Vendor::Amd,
            Kind::Nvcc => Vendor::Nvidia,
        }
    }

    fn supported(&self) -> Option<&[String]> {
        Some(&self.supported)
    }

    fn remedy(&self) -> &'static str {
        self.kind.remedy()
    }

    fn options(&self, request: &Request) -> Vec<String> {
        let architecture = request.architecture();
        let mut options: Vec<String> = match self.kind {
            Kind::Clang => std::iter::once("--no-default-config")
                .chain(CLANG)
                .map(str::to_owned)
                .chain([format!("--offload-arch={architecture}")])
                .collect(),
            Kind::Nvcc => vec![
                "--cubin".to_owned(),
                "--x=cu".to_owned(),
                format!("--gpu-architecture={architecture}"),
            ],
        };
        options.push("-std=c++17".to_owned());
        options.extend(request.definitions().iter().map(|it| format!("-D{it}")));
        options
    }

    fn compile(&self, request: &Request, options: &[String]) -> Result<Output, CompileError> {
        let call = |what, error: std::io::Error| CompileError::Call {
            compiler: self.kind.name(),
            what,
            detail: error.to_string(),
        };
        // nvcc reads and writes files alone; and where nothing else lies, nothing else is included from beside the source.
        let directory = tempfile::Builder::new()
            .prefix("iris-compile-")
            .tempdir()
            .map_err(|error| call("making a temporary directory", error))?;
        let (input, code) = (
            directory.path().join("source"),
            directory.path().join("code"),
        );
        std::fs::File::create(&input)
            .and_then(|mut file| file.write_all(request.source().text().as_bytes()))
            .map_err(|error| call("writing the source", error))?;
        let mut command = self.command(directory.path());
        command.args(options).arg("-o").arg(&code).arg(&input);
        let ended = command
            .output()
            .map_err(|error| call("running it", error))?;
        let log = words(&ended);
        if !ended.status.success() {
            return Err(CompileError::Source {
                name: request.source().name().to_owned(),
                architecture: request.architecture().to_string(),
                log,
            });
        }
        let bytes = std::fs::read(&code).map_err(|error| call("reading the code", error))?;
        Ok(Output { bytes, log })
    }
}

impl Program {
    fn command(&self, directory: &Path) -> Command {
        let mut command = quiet(&self.program);
        command.current_dir(directory);
        command
    }
}

/// A path that stays what it is where programs are run in another directory; a name that is searched for stays one.
fn from_here(program: &Path) -> PathBuf {
    if !program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return program.to_owned();
    }
    std::path::absolute(program).unwrap_or_else(|_| program.to_owned())
}

/// A program that is told nothing but by its options.
fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    for name in MEDDLING {
        command.env_remove(name);
    }
    command
}

/// What a program says of itself.
fn said(program: &Path, options: &[&OsStr]) -> Result<String, String> {
    let ended = quiet(program)
        .args(options)
        .output()
        .map_err(|error| error.to_string())?;
    if !ended.status.success() {
        return Err(format!("{}: {}", ended.status, words(&ended)));
    }
    // clang lists architectures on stderr.
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned()
        + &String::from_utf8_lossy(&ended.stderr))
}

/// What a program printed, stderr first.
fn words(ended: &Ended) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    [text(&ended.stderr), text(&ended.stdout)]
        .iter()
        .filter(|text| !text.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join("\n")
}

/// The word that follows `what`.
fn after<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(what)?;
    rest.split_whitespace().next()
}
