//! NVRTC, NVIDIA's run-time compiler, found at run time.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

pub use super::compile::CompileError;
use super::compile::{
    Compiler, Identity, Output, Request, Vendor, c_options, c_string, fingerprint, log, mapped_at,
};

/// The library's names, in the order in which they are tried.
const LIBRARIES: [&str; 4] = [
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "libnvrtc.so",
];
/// What names another one.
const OVERRIDE: &str = "IRIS_NVRTC_LIBRARY";

/// What it is called in errors.
const NAME: &str = "NVRTC";
/// What to do where it is not there, or too old.
const REMEDY: &str = "install NVIDIA's CUDA toolkit, or its compiler alone (pip install nvidia-cuda-nvrtc), or name the library in IRIS_NVRTC_LIBRARY";

type Program = *mut c_void;

struct Table {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    /// Since version 11.2.
    architectures: Option<Architectures>,
}

struct Architectures {
    count: unsafe extern "C" fn(*mut c_int) -> c_int,
    list: unsafe extern "C" fn(*mut c_int) -> c_int,
}

/// The compiler.
pub struct Nvrtc {
    table: Table,
    identity: Identity,
    /// The architectures that it knows, where it tells.
    supported: Option<Vec<String>>,
}

impl fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvrtc")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A program of the compiler's, destroyed when dropped.
struct Owned<'a>(&'a Table, Program);

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: created by this table, and not destroyed before.
        unsafe { (self.0.destroy)(&raw mut self.1) };
    }
}

impl Nvrtc {
    /// Loads the library, once a process.
    ///
    /// # Errors
    /// Where it is not there, or is no NVRTC.
    pub fn load() -> Result<&'static Self, CompileError> {
        static LOADED: OnceLock<Result<Nvrtc, CompileError>> = OnceLock::new();
        LOADED
            .get_or_init(Self::open)
            .as_ref()
            .map_err(Clone::clone)
    }

    fn open() -> Result<Self, CompileError> {
        let named = named();
        let names: Vec<&str> = match &named {
            Some(name) => vec![name],
            None => LIBRARIES.to_vec(),
        };
        let mut tried = Vec::new();
        for name in names {
            // SAFETY: the library's initialisers run, as in every program that uses it.
            match unsafe { libloading::Library::new(name) } {
                Ok(library) => return Self::look_up(library, name),
                Err(libloading::Error::DlOpen { source }) => tried.push(source.to_string()),
                Err(error) => tried.push(format!("{name}: {error}")),
            }
        }
        Err(CompileError::NotThere {
            compiler: NAME,
            tried: tried.join(", "),
            remedy: REMEDY,
        })
    }

    fn look_up(library: libloading::Library, name: &str) -> Result<Self, CompileError> {
        // Never unloaded: what it returned may still be in use.
        let library = std::mem::ManuallyDrop::new(library);
        macro_rules! function {
            ($symbol:literal) => {{
                // SAFETY: the field's signature is that of the function of this name in nvrtc.h.
                let found = unsafe { library.get(concat!($symbol, "\0").as_bytes()) };
                *found.map_err(|_| CompileError::MissingFunction {
                    compiler: NAME,
                    library: name.to_owned(),
                    symbol: $symbol,
                    remedy: REMEDY,
                })?
            }};
        }
        let architectures = || -> Result<Architectures, CompileError> {
            Ok(Architectures {
                count: function!("nvrtcGetNumSupportedArchs"),
                list: function!("nvrtcGetSupportedArchs"),
            })
        };
        let table = Table {
            create: function!("nvrtcCreateProgram"),
            destroy: function!("nvrtcDestroyProgram"),
            compile: function!("nvrtcCompileProgram"),
            log_size: function!("nvrtcGetProgramLogSize"),
            log: function!("nvrtcGetProgramLog"),
            cubin_size: function!("nvrtcGetCUBINSize"),
            cubin: function!("nvrtcGetCUBIN"),
            version: function!("nvrtcVersion"),
            architectures: architectures().ok(),
        };
        let path = mapped_at((table.compile as *const ()).addr());
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are valid.
        let status = unsafe { (table.version)(&raw mut major, &raw mut minor) };
        check("asking for the version", status)?;
        if let Some(path) = &path {
            load_builtins(path, (major, minor));
        }
        Ok(Self {
            supported: supported(&table, (major, minor))?,
            identity: Identity {
                kind: NAME,
                version: format!("{major}.{minor}"),
                build: fingerprint(path.as_deref()),
                path: path.or_else(|| Some(PathBuf::from(name))),
            },
            table,
        })
    }

    /// Compiles a text, which is called `name`, to machine code for `architecture` (`sm_90`), without a cache: see
    /// [`compile`](super::compile) for what keeps what it compiled.
    ///
    /// # Errors
    /// [`CompileError::Source`] with the compiler's words where it does not compile.
    pub fn compile(
        &self,
        name: &str,
        text: &str,
        architecture: &str,
        definitions: &[&str],
    ) -> Result<Vec<u8>, CompileError> {
        let options = options(architecture, definitions);
        Ok(self.run(name, text, architecture, &options)?.bytes)
    }

    fn run(
        &self,
        name: &str,
        text: &str,
        architecture: &str,
        options: &[String],
    ) -> Result<Output, CompileError> {
        let (c_text, c_name) = (c_string("the source", text)?, c_string("its name", name)?);
        let c_options = c_options(options)?;
        let options: Vec<_> = c_options.iter().map(|option| option.as_ptr()).collect();

        let mut program = ptr::null_mut();
        // SAFETY: all texts end with a zero and outlive the call; there are no headers.
        let status = unsafe {
            (self.table.create)(
                &raw mut program,
                c_text.as_ptr(),
                c_name.as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        check("creating a program", status)?;
        let program = Owned(&self.table, program);
        // SAFETY: as many options as are told, which outlive the call.
        let status =
            unsafe { (self.table.compile)(program.1, options.len() as c_int, options.as_ptr()) };
        let log = log(&self.bytes(program.1, self.table.log_size, self.table.log)?);
        if status != 0 {
            return Err(CompileError::Source {
                name: name.to_owned(),
                architecture: architecture.to_owned(),
                log,
            });
        }
        let bytes = self.bytes(program.1, self.table.cubin_size, self.table.cubin)?;
        Ok(Output { bytes, log })
    }

    /// What a pair of functions tells of a program.
    fn bytes(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        read: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, CompileError> {
        let mut len = 0;
        // SAFETY: the program is alive.
        check("asking for a size", unsafe { size(program, &raw mut len) })?;
        let mut bytes = vec![0u8; len];
        // SAFETY: the buffer has the size that was told.
        check("reading a result", unsafe {
            read(program, bytes.as_mut_ptr().cast())
        })?;
        Ok(bytes)
    }
}

impl Compiler for Nvrtc {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn vendor(&self) -> Vendor {
        Vendor::Nvidia
    }

    fn supported(&self) -> Option<&[String]> {
        self.supported.as_deref()
    }

    fn remedy(&self) -> &'static str {
        REMEDY
    }

    fn options(&self, request: &Request) -> Vec<String> {
        options(request.architecture().name(), request.definitions())
    }

    fn compile(&self, request: &Request, options: &[String]) -> Result<Output, CompileError> {
        let source = request.source();
        self.run(
            source.name(),
            source.text(),
            request.architecture().name(),
            options,
        )
    }
}

/// What IRIS_NVRTC_LIBRARY names, if it does.
fn named() -> Option<String> {
    std::env::var(OVERRIDE).ok().filter(|name| !name.is_empty())
}

fn options(architecture: &str, definitions: &[impl AsRef<str>]) -> Vec<String> {
    let mut options = vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_owned(),
    ];
    options.extend(
        definitions
            .iter()
            .map(|definition| format!("-D{}", definition.as_ref())),
    );
    options
}

