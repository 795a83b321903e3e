//! What a compiler is, whichever it is.

use std::ffi::CString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Architecture, CompileError, Request, Vendor};

/// A compiler.
pub trait Compiler: Send + Sync {
    /// Which it is. Two of the same identity make the same of the same.
    fn identity(&self) -> &Identity;

    /// Whose devices it compiles for.
    fn vendor(&self) -> Vendor;

    /// The architectures that it says it knows, where it says.
    fn supported(&self) -> Option<&[String]>;

    /// What to install or to set where it does not know an architecture.
    fn remedy(&self) -> &'static str;

    /// Everything that it is told besides the source.
    fn options(&self, request: &Request) -> Vec<String>;

    /// What else the outcome depends on: variables of the environment that the compiler heeds.
    fn environment(&self) -> Vec<String> {
        Vec::new()
    }

    /// Compiles a request's source with those options.
    ///
    /// # Errors
    /// [`CompileError::Source`] with the compiler's words where it does not compile.
    fn compile(&self, request: &Request, options: &[String]) -> Result<Output, CompileError>;

    /// What to compile for, for a device: on NVIDIA `sm_90a` for `sm_90` and likewise for what came after, where the compiler knows
    /// it, because instructions such as `wgmma` are of that alone and every device of that number has them; on AMD the processor
    /// without its features, with which code runs whether they are on or off.
    fn target(&self, device: &Architecture) -> Architecture {
        let specific = format!("{}a", device.name());
        let name = match device.vendor() {
            Vendor::Amd => device.processor(),
            Vendor::Nvidia
                if self
                    .supported()
                    .is_some_and(|known| known.contains(&specific)) =>
            {
                &specific
            }
            Vendor::Nvidia => device.name(),
        };
        name.parse().unwrap_or_else(|_| device.clone())
    }
}

/// What a compiler leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The code object.
    pub bytes: Vec<u8>,
    /// What it said, warnings above all; mostly nothing.
    pub log: String,
}

/// Which compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `NVRTC`, `HIPRTC`, `clang`, `nvcc`.
    pub kind: &'static str,
    /// Its version, as it says.
    pub version: String,
    /// What tells builds of one version apart.
    pub build: String,
    /// Where it lies, where that is known.
    pub path: Option<PathBuf>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.version)?;
        match &self.path {
            Some(path) => write!(f, " ({})", path.display()),
            None => Ok(()),
        }
    }
}

/// That a compiler may be asked for this architecture.
pub(super) fn check(compiler: &dyn Compiler, wanted: &Architecture) -> Result<(), CompileError> {
    let unsupported = |known| CompileError::Unsupported {
        compiler: compiler.identity().to_string(),
        architecture: wanted.to_string(),
        known,
        remedy: compiler.remedy(),
    };
    if compiler.vendor() != wanted.vendor() {
        return Err(unsupported(format!("{}'s", compiler.vendor())));
    }
    match compiler.supported() {
        Some(known) if !known.iter().any(|known| known == wanted.processor()) => {
            Err(unsupported(known.join(", ")))
        }
        _ => Ok(()),
    }
}

/// What tells builds of a library of one version apart: its length, and what it begins with, where tables of its contents and
/// mostly an identifier of the build stand. Nothing where it cannot be read.
pub(in crate::device) fn fingerprint(library: Option<&Path>) -> String {
    const BEGINNING: u64 = 64 << 10;
    let read = || -> std::io::Result<String> {
        let Some(path) = library else {
            return Ok(String::new());
        };
        let file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        let mut beginning = Vec::new();
        file.take(BEGINNING).read_to_end(&mut beginning)?;
        Ok(format!("{len}-{}", hex(&Sha256::digest(&beginning)[..8])))
    };
    read().unwrap_or_default()
}

/// A text as C takes it, `what` in an error.
pub(in crate::device) fn c_string(what: &'static str, text: &str) -> Result<CString, CompileError> {
    CString::new(text).map_err(|_| CompileError::ZeroByte { what })
}

/// Options as C takes them.
pub(in crate::device) fn c_options(options: &[String]) -> Result<Vec<CString>, CompileError> {
    let c_options = options.iter().map(|option| c_string("an option", option));
    c_options.collect()
}

/// What a compiler said, without the zero at its end and what is blank before it.
pub(in crate::device) fn log(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches('\0').trim_end().to_owned()
}

/// The file that is mapped at an address of this process.
pub(in crate::device) fn mapped_at(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        let (start, rest) = line.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (start..end).contains(&address).then(|| PathBuf::from(path))
    })
}

/// Bytes as text.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
