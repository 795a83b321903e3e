//! HIPRTC: HIP's compiler as a library.
//!
//! It needs no device, so it is loaded apart from the runtime. Since ROCm 5.5 it is a library of its own; before, and
//! up to ROCm 6, the runtime's library has its functions too.

use std::ffi::{OsString, c_char, c_int, c_uint};
use std::sync::OnceLock;

use crate::dynamic::codes::{call_error, codes, handles};
use crate::dynamic::open::{Wanted, environment, once, open};
use crate::dynamic::table::table;
use crate::dynamic::text::text;
use crate::dynamic::{LoadError, Origin, Version};
use crate::loaded::ROCM;

codes! {
    /// How a HIPRTC function ended. Any value is valid; those known here have a name.
    #[must_use = "a HIPRTC call that failed has done nothing"]
    pub struct hiprtcResult(c_uint) {
        /// The call succeeded.
        HIPRTC_SUCCESS = 0;
        /// There is not enough memory.
        HIPRTC_ERROR_OUT_OF_MEMORY = 1;
        /// The program could not be made.
        HIPRTC_ERROR_PROGRAM_CREATION_FAILURE = 2;
        /// An argument is invalid.
        HIPRTC_ERROR_INVALID_INPUT = 3;
        /// The program is not one.
        HIPRTC_ERROR_INVALID_PROGRAM = 4;
        /// The compiler does not know an option.
        HIPRTC_ERROR_INVALID_OPTION = 5;
        /// The source has errors. The log tells them.
        HIPRTC_ERROR_COMPILATION = 6;
        /// A built-in operation failed.
        HIPRTC_ERROR_BUILTIN_OPERATION_FAILURE = 7;
        /// A name expression came after the compilation.
        HIPRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION = 8;
        /// A lowered name was asked for before the compilation.
        HIPRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION = 9;
        /// The name expression is not the program's.
        HIPRTC_ERROR_NAME_EXPRESSION_NOT_VALID = 10;
        /// The compiler failed.
        HIPRTC_ERROR_INTERNAL_ERROR = 11;
        /// The linker failed. From HIP 5.3 on.
        HIPRTC_ERROR_LINKING = 100;
    }
}

call_error! {
    /// A HIPRTC function that did not succeed.
    pub struct HiprtcError(hiprtcResult);
}

handles! {
    /// A program: source, and what it was compiled to.
    hiprtcProgram = *mut _hiprtcProgram;
}

table! {
    /// The functions of HIPRTC, as they are in C.
    ///
    /// The functions may be called from any thread, those of one program by one thread at a time.
    pub struct Hiprtc {
        /// The version of HIPRTC.
        required fn hiprtcVersion(major: *mut c_int, minor: *mut c_int) -> hiprtcResult;
        /// What a code says.
        required fn hiprtcGetErrorString(result: hiprtcResult) -> *const c_char;
        /// A new program with its source and the headers that it includes.
        required fn hiprtcCreateProgram(
            prog: *mut hiprtcProgram, src: *const c_char, name: *const c_char, numHeaders: c_int,
            headers: *const *const c_char, includeNames: *const *const c_char,
        ) -> hiprtcResult;
        /// Compiles a program. Without `--offload-arch`, for the current device.
        required fn hiprtcCompileProgram(
            prog: hiprtcProgram, numOptions: c_int, options: *const *const c_char,
        ) -> hiprtcResult;
        /// The bytes of the code object.
        required fn hiprtcGetCodeSize(prog: hiprtcProgram, codeSizeRet: *mut usize) -> hiprtcResult;
        /// The code object.
        required fn hiprtcGetCode(prog: hiprtcProgram, code: *mut c_char) -> hiprtcResult;
        /// The bytes of what the compiler said, with its end.
        required fn hiprtcGetProgramLogSize(
            prog: hiprtcProgram, logSizeRet: *mut usize,
        ) -> hiprtcResult;
        /// What the compiler said.
        required fn hiprtcGetProgramLog(prog: hiprtcProgram, log: *mut c_char) -> hiprtcResult;
        /// Ends a program, and sets the handle to null.
        required fn hiprtcDestroyProgram(prog: *mut hiprtcProgram) -> hiprtcResult;
        /// Asks for the name in the code object of something named in the source's language.
        required fn hiprtcAddNameExpression(
            prog: hiprtcProgram, name_expression: *const c_char,
        ) -> hiprtcResult;
        /// The name in the code object. It lives as long as the program.
        required fn hiprtcGetLoweredName(
            prog: hiprtcProgram, name_expression: *const c_char, lowered_name: *mut *const c_char,
        ) -> hiprtcResult;
        /// The bytes of the program as LLVM's bit code.
        optional fn hiprtcGetBitcodeSize(
            prog: hiprtcProgram, bitcode_size: *mut usize,
        ) -> hiprtcResult;
        /// The program as LLVM's bit code.
        optional fn hiprtcGetBitcode(prog: hiprtcProgram, bitcode: *mut c_char) -> hiprtcResult;
    }
}

/// The library's own names, then those of the runtime's library, which older versions put it in.
const NAMES: &[&str] = &[
    "libhiprtc.so.7",
    "libhiprtc.so.6",
    "libhiprtc.so.5",
    "libhiprtc.so",
    "libamdhip64.so.7",
    "libamdhip64.so.6",
    "libamdhip64.so.5",
    "libamdhip64.so",
];

/// HIPRTC, loaded.
#[derive(Debug)]
pub struct LoadedHiprtc {
    table: Hiprtc,
    origin: Origin,
}

impl LoadedHiprtc {
    /// HIPRTC, loaded at the first call that succeeds.
    ///
    /// `IRIS_HIPRTC_LIBRARY` names the library; where it is not set, `libhiprtc.so` is looked for under its versions
    /// 7, 6 and 5 and without one, then `libamdhip64.so` likewise, in `$ROCM_PATH/lib`, wherever the dynamic linker
    /// looks, and in `/opt/rocm/lib` where `ROCM_PATH` is not set.
    ///
    /// # Errors
    /// Where there is no such library, or none that has the functions.
    pub fn load() -> Result<&'static Self, LoadError> {
        static LOADED: OnceLock<LoadedHiprtc> = OnceLock::new();
        once(&LOADED, || Self::load_from(environment))
    }

    /// The same, with the environment that `lookup` knows, and anew at each call.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_from(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, LoadError> {
        let wanted = Wanted {
            what: "HIPRTC",
            variable: "IRIS_HIPRTC_LIBRARY",
            names: NAMES,
            installation: Some(ROCM),
        };
        let (table, origin) = open(&wanted, &lookup)?;
        Ok(Self { table, origin })
    }

    /// The functions.
    #[must_use]
    pub fn table(&self) -> &Hiprtc {
        &self.table
    }

    /// Where the library comes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The version of HIPRTC; its last number is always 0.
    ///
    /// # Errors
    /// Where HIPRTC says so.
    pub fn version(&self) -> Result<Version, HiprtcError> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to integers of this frame.
        let code = unsafe { (self.table.hiprtcVersion)(&raw mut major, &raw mut minor) };
        code.check("hiprtcVersion")?;
        let part = |part: c_int| u32::try_from(part).unwrap_or(0);
        Ok(Version::new(part(major), part(minor), 0))
    }

    /// What the library says of a code.
    #[must_use]
    pub fn error_string(&self, code: hiprtcResult) -> String {
        // SAFETY: any code may be given; the string that comes back is a constant of the library, or null.
        unsafe { text((self.table.hiprtcGetErrorString)(code)) }.unwrap_or_default()
    }
}
