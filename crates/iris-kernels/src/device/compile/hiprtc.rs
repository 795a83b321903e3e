//! HIPRTC, AMD's run-time compiler, found at run time by `hip-sys`.

use std::ffi::{CStr, c_char, c_int};
use std::path::PathBuf;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use hip_sys::{
    HIPRTC_ERROR_COMPILATION, HIPRTC_ERROR_LINKING, HiprtcError, LoadedHiprtc, hiprtcProgram,
    hiprtcResult,
};

use super::{
    CompileError, Compiler, Identity, Output, Request, Vendor, c_options, c_string, fingerprint,
    log, mapped_at,
};

const NAME: &str = "HIPRTC";
const REMEDY: &str = "install AMD's ROCm (its packages hiprtc and comgr are enough), or name the library in IRIS_HIPRTC_LIBRARY";
/// Options that HIPRTC adds by itself, from the environment.
const VARIABLES: [&str; 2] = [
    "HIPRTC_COMPILE_OPTIONS_APPEND",
    "HIPRTC_LINK_OPTIONS_APPEND",
];

/// HIPRTC compiles one program at a time, by a lock of its own, and that of ROCm 5.2 goes to address 0 where a thread has to wait
/// for it. Threads wait here instead.
static TURN: Mutex<()> = Mutex::new(());

/// The compiler.
#[derive(Debug)]
pub struct Hiprtc {
    loaded: &'static LoadedHiprtc,
    identity: Identity,
    supported: Option<Vec<String>>,
}

impl Hiprtc {
    /// Loads the library, once a process.
    ///
    /// # Errors
    /// Where it is not there, or is no HIPRTC.
    pub fn load() -> Result<&'static Self, CompileError> {
        static LOADED: OnceLock<Result<Hiprtc, CompileError>> = OnceLock::new();
        LOADED
            .get_or_init(Self::open)
            .as_ref()
            .map_err(Clone::clone)
    }

    /// The same where it is of ROCm 6 or newer, as [`find`](super::find) takes it. What came before knows no gfx942, and ends the
    /// process over some of our kernels for gfx90a, where its LLVM cannot encode an instruction that it has chosen.
    ///
    /// # Errors
    /// Those of [`load`](Self::load); [`CompileError::TooOld`].
    pub fn recent() -> Result<&'static Self, CompileError> {
        let hiprtc = Self::load()?;
        match &hiprtc.supported {
            Some(known) if !known.iter().any(|known| known == "gfx942") => {
                Err(CompileError::TooOld {
                    compiler: hiprtc.identity.to_string(),
                    release: "ROCm 5",
                    remedy: REMEDY,
                })
            }
            _ => Ok(hiprtc),
        }
    }

    fn open() -> Result<Self, CompileError> {
        let loaded = LoadedHiprtc::load().map_err(|error| CompileError::NotThere {
            compiler: NAME,
            tried: error.to_string(),
            remedy: REMEDY,
        })?;
        let version = loaded.version().map_err(|error| CompileError::Call {
            compiler: NAME,
            what: "asking for the version",
            detail: error.to_string(),
        })?;
        // Some load what they compile by with their first program.
        drop(program(loaded, c" ", c"none"));
        let comgr = Comgr::open();
        let path = loaded.origin().path().map(PathBuf::from);
        let mut build = fingerprint(path.as_deref());
        if let Some(comgr) = &comgr {
            // HIPRTC is a shell around it, and does not tell much of itself.
            build = format!("{build} {}", comgr.build());
        }
        Ok(Self {
            loaded,
            identity: Identity {
                kind: NAME,
                version: version.to_string(),
                build,
                path,
            },
            supported: comgr.and_then(|comgr| comgr.architectures()),
        })
    }

    fn error(&self, what: &'static str, error: &HiprtcError) -> CompileError {
        CompileError::Call {
            compiler: NAME,
            what,
            detail: format!("{error}: {}", self.loaded.error_string(error.code)),
        }
    }

    /// What a pair of functions tells of a program.
    fn bytes(
        &self,
        what: &'static str,
        program: hiprtcProgram,
        size: unsafe extern "C" fn(hiprtcProgram, *mut usize) -> hiprtcResult,
        read: unsafe extern "C" fn(hiprtcProgram, *mut c_char) -> hiprtcResult,
    ) -> Result<Vec<u8>, CompileError> {
        let mut len = 0;
        // SAFETY: the program is alive.
        let result = unsafe { size(program, &raw mut len) };
        result
            .check("asking for a size")
            .map_err(|error| self.error(what, &error))?;
        let mut bytes = vec![0u8; len];
        // SAFETY: the buffer has the size that was told.
        let result = unsafe { read(program, bytes.as_mut_ptr().cast()) };
        result
            .check("reading a result")
            .map_err(|error| self.error(what, &error))?;
        Ok(bytes)
    }
}

/// A program of HIPRTC's, destroyed when dropped.
struct Owned(&'static LoadedHiprtc, hiprtcProgram);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: created by this library, and not destroyed before.
        let result = unsafe { (self.0.table().hiprtcDestroyProgram)(&raw mut self.1) };
        // There is nobody to be told, and nothing to be done.
        let _ = result;
    }
}

