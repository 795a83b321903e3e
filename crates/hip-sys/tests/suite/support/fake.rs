//! A library with a vendor's functions that do nothing.

use std::fmt::Write;

/// A function to be left out, or to have a body of its own.
pub(crate) struct Written<'a> {
    pub(crate) name: &'a str,
    /// The whole function in C; nothing where it is left out.
    pub(crate) source: &'a str,
}

/// C source in which each function of `names` returns `code`, but for those written here.
pub(crate) fn source<'a>(
    names: impl IntoIterator<Item = &'a str>,
    code: u32,
    written: &[Written<'_>],
) -> String {
    let mut source =
        String::from("#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n");
    for name in names {
        let own = written.iter().find(|function| function.name == name);
        match own {
            Some(function) => source.push_str(function.source),
            None => write!(source, "int {name}(void) {{ return {code}; }}").expect("a string"),
        }
        source.push('\n');
    }
    source
}
