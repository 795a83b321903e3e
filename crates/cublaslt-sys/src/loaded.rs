//! cuBLASLt, loaded.

use std::ffi::OsString;
use std::sync::OnceLock;

use crate::dynamic::open::{Wanted, environment, once, open};
use crate::dynamic::text::text;
use crate::dynamic::{LoadError, Origin, Version};
use crate::table::CublasLt;
use crate::types::cublasStatus_t;

const WANTED: Wanted = Wanted {
    what: "cuBLASLt",
    variable: "IRIS_CUBLASLT_LIBRARY",
    names: &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
    installation: None,
};

/// cuBLASLt, loaded.
///
/// ```
/// match cublaslt_sys::Loaded::load() {
///     Ok(cublaslt) => println!("cuBLASLt {}", cublaslt.version()),
///     Err(error) => println!("{error}"), // names all that was tried
/// }
/// ```
#[derive(Debug)]
pub struct Loaded {
    table: CublasLt,
    origin: Origin,
}

impl Loaded {
    /// cuBLASLt, loaded at the first call that succeeds.
    ///
    /// `IRIS_CUBLASLT_LIBRARY` names the library; where it is not set, `libcublasLt.so.13`, `libcublasLt.so.12` and
    /// `libcublasLt.so` are looked for wherever the dynamic linker looks.
    ///
    /// # Errors
    /// Where there is no such library, or none that has the functions.
    pub fn load() -> Result<&'static Self, LoadError> {
        static LOADED: OnceLock<Loaded> = OnceLock::new();
        once(&LOADED, || Self::load_from(environment))
    }

    /// The same, with the environment that `lookup` knows, and anew at each call.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_from(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, LoadError> {
        let (table, origin) = open(&WANTED, &lookup)?;
        Ok(Self { table, origin })
    }

    /// The functions.
    #[must_use]
    pub fn table(&self) -> &CublasLt {
        &self.table
    }

    /// Where the library comes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The version of the library.
    #[must_use]
    pub fn version(&self) -> Version {
        // SAFETY: takes nothing, and looks at nothing but a constant.
        version_of(unsafe { (self.table.cublasLtGetVersion)() })
    }

    /// The library's name of a status, where it can tell.
    #[must_use]
    pub fn status_name(&self, status: cublasStatus_t) -> Option<String> {
        let name = self.table.cublasLtGetStatusName?;
        // SAFETY: any status may be given; the string that comes back is a constant of the library, or null.
        unsafe { text(name(status)) }
    }
}

/// The version that a number of cuBLASLt's stands for.
fn version_of(number: usize) -> Version {
    let number = u32::try_from(number).unwrap_or(0);
    Version::new(number / 10_000, number % 10_000 / 100, number % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_comes_out_of_its_number() {
        assert_eq!(version_of(130_002).to_string(), "13.0.2");
        assert_eq!(version_of(120_804), Version::new(12, 8, 4));
    }
}