fn program(loaded: &'static LoadedHiprtc, text: &CStr, name: &CStr) -> Result<Owned, HiprtcError> {
    let mut program = ptr::null_mut();
    // SAFETY: both texts end with a zero and outlive the call; there are no headers.
    let result = unsafe {
        (loaded.table().hiprtcCreateProgram)(
            &raw mut program,
            text.as_ptr(),
            name.as_ptr(),
            0,
            ptr::null(),
            ptr::null(),
        )
    };
    result.check("hiprtcCreateProgram")?;
    Ok(Owned(loaded, program))
}

impl Compiler for Hiprtc {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn vendor(&self) -> Vendor {
        Vendor::Amd
    }

    fn supported(&self) -> Option<&[String]> {
        self.supported.as_deref()
    }

    fn remedy(&self) -> &'static str {
        REMEDY
    }

    fn options(&self, request: &Request) -> Vec<String> {
        let mut options = vec![
            format!("--offload-arch={}", request.architecture()),
            "-O3".to_owned(),
            "-std=c++17".to_owned(),
        ];
        options.extend(request.definitions().iter().map(|it| format!("-D{it}")));
        options
    }

    fn environment(&self) -> Vec<String> {
        let set = VARIABLES
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        set.map(|(name, value)| format!("{name}={}", value.display()))
            .collect()
    }

    fn compile(&self, request: &Request, options: &[String]) -> Result<Output, CompileError> {
        let source = request.source();
        let text = c_string("the source", source.text())?;
        let name = c_string("its name", source.name())?;
        let c_options = c_options(options)?;
        let mut options: Vec<_> = c_options.iter().map(|option| option.as_ptr()).collect();

        // It guards no data of ours that a panic could leave half done.
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.loaded.table();
        let program = program(self.loaded, &text, &name)
            .map_err(|error| self.error("creating a program", &error))?;
        // SAFETY: as many options as are told, which outlive the call.
        let result = unsafe {
            (table.hiprtcCompileProgram)(
                program.1,
                options.len() as c_int,
                options.as_mut_ptr().cast_const(),
            )
        };
        let log = log(&self.bytes(
            "the compiler's words",
            program.1,
            table.hiprtcGetProgramLogSize,
            table.hiprtcGetProgramLog,
        )?);
        if [HIPRTC_ERROR_COMPILATION, HIPRTC_ERROR_LINKING].contains(&result) {
            return Err(CompileError::Source {
                name: source.name().to_owned(),
                architecture: request.architecture().to_string(),
                log,
            });
        }
        result
            .check("hiprtcCompileProgram")
            .map_err(|error| self.error("compiling", &error))?;
        let bytes = self.bytes(
            "the code",
            program.1,
            table.hiprtcGetCodeSize,
            table.hiprtcGetCode,
        )?;
        Ok(Output { bytes, log })
    }
}

type Count = unsafe extern "C" fn(*mut usize) -> c_int;
type Name = unsafe extern "C" fn(usize, *mut *const c_char) -> c_int;

/// AMD's code object manager, by which HIPRTC compiles. It tells what it can compile for, where HIPRTC does not; that of ROCm 5.2
/// even ends the process where it is asked for more.
struct Comgr {
    count: Count,
    name: Name,
    path: Option<PathBuf>,
}

impl Comgr {
    /// The one that HIPRTC has loaded, where it did so under a name that is known.
    fn open() -> Option<Self> {
        use libloading::os::unix::{Library, RTLD_LAZY};
        /// Finds only what is loaded already.
        const RTLD_NOLOAD: c_int = 4;
        const NAMES: [&str; 3] = [
            "libamd_comgr.so.3",
            "libamd_comgr.so.2",
            "libamd_comgr.so.1",
        ];
        NAMES.into_iter().find_map(|name| {
            // SAFETY: it is loaded, so nothing is run.
            let library = unsafe { Library::open(Some(name), RTLD_LAZY | RTLD_NOLOAD) }.ok()?;
            // As HIPRTC, it stays.
            let library = std::mem::ManuallyDrop::new(library);
            // SAFETY: the signatures are those of amd_comgr.h, the same in all its versions.
            let (count, name) = unsafe {
                (
                    *library.get::<Count>(b"amd_comgr_get_isa_count\0").ok()?,
                    *library.get::<Name>(b"amd_comgr_get_isa_name\0").ok()?,
                )
            };
            Some(Self {
                count,
                name,
                path: mapped_at((count as *const ()).addr()),
            })
        })
    }

    fn build(&self) -> String {
        fingerprint(self.path.as_deref())
    }

    /// What it can compile for, as `gfx90a`.
    fn architectures(&self) -> Option<Vec<String>> {
        let mut count = 0;
        // SAFETY: the pointer is to an integer.
        if unsafe { (self.count)(&raw mut count) } != 0 {
            return None;
        }
        (0..count)
            .map(|at| {
                let mut name = ptr::null();
                // SAFETY: below the count; the string is a constant of the library.
                let name = unsafe {
                    if (self.name)(at, &raw mut name) != 0 || name.is_null() {
                        return None;
                    }
                    CStr::from_ptr(name)
                };
                // `amdgcn-amd-amdhsa--gfx90a`.
                Some(name.to_str().ok()?.rsplit_once("--")?.1.to_owned())
            })
            .collect()
    }
}
