//! The tests of HIP over a runtime made for the purpose by this machine's C compiler, in processes of their own: memory that is shared
//! in each way, and calls that fail.

use hip_sys::Runtime;
use iris_heap::device::{
    Device, DeviceError, Driver, Event, PinnedMemory, SharedMemory, Stream, Uuid,
};
use iris_heap::hip::{Hip, Sharing};
use std::env;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: [(&str, &str); 3] = [
    ("stand_in.h", include_str!("stand_in/stand_in.h")),
    ("memory.c", include_str!("stand_in/memory.c")),
    ("streams.c", include_str!("stand_in/streams.c")),
];
/// What the runtime here is expected to share memory by, or to fail with.
const EXPECTED: &str = "IRIS_TEST_STAND_IN";

/// Whether this process is one of those that run over it.
pub(crate) fn is_loaded() -> bool {
    env::var_os(EXPECTED).is_some()
}

/// The library, unless there is no C compiler. What is not written for it says that it is not supported.
fn build(directory: &Path) -> Option<PathBuf> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        crate::skipped("stand_in", "there is no C compiler");
        return None;
    }
    let mut rest = String::new();
    for symbol in Runtime::SYMBOLS {
        let definition = format!("{}(", symbol.name);
        let written = |source: &str| {
            source
                .lines()
                .any(|line| line.contains(&definition) && !line.starts_with(' '))
        };
        if !SOURCES.iter().any(|(_, source)| written(source)) {
            writeln!(rest, "int {}(void) {{ return 801; }}", symbol.name).unwrap();
        }
    }
    let file = |name: &str| directory.join(name);
    std::fs::write(file("rest.c"), rest).unwrap();
    for (name, source) in SOURCES {
        std::fs::write(file(name), source).unwrap();
    }
    let output = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-pthread", "-o"])
        .arg(file("libstandin.so"))
        .args(["memory.c", "streams.c", "rest.c"].map(file))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(file("libstandin.so"))
}

/// The library, built, and where it lies.
struct StandIn {
    library: PathBuf,
    _directory: tempfile::TempDir,
}

impl StandIn {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        Some(Self {
            library: build(directory.path())?,
            _directory: directory,
        })
    }

    /// Runs tests over it, in a process with these variables.
    fn run(&self, tests: &[&str], expected: &str, variables: &[(&str, &str)]) {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--nocapture", "--test-threads=1"])
            .args(tests)
            .env("IRIS_HIP_LIBRARY", &self.library)
            .env(EXPECTED, expected)
            .env_remove("IRIS_HIP_SHARING")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{variables:?}: {said}");
        let mut lines = said.lines();
        let skipped =
            lines.any(|line| line.contains("SKIPPED") && !line.contains("driver is there"));
        assert!(
            !skipped && !said.contains(" 0 passed"),
            "{variables:?}: {said}"
        );
    }

    /// Runs all of HIP over it, for one and for several devices.
    fn run_all(&self, expected: &str, variables: &[(&str, &str)]) {
        for devices in ["1", "3"] {
            let variables = [variables, &[("STAND_IN_DEVICES", devices)]].concat();
            self.run(&["hip::", "stand_in::inner::way"], expected, &variables);
        }
    }
}

const GFX90A: (&str, &str) = ("HSA_OVERRIDE_GFX_VERSION", "9.0.10");
const GFX942: (&str, &str) = ("HSA_OVERRIDE_GFX_VERSION", "9.4.2");

#[test]
fn memory_is_shared_by_descriptors_where_the_runtime_makes_them() {
    let Some(stand_in) = StandIn::new() else {
        return;
    };
    stand_in.run_all("Vmm", &[GFX942]);
    // Older ones take a descriptor in another way, and have no uncached physical memory, which this device does without.
    stand_in.run_all("Vmm", &[GFX942, ("STAND_IN_VERSION", "60342131")]);
    // Uncached.
    stand_in.run_all("Vmm", &[GFX90A]);
}

