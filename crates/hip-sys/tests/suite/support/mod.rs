//! What the tests of both crates have in common: the C compiler, a vendor's header, a library that is none.

pub(crate) mod compiler;
pub(crate) mod fake;
pub(crate) mod header;

use std::env;
use std::path::{Path, PathBuf};

/// Says on stderr that something is not tested, and why. A failure where `IRIS_REQUIRE_TOOLS` is set.
pub(crate) fn skip(why: &str) {
    let required = env::var_os("IRIS_REQUIRE_TOOLS").is_some_and(|value| !value.is_empty());
    assert!(!required, "{why}, and IRIS_REQUIRE_TOOLS is set");
    eprintln!("skipped: {why}");
}

/// Where vendors' headers and libraries are unpacked: `headers` in the build's target directory.
pub(crate) fn unpacked(path: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    target
        .expect("a directory in target")
        .join("headers")
        .join(path)
}
