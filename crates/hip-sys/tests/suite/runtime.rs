//! The HIP runtime of this machine, where it has one: Debian's `libamdhip64-5` does without a GPU.

use std::ffi::{CStr, CString};
use std::ptr;

use hip_sys::*;

use crate::support::skip;

fn load() -> Option<&'static Loaded> {
    match Loaded::load() {
        Ok(hip) => Some(hip),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

fn load_hiprtc() -> Option<&'static LoadedHiprtc> {
    match LoadedHiprtc::load() {
        Ok(hiprtc) => Some(hiprtc),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

#[test]
fn a_runtime_without_a_device_says_so() {
    let Some(hip) = load() else { return };
    eprintln!("{:?}", hip.origin());
    match hip.device_count() {
        Ok(devices) => {
            assert!(devices > 0);
            eprintln!("{devices} devices, HIP {:?}", hip.runtime_version());
            for device in 0..devices {
                describe(hip, i32::try_from(device).unwrap());
            }
        }
        Err(error) => {
            assert_eq!(
                error.to_string(),
                "hipGetDeviceCount: hipErrorNoDevice (100)"
            );
            assert!(hip.device_name(0).is_err());
            assert!(hip.device_attribute(0, hipDeviceAttributeWarpSize).is_err());
        }
    }
}

fn describe(hip: &Loaded, device: i32) {
    let bus = hip.device_pci_bus_id(device).unwrap();
    eprintln!(
        "{device}: {} {} at {bus}, {} bytes, waves of {}",
        hip.device_name(device).unwrap(),
        architecture(&bus).unwrap(),
        hip.device_total_memory(device).unwrap(),
        hip.device_attribute(device, hipDeviceAttributeWarpSize)
            .unwrap(),
    );
}

#[test]
fn the_runtime_is_loaded_once() {
    let Some(hip) = load() else { return };
    assert!(ptr::eq(hip, Loaded::load().unwrap()));
    let file = hip.origin().path().expect("a file, as Linux tells");
    assert!(
        file.to_string_lossy().contains("amdhip64")
            || std::env::var_os("IRIS_HIP_LIBRARY").is_some()
    );
}

/// The runtime's names of its codes are those of these bindings.
#[test]
fn the_runtime_has_the_same_names_for_its_codes() {
    let Some(hip) = load() else { return };
    // A runtime may be older than a code; it then calls it `hipErrorUnknown`, or nothing at all.
    let unknown = hip.error_name(hipError_t(4242));
    let mut known = 0;
    for &(name, code) in hipError_t::NAMED {
        let theirs = hip.error_name(code);
        if theirs == name {
            known += 1;
        } else {
            assert_eq!(theirs, unknown, "{name}");
        }
    }
    eprintln!(
        "{known} of {} codes have the same name",
        hipError_t::NAMED.len()
    );
    assert!(known * 10 > hipError_t::NAMED.len() * 7);
    assert!(!hip.error_string(hipErrorNoDevice).is_empty());
}

/// A program, destroyed in the end.
struct Program<'a>(&'a Hiprtc, hiprtcProgram);

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: the program was created by this table, and goes with this.
        let code = unsafe { (self.0.hiprtcDestroyProgram)(&raw mut self.1) };
        assert_eq!(code, HIPRTC_SUCCESS);
    }
}

impl<'a> Program<'a> {
    fn new(table: &'a Hiprtc, source: &CStr) -> Self {
        let mut program = ptr::null_mut();
        // SAFETY: both strings have their ends, and no headers are given.
        let code = unsafe {
            (table.hiprtcCreateProgram)(
                &raw mut program,
                source.as_ptr(),
                c"kernel.hip".as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        assert_eq!(code, HIPRTC_SUCCESS);
        Self(table, program)
    }

    fn compile(&self, options: &[CString]) -> hiprtcResult {
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the program lives, and there are so many options, each with its end.
        unsafe {
            (self.0.hiprtcCompileProgram)(
                self.1,
                i32::try_from(options.len()).unwrap(),
                options.as_ptr(),
            )
        }
    }

    fn log(&self) -> String {
        let mut bytes = 0;
        // SAFETY: the program lives.
        let code = unsafe { (self.0.hiprtcGetProgramLogSize)(self.1, &raw mut bytes) };
        assert_eq!(code, HIPRTC_SUCCESS);
        let mut log = vec![0_u8; bytes];
        // SAFETY: the program lives, and there is room for its log.
        let code = unsafe { (self.0.hiprtcGetProgramLog)(self.1, log.as_mut_ptr().cast()) };
        assert_eq!(code, HIPRTC_SUCCESS);
        String::from_utf8_lossy(&log).into_owned()
    }

    fn code(&self) -> Vec<u8> {
        let mut bytes = 0;
        // SAFETY: the program lives.
        let code = unsafe { (self.0.hiprtcGetCodeSize)(self.1, &raw mut bytes) };
        assert_eq!(code, HIPRTC_SUCCESS);
        let mut object = vec![0_u8; bytes];
        // SAFETY: the program lives, and there is room for its code.
        let code = unsafe { (self.0.hiprtcGetCode)(self.1, object.as_mut_ptr().cast()) };
        assert_eq!(code, HIPRTC_SUCCESS);
        object
    }
}

#[test]
fn hiprtc_compiles_for_a_device_that_is_not_there() {
    let Some(hiprtc) = load_hiprtc() else { return };
    eprintln!("{:?}: {}", hiprtc.origin(), hiprtc.version().unwrap());
    let source = c"extern \"C\" __global__ void twice(float *x) { x[threadIdx.x] *= 2.0f; }";
    let program = Program::new(hiprtc.table(), source);
    let code = program.compile(&[c"--offload-arch=gfx90a".into(), c"-O3".into()]);
    assert_eq!(code, HIPRTC_SUCCESS, "{}", program.log());
    let object = program.code();
    assert_eq!(&object[..4], b"\x7fELF");
    assert_eq!(
        u16::from_le_bytes([object[18], object[19]]),
        0xe0,
        "a code object for AMD"
    );
}

#[test]
fn hiprtc_shows_the_line_of_an_error() {
    let Some(hiprtc) = load_hiprtc() else { return };
    let source = c"extern \"C\" __global__ void broken(float *x) {\n  x[0] = undeclared;\n}";
    let program = Program::new(hiprtc.table(), source);
    let code = program.compile(&[c"--offload-arch=gfx90a".into()]);
    assert_eq!(code, HIPRTC_ERROR_COMPILATION);
    assert!(!hiprtc.error_string(code).is_empty());
    let log = program.log();
    assert!(log.contains("undeclared") && log.contains(":2:"), "{log}");
}