#[test]
fn memory_is_shared_by_ipc_handles_where_the_runtime_makes_no_descriptors() {
    let Some(stand_in) = StandIn::new() else {
        return;
    };
    stand_in.run_all("Ipc", &[GFX942, ("STAND_IN_VMM", "0")]);
    stand_in.run_all("Ipc", &[GFX942, ("STAND_IN_VMM", "1")]);
    stand_in.run_all("Ipc", &[GFX90A, ("STAND_IN_VERSION", "60342131")]);
    stand_in.run_all("Ipc", &[GFX90A, ("IRIS_HIP_SHARING", "ipc")]);
}

#[test]
fn what_cannot_be_used_says_why() {
    let Some(stand_in) = StandIn::new() else {
        return;
    };
    let by_hand = ("IRIS_HIP_SHARING", "vmm");
    for (expected, variables) in [
        (
            "cannot share physical memory",
            vec![GFX942, by_hand, ("STAND_IN_VMM", "1")],
        ),
        (
            "IRIS_HIP_SHARING is `fd`",
            vec![GFX942, ("IRIS_HIP_SHARING", "fd")],
        ),
        (
            "of version 5.2.21153, and 6.0.0",
            vec![GFX942, ("STAND_IN_VERSION", "50221153")],
        ),
        (
            "of the form 9.4.2",
            vec![("HSA_OVERRIDE_GFX_VERSION", "gfx942")],
        ),
        (
            "has no device 0: 0 are visible",
            vec![GFX942, ("STAND_IN_DEVICES", "0")],
        ),
    ] {
        stand_in.run(&["stand_in::inner::refusal"], expected, &variables);
    }
}

/// Plain memory is coherent over XGMI, uncached memory over any link.
#[test]
fn devices_reach_each_other_where_memory_is_coherent_between_them() {
    let Some(stand_in) = StandIn::new() else {
        return;
    };
    for (expected, variables) in [
        ("true", vec![GFX942]),
        ("false", vec![GFX942, ("STAND_IN_LINK", "2")]),
        ("true", vec![GFX90A, ("STAND_IN_LINK", "2")]),
    ] {
        stand_in.run(&["stand_in::inner::reach"], expected, &variables);
    }
}

/// Run by the others, in processes of their own.
mod inner {
    use super::*;

    fn expected() -> Option<String> {
        let expected = env::var(EXPECTED).ok();
        if expected.is_none() {
            // Captured: the tests above run it, so that nothing is left out.
            eprintln!("SKIPPED: for other tests to run");
        }
        expected
    }

    #[test]
    fn way_of_sharing_is_the_one_that_there_is() {
        let Some(expected) = expected() else { return };
        let hip = Hip::load().unwrap();
        hip.bind(0).unwrap();
        assert_eq!(format!("{:?}", hip.sharing(0).unwrap()), expected);
        let uuid: Uuid = hip.info(0).unwrap().uuid;
        assert!(uuid.to_string().ends_with("c10000"), "{uuid}");
    }

