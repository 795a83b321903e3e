//! NVRTC, NVIDIA's run-time compiler, found at run time.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::OnceLock;

/// The library's names, in the order in which they are tried.
const LIBRARIES: [&str; 4] = [
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "libnvrtc.so",
];
/// What names another one.
const OVERRIDE: &str = "IRIS_NVRTC_LIBRARY";

/// An error of compiling.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The compiler's library could not be loaded.
    #[error("NVRTC is not there: {tried}")]
    NotThere {
        /// The libraries tried, and why each failed.
        tried: String,
    },
    /// The library lacks a function.
    #[error("NVRTC ({library}) has no function {symbol}")]
    MissingFunction {
        /// The library.
        library: String,
        /// The function.
        symbol: &'static str,
    },
    /// The source does not compile.
    #[error("{name} does not compile for {architecture}:\n{log}")]
    Source {
        /// The source's name.
        name: String,
        /// What it was compiled for.
        architecture: String,
        /// What the compiler says, by file and line.
        log: String,
    },
    /// The compiler refused something else.
    #[error("NVRTC: {what}: status {status}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// The status.
        status: i32,
    },
    /// A source, name or option has a zero byte in it.
    #[error("{what} has a zero byte in it")]
    ZeroByte {
        /// Which.
        what: &'static str,
    },
}

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
}

/// The compiler.
pub struct Nvrtc {
    table: Table,
    library: String,
}

impl fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvrtc")
            .field("library", &self.library)
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
        let named = std::env::var(OVERRIDE).ok();
        let names: Vec<&str> = match &named {
            Some(name) => vec![name],
            None => LIBRARIES.to_vec(),
        };
        let mut tried = Vec::new();
        for name in names {
            // SAFETY: the library's initialisers run, as in every program that uses it.
            match unsafe { libloading::Library::new(name) } {
                Ok(library) => return Self::look_up(library, name),
                Err(error) => tried.push(format!("{name} ({error})")),
            }
        }
        Err(CompileError::NotThere {
            tried: tried.join(", "),
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
                    library: name.to_owned(),
                    symbol: $symbol,
                })?
            }};
        }
        Ok(Self {
            table: Table {
                create: function!("nvrtcCreateProgram"),
                destroy: function!("nvrtcDestroyProgram"),
                compile: function!("nvrtcCompileProgram"),
                log_size: function!("nvrtcGetProgramLogSize"),
                log: function!("nvrtcGetProgramLog"),
                cubin_size: function!("nvrtcGetCUBINSize"),
                cubin: function!("nvrtcGetCUBIN"),
                version: function!("nvrtcVersion"),
            },
            library: name.to_owned(),
        })
    }

    /// Its version: major and minor.
    ///
    /// # Errors
    /// Where it does not tell.
    pub fn version(&self) -> Result<(i32, i32), CompileError> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are valid.
        let status = unsafe { (self.table.version)(&raw mut major, &raw mut minor) };
        check("asking for the version", status)?;
        Ok((major, minor))
    }

    /// Compiles a text, which is called `name`, to machine code for `architecture` (`sm_90`).
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
        let c_string =
            |what, text: &str| CString::new(text).map_err(|_| CompileError::ZeroByte { what });
        let (c_text, c_name) = (c_string("the source", text)?, c_string("its name", name)?);
        let mut options = vec![
            c_string("an option", &format!("--gpu-architecture={architecture}"))?,
            c_string("an option", "--std=c++17")?,
        ];
        for definition in definitions {
            options.push(c_string("an option", &format!("-D{definition}"))?);
        }
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();

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
        if status != 0 {
            let log = self.bytes(program.1, self.table.log_size, self.table.log)?;
            return Err(CompileError::Source {
                name: name.to_owned(),
                architecture: architecture.to_owned(),
                log: String::from_utf8_lossy(&log)
                    .trim_end_matches('\0')
                    .trim_end()
                    .to_owned(),
            });
        }
        self.bytes(program.1, self.table.cubin_size, self.table.cubin)
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

fn check(what: &'static str, status: i32) -> Result<(), CompileError> {
    if status == 0 {
        Ok(())
    } else {
        Err(CompileError::Call { what, status })
    }
}
