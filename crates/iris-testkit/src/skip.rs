//! Tests that a host lacks something for.

use std::fmt::Display;
use std::io::Write;

/// Says on stderr, in a line that begins with `SKIPPED`, that a test or a part of one was left out, and why. What a test prints is
/// captured where it passes, and this is not: a run that tested nothing shows that it did.
pub fn skipped(test: &str, why: impl Display) {
    let line = format!("SKIPPED {test}: {why}\n");
    // Where stderr is closed there is nobody to tell.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