    /// Whatever call fails, all is given back.
    #[test]
    fn way_back_when_a_call_fails() {
        let Some(expected) = expected() else { return };
        let path = env::var_os("IRIS_HIP_LIBRARY").unwrap();
        // SAFETY: the library is loaded already.
        let library = unsafe { libloading::Library::new(path) }.unwrap();
        type Fail = unsafe extern "C" fn(*const std::ffi::c_char, i32);
        type Live = unsafe extern "C" fn() -> std::ffi::c_long;
        // SAFETY: so they are defined.
        let (fail, live) = unsafe {
            (
                library.get::<Fail>(b"stand_in_fail\0").unwrap(),
                library.get::<Live>(b"stand_in_live\0").unwrap(),
            )
        };
        let count = Device::<Hip>::count().unwrap();
        let all = || {
            // Anew each time, since a device keeps its streams.
            let (own, peer) = (Device::<Hip>::open(0)?, Device::<Hip>::open(count - 1)?);
            let memory = SharedMemory::new(&own, 1 << 16)?;
            let seen = SharedMemory::import(&peer, memory.export()?, memory.len())?;
            let pinned = PinnedMemory::new(&own, 64)?;
            let event = Event::new(&own)?;
            drop((memory, seen, pinned, event));
            Ok::<(), DeviceError>(())
        };
        let both = [
            "hipStreamCreateWithFlags",
            "hipMemsetAsync",
            "hipStreamSynchronize",
            "hipHostMalloc",
            "hipHostGetDevicePointer",
            "hipEventCreateWithFlags",
        ];
        let own_way: &[&std::ffi::CStr] = match expected.as_str() {
            "Vmm" => &[
                c"hipMemGetAllocationGranularity",
                c"hipMemCreate",
                c"hipMemAddressReserve",
                c"hipMemMap",
                c"hipMemSetAccess",
                c"hipMemExportToShareableHandle",
                c"hipMemImportFromShareableHandle",
            ],
            _ => &[c"hipExtMallocWithFlags", c"hipIpcGetMemHandle"],
        };
        let both = both.map(|name| std::ffi::CString::new(name).unwrap());
        let names = own_way
            .iter()
            .copied()
            .chain(both.iter().map(|name| name.as_c_str()));
        // The way is found out first, by calls that may fail.
        let hip = Hip::load().unwrap();
        assert!(matches!(
            hip.sharing(0).unwrap(),
            Sharing::Vmm | Sharing::Ipc
        ));
        // Peer access is enabled once.
        for name in [c"hipDeviceEnablePeerAccess"].into_iter().chain(names) {
            for nth in 1..=2 {
                // SAFETY: takes a text with its end.
                let before = unsafe {
                    fail(name.as_ptr(), nth);
                    live()
                };
                let outcome = all();
                // SAFETY: as above.
                let after = unsafe {
                    fail(c"".as_ptr(), 0);
                    live()
                };
                assert_eq!(before, after, "{name:?}, {nth}: {outcome:?}");
                // With one device no peer is enabled.
                let expected = nth > 1 || name == c"hipDeviceEnablePeerAccess";
                assert!(
                    outcome.is_err() || expected,
                    "{name:?} failed, and nothing else"
                );
            }
        }
        all().unwrap();
    }

    /// A stream that is dropped is the next that is asked for, and is given back with its device.
    #[test]
    fn way_of_streams_is_back_to_their_device() {
        if expected().is_none() {
            return;
        }
        let path = env::var_os("IRIS_HIP_LIBRARY").unwrap();
        // SAFETY: the library is loaded already.
        let library = unsafe { libloading::Library::new(path) }.unwrap();
        type Live = unsafe extern "C" fn() -> std::ffi::c_long;
        // SAFETY: so it is defined.
        let live = unsafe { library.get::<Live>(b"stand_in_live\0") }.unwrap();
        // SAFETY: as above.
        let live = || unsafe { live() };
        let before = live();
        let device = Device::<Hip>::open(0).unwrap();
        let [one, other] = [(); 2].map(|()| Stream::new(&device).unwrap());
        let (raw, made) = (one.raw(), live());
        assert_eq!(made - before, 2);
        drop(one);
        assert_eq!(live(), made, "it is kept");
        let again = Stream::new(&device).unwrap();
        assert_eq!((again.raw(), live()), (raw, made), "and used again");
        drop((again, other, device));
        assert_eq!(live(), before);
    }

    #[test]
    fn refusal_says_why() {
        let Some(expected) = expected() else { return };
        let refused = Device::<Hip>::open(0).and_then(|device| SharedMemory::new(&device, 4096));
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(&expected), "{error}");
    }

    #[test]
    fn reach_is_as_far_as_memory_is_coherent() {
        let Some(expected) = expected() else { return };
        let [one, other] = [0, 1].map(|at| Device::<Hip>::open(at).unwrap());
        let reach = one.reaches(&other).unwrap();
        assert_eq!(reach.access.to_string(), expected);
        assert_eq!(reach.atomics, reach.access);
    }
}
