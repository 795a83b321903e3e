//! NCCL or RCCL, loaded.

use std::ffi::{OsString, c_int};
use std::fmt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use crate::dynamic::open::{Installation, Wanted, environment, once, open};
use crate::dynamic::text::text;
use crate::dynamic::{LoadError, Origin, Version};
use crate::result::{NcclError, ncclResult_t};
use crate::table::Nccl;
use crate::types::ncclUniqueId;

/// Which of the two libraries it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// NVIDIA's. Its streams are CUDA's.
    Nccl,
    /// AMD's. Its streams are HIP's.
    Rccl,
}

impl Flavour {
    const fn wanted(self) -> Wanted {
        match self {
            Self::Nccl => Wanted {
                what: "NCCL",
                variable: VARIABLE,
                names: &["libnccl.so.2", "libnccl.so"],
                installation: None,
            },
            Self::Rccl => Wanted {
                what: "RCCL",
                variable: VARIABLE,
                names: &["librccl.so.1", "librccl.so"],
                installation: Some(ROCM),
            },
        }
    }

    /// As a file's name tells it: whatever is not RCCL is taken for NCCL.
    fn of(origin: &Origin) -> Self {
        let path = origin.path().unwrap_or(Path::new(origin.name()));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains("rccl") {
            Self::Rccl
        } else {
            Self::Nccl
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nccl => "NCCL",
            Self::Rccl => "RCCL",
        })
    }
}

const VARIABLE: &str = "IRIS_NCCL_LIBRARY";

const ROCM: Installation = Installation {
    variable: "ROCM_PATH",
    usual: "/opt/rocm",
};

/// What is looked for where either will do.
const EITHER: Wanted = Wanted {
    what: "NCCL or RCCL",
    variable: VARIABLE,
    names: &["libnccl.so.2", "libnccl.so", "librccl.so.1", "librccl.so"],
    installation: Some(ROCM),
};

/// NCCL or RCCL, loaded.
///
/// ```
/// match rccl_sys::Loaded::load() {
///     Ok(nccl) => println!("{} {}", nccl.flavour(), nccl.version()?),
///     Err(error) => println!("{error}"), // names all that was tried
/// }
/// # Ok::<(), rccl_sys::NcclError>(())
/// ```
#[derive(Debug)]
pub struct Loaded {
    table: Nccl,
    origin: Origin,
    flavour: Flavour,
}

impl Loaded {
    /// NCCL, or RCCL where there is none, loaded at the first call that succeeds.
    ///
    /// `IRIS_NCCL_LIBRARY` names the library; where it is not set, `libnccl.so.2`, `libnccl.so`, `librccl.so.1` and
    /// `librccl.so` are looked for in `$ROCM_PATH/lib`, wherever the dynamic linker looks, and in `/opt/rocm/lib` where
    /// `ROCM_PATH` is not set. A program that has streams of CUDA's or of HIP's asks for the one that takes them, by
    /// [`load_flavour`](Self::load_flavour).
    ///
    /// # Errors
    /// Where there is no such library, or none that has the functions.
    pub fn load() -> Result<&'static Self, LoadError> {
        static LOADED: OnceLock<Loaded> = OnceLock::new();
        once(&LOADED, || Self::load_from(None, environment))
    }

    /// NCCL alone, or RCCL alone, loaded at the first call that succeeds.
    ///
    /// A library named by `IRIS_NCCL_LIBRARY` is loaded whichever it is: [`flavour`](Self::flavour) tells.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_flavour(flavour: Flavour) -> Result<&'static Self, LoadError> {
        static NCCL: OnceLock<Loaded> = OnceLock::new();
        static RCCL: OnceLock<Loaded> = OnceLock::new();
        let loaded = match flavour {
            Flavour::Nccl => &NCCL,
            Flavour::Rccl => &RCCL,
        };
        once(loaded, || Self::load_from(Some(flavour), environment))
    }

    /// The same, with the environment that `lookup` knows, and anew at each call; either where no flavour is given.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_from(
        flavour: Option<Flavour>,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, LoadError> {
        let wanted = flavour.map_or(EITHER, Flavour::wanted);
        let (table, origin) = open(&wanted, &lookup)?;
        let flavour = Flavour::of(&origin);
        Ok(Self {
            table,
            origin,
            flavour,
        })
    }

    /// The functions.
    #[must_use]
    pub fn table(&self) -> &Nccl {
        &self.table
    }

    /// Where the library comes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Which of the two it is, by the name of its file: streams of the other's kind must not be given to it.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The version of the library. RCCL gives that of the NCCL that it equals.
    ///
    /// # Errors
    /// Where the library says so.
    pub fn version(&self) -> Result<Version, NcclError> {
        let mut version: c_int = 0;
        // SAFETY: the pointer is to an integer of this frame.
        let code = unsafe { (self.table.ncclGetVersion)(&raw mut version) };
        code.check("ncclGetVersion")?;
        Ok(version_of(version))
    }

    /// What the ranks of a new world find each other by. One rank makes it, and waits for the others from then on.
    ///
    /// # Errors
    /// Where the library says so: there is no network to be found on.
    pub fn unique_id(&self) -> Result<ncclUniqueId, NcclError> {
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: the pointer is to an id of this frame.
        let code = unsafe { (self.table.ncclGetUniqueId)(&raw mut id) };
        code.check("ncclGetUniqueId")?;
        Ok(id)
    }

    /// What the library says of a code.
    #[must_use]
    pub fn error_string(&self, code: ncclResult_t) -> String {
        // SAFETY: any code may be given; the string that comes back is a constant of the library, or null.
        unsafe { text((self.table.ncclGetErrorString)(code)) }.unwrap_or_default()
    }

    /// The last error of this process in words, where there was one and the library can tell.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        let last_error = self.table.ncclGetLastError?;
        // SAFETY: no communicator is given; the string that comes back is a buffer of the library's, or null.
        let words = unsafe { text(last_error(ptr::null_mut())) }?;
        (!words.is_empty()).then_some(words)
    }
}

/// The version that a number of NCCL's stands for. Up to 2.8 it had one digit fewer.
fn version_of(number: c_int) -> Version {
    let number = u32::try_from(number).unwrap_or(0);
    let major = if number < 10_000 { 1000 } else { 10_000 };
    Version::new(number / major, number % major / 100, number % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_comes_out_of_its_number() {
        assert_eq!(version_of(23_007).to_string(), "2.30.7");
        assert_eq!(version_of(22_105), Version::new(2, 21, 5));
        assert_eq!(version_of(2_708), Version::new(2, 7, 8));
    }
}
