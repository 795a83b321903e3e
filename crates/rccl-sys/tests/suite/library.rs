//! NCCL or RCCL itself, where the machine has it: PyPI's `nvidia-nccl-cu13`, unpacked in `target/headers/nccl`, does
//! without a GPU.

use std::env;
use std::ffi::OsString;

use rccl_sys::*;

use crate::support::{skip, unpacked};

/// The environment, with the unpacked library where it names none.
fn lookup(name: &str) -> Option<OsString> {
    let set = env::var_os(name);
    if set.is_none() && name == "IRIS_NCCL_LIBRARY" {
        let unpacked = unpacked("nccl/nvidia/nccl/lib/libnccl.so.2");
        return unpacked.is_file().then(|| unpacked.into());
    }
    set
}

fn load() -> Option<Loaded> {
    match Loaded::load_from(None, lookup) {
        Ok(nccl) => Some(nccl),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

#[test]
fn the_library_tells_its_version_and_its_codes() {
    let Some(nccl) = load() else { return };
    let version = nccl.version().unwrap();
    let absent = nccl.table().absent();
    eprintln!(
        "{} {version} from {:?}, without {absent:?}",
        nccl.flavour(),
        nccl.origin()
    );
    assert_eq!(version.major, 2);
    if version >= Version::new(2, 27, 0) {
        assert_eq!(absent, Vec::<&str>::new());
    }
    let unknown = nccl.error_string(ncclResult_t(4242));
    let mut strings: Vec<_> = ncclResult_t::NAMED
        .iter()
        .filter(|&&(_, code)| code < ncclTimeout || version >= Version::new(2, 30, 0))
        .map(|&(_, code)| nccl.error_string(code))
        .collect();
    assert!(
        strings
            .iter()
            .all(|string| !string.is_empty() && *string != unknown),
        "{strings:?}"
    );
    let all = strings.len();
    strings.sort();
    strings.dedup();
    assert_eq!(strings.len(), all, "a string for each code");
}

#[test]
fn each_world_has_an_id_of_its_own() {
    let Some(nccl) = load() else { return };
    let (first, second) = (nccl.unique_id().unwrap(), nccl.unique_id().unwrap());
    assert_ne!(first, second);
}

/// A call that cannot succeed, to see a code and its words come back.
#[test]
fn a_world_of_no_ranks_is_refused() {
    let Some(nccl) = load() else { return };
    let id = nccl.unique_id().unwrap();
    let mut comm = std::ptr::null_mut();
    // SAFETY: the pointer is to a handle of this frame, and the id is one.
    let code = unsafe { (nccl.table().ncclCommInitRank)(&raw mut comm, 0, id, 0) };
    eprintln!("{code}: {:?}", nccl.last_error());
    assert_ne!(code, ncclSuccess);
    assert!(code.name().is_some());
    assert!(comm.is_null());
}
