//! Searches for a library that every machine has, the C library's mathematics, among names that none has.
#![allow(
    unreachable_pub,
    dead_code,
    reason = "tables are public, and the broken one is never filled"
)]

use std::ffi::{OsString, c_double};
use std::fs;
use std::path::Path;

use super::open::{Installation, Lookup, Origin, Wanted, open};
use super::table::table;
use super::{LoadError, Rejection};

const THERE: &str = "libm.so.6";

table! {
    /// Functions that the library has, except for an optional one.
    pub struct Whole {
        /// A function.
        required fn floor(x: c_double) -> c_double;
        /// A function that is there.
        optional fn ceil(x: c_double) -> c_double;
        /// A function that is not.
        optional fn iris_optional(x: c_double) -> c_double;
    }
}

table! {
    /// Functions of which the library lacks two.
    pub struct Broken {
        /// A function that is not there.
        required fn iris_first(x: c_double) -> c_double;
        /// A function.
        required fn floor(x: c_double) -> c_double;
        /// A function that is not there.
        required fn iris_second(x: c_double) -> c_double;
        /// A function that is not there, and need not be.
        optional fn iris_optional(x: c_double) -> c_double;
    }
}

const fn wanted(names: &'static [&'static str]) -> Wanted {
    Wanted {
        what: "made-up library",
        variable: "IRIS_MADE_UP",
        names,
        installation: Some(Installation {
            variable: "MADE_UP_PATH",
            usual: "/opt/iris-made-up",
        }),
    }
}

fn whole(names: &'static [&'static str], lookup: Lookup<'_>) -> Result<(Whole, Origin), LoadError> {
    open(&wanted(names), lookup)
}

fn nothing_is_set(_: &str) -> Option<OsString> {
    None
}

#[test]
fn the_first_library_that_is_there_is_taken() {
    let (table, origin) =
        whole(&["libiris-none.so.2", THERE, "libc.so.6"], &nothing_is_set).unwrap();
    assert_eq!(origin.name(), THERE);
    let path = origin.path().expect("a file, as Linux tells");
    assert!(
        path.is_absolute() && path.to_string_lossy().contains("libm"),
        "{path:?}"
    );
    // SAFETY: the function is C's `floor`, which takes any number.
    assert_eq!(unsafe { (table.floor)(2.5) }, 2.0);
    // SAFETY: the function is C's `ceil`, which takes any number.
    assert_eq!(table.ceil.map(|ceil| unsafe { ceil(2.5) }), Some(3.0));
    assert!(table.iris_optional.is_none());
    assert_eq!(table.absent(), ["iris_optional"]);
}

#[test]
fn an_error_names_all_that_was_tried() {
    let error = whole(&["libiris-none.so.2", "libiris-none.so"], &nothing_is_set).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no made-up library could be loaded (IRIS_MADE_UP can name one): libiris-none.so.2, libiris-none.so: \
         cannot open shared object file: No such file or directory; /opt/iris-made-up/lib: no such directory"
    );
}

#[test]
fn a_library_that_lacks_functions_is_passed_over_and_named() {
    let broken = open::<Broken>(&wanted(&[THERE, "libiris-none.so"]), &nothing_is_set);
    let LoadError::NotFound { attempts, .. } = broken.unwrap_err() else {
        panic!("nothing is named");
    };
    assert_eq!(attempts[0].library, THERE);
    let symbols = vec!["iris_first", "iris_second"];
    assert_eq!(attempts[0].rejection, Rejection::MissingSymbols { symbols });
    assert_eq!(
        attempts[0].to_string(),
        "libm.so.6: lacks iris_first, iris_second"
    );
    assert_eq!(attempts[1].library, "libiris-none.so");
}

#[test]
fn an_installation_that_the_environment_names_goes_first() {
    let prefix = tempfile::tempdir().unwrap();
    let lib = prefix.path().join("lib");
    fs::create_dir(&lib).unwrap();
    let set = |name: &str| (name == "MADE_UP_PATH").then(|| prefix.path().into());

    fs::write(lib.join(THERE), "no library").unwrap();
    let (_, origin) = whole(&[THERE], &set).unwrap();
    assert_eq!(origin.name(), THERE, "a broken one is passed over");

    let real = origin.path().unwrap().to_owned();
    fs::copy(real, lib.join(THERE)).unwrap();
    let (_, origin) = whole(&[THERE], &set).unwrap();
    assert_eq!(Path::new(origin.name()), lib.join(THERE));
    assert_eq!(origin.path(), Some(lib.join(THERE).as_path()));
}

#[test]
fn a_library_that_the_environment_names_is_the_only_one() {
    let none = |name: &str| (name == "IRIS_MADE_UP").then(|| "libiris-none.so".into());
    let error = whole(&[THERE], &none).unwrap_err();
    assert_eq!(
        error.to_string(),
        "IRIS_MADE_UP names no usable made-up library: libiris-none.so: cannot open shared object file: \
         No such file or directory"
    );
    let there = |name: &str| (name == "IRIS_MADE_UP").then(|| THERE.into());
    let (_, origin) = whole(&["libiris-none.so"], &there).unwrap();
    assert_eq!(origin.name(), THERE);
}

#[test]
fn a_table_tells_what_it_holds() {
    let required: Vec<_> = Broken::SYMBOLS
        .iter()
        .filter(|symbol| symbol.required)
        .collect();
    let names: Vec<_> = required.iter().map(|symbol| symbol.name).collect();
    assert_eq!(names, ["iris_first", "floor", "iris_second"]);
    assert_eq!(required[0].parameters, ["c_double"]);
    assert_eq!(required[0].result, "c_double");
}
