//! What the tests of the three crates of bindings have in common: the C compiler, a vendor's header, a library that is none.

pub(crate) mod compiler;
pub(crate) mod fake;
pub(crate) mod header;

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

/// Says that something is not tested, and why. A failure where `IRIS_REQUIRE_TOOLS` is set.
pub(crate) fn skip(why: &str) {
    let required = env::var_os("IRIS_REQUIRE_TOOLS").is_some_and(|value| !value.is_empty());
    assert!(!required, "{why}, and IRIS_REQUIRE_TOOLS is set");
    skipped(why);
}

/// Says on stderr that something is not tested, and why. What a test prints is captured where it passes, and this is not.
pub(crate) fn skipped(why: &str) {
    let test = thread::current();
    let line = format!("SKIPPED {}: {why}\n", test.name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Where vendors' headers and libraries are unpacked: `headers` in the build's target directory.
pub(crate) fn unpacked(path: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    target
        .expect("a directory in target")
        .join("headers")
        .join(path)
}