/// NVRTC looks for its other library by name alone, and finds it where one of that name is loaded. From beside NVRTC that is done
/// here; where it is not there, NVRTC says so when it compiles.
fn load_builtins(nvrtc: &Path, (major, minor): (c_int, c_int)) {
    let path = nvrtc.with_file_name(format!("libnvrtc-builtins.so.{major}.{minor}"));
    if path.is_file() {
        // SAFETY: it is a part of NVRTC, which would load it itself.
        if let Ok(library) = unsafe { libloading::Library::new(path) } {
            // Never unloaded, as NVRTC.
            std::mem::forget(library);
        }
    }
}

/// The names of architectures by their numbers; since version 12.0 a compiler knows from 90 on also what is of each number alone.
pub(super) fn with_specific(numbers: impl Iterator<Item = i64>, major: i64) -> Vec<String> {
    numbers
        .flat_map(|number| {
            let specific = (major >= 12 && number >= 90).then(|| format!("sm_{number}a"));
            std::iter::once(format!("sm_{number}")).chain(specific)
        })
        .collect()
}

/// The architectures that NVRTC knows, where it lists them.
fn supported(
    table: &Table,
    (major, _): (c_int, c_int),
) -> Result<Option<Vec<String>>, CompileError> {
    let Some(architectures) = &table.architectures else {
        return Ok(None);
    };
    let mut count = 0;
    // SAFETY: the pointer is to an integer.
    let status = unsafe { (architectures.count)(&raw mut count) };
    check("asking for the number of architectures", status)?;
    let mut numbers = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: there is room for as many as were told.
    let status = unsafe { (architectures.list)(numbers.as_mut_ptr()) };
    check("asking for the architectures", status)?;
    Ok(Some(with_specific(
        numbers.into_iter().map(i64::from),
        major.into(),
    )))
}

fn check(what: &'static str, status: i32) -> Result<(), CompileError> {
    if status == 0 {
        Ok(())
    } else {
        Err(CompileError::Call {
            compiler: NAME,
            what,
            detail: format!("status {status}"),
        })
    }
}
