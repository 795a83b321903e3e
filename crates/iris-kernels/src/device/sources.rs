//! The kernels' sources, embedded, and put together into one text for compilers that have no file system.

use std::collections::HashSet;
use std::fmt::Write;

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        /// All files of `hip/`, by their names there.
        pub const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../hip/", $name)))),*];
    };
}

embed![
    "accumulate.hip",
    "all_gather_matmul.hip",
    "matmul_all_gather.hip",
    "matmul_reduce_scatter.hip",
    "one_shot.hip",
    "two_shot.hip",
    "iris/args.h",
    "iris/atomics.h",
    "iris/barrier.h",
    "iris/epilogue.h",
    "iris/fault.h",
    "iris/gemm.h",
    "iris/heap.h",
    "iris/mma.h",
    "iris/operation.h",
    "iris/platform.h",
    "iris/signal.h",
    "iris/tile.h",
    "iris/types.h",
    "iris/words.h",
];

/// An embedded file.
pub fn file(name: &str) -> Option<&'static str> {
    FILES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, text)| text)
}

/// `source`, which is called `name`, with our headers in place of their first inclusion. Compilers go on naming the file and line
/// that a thing stood in, by `#line`.
pub fn amalgamate(name: &str, source: &str) -> String {
    let mut text = String::new();
    append(&mut text, &mut HashSet::new(), name, source);
    text
}

fn append(text: &mut String, included: &mut HashSet<&'static str>, name: &str, source: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "#line 1 \"{name}\"");
    for (at, line) in source.lines().enumerate() {
        match header(line) {
            Some((known, header)) => {
                if included.insert(known) {
                    append(text, included, known, header);
                }
                let _ = writeln!(text, "#line {} \"{name}\"", at + 2);
            }
            // Said of files; in one text each header stands once anyhow.
            None if line.trim() == "#pragma once" => text.push('\n'),
            None => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
}

/// The embedded header that a line includes, if it does: by its own name, or from beside it.
fn header(line: &str) -> Option<(&'static str, &'static str)> {
    let quoted = line.trim().strip_prefix("#include \"")?.strip_suffix('"')?;
    FILES
        .iter()
        .find(|(known, _)| *known == quoted || known.strip_prefix("iris/") == Some(quoted))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_embedded() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("hip");
        let mut there = Vec::new();
        for directory in ["", "iris"] {
            for entry in std::fs::read_dir(root.join(directory)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let name = path.strip_prefix(&root).unwrap();
                    there.push(name.to_str().unwrap().to_owned());
                }
            }
        }
        there.sort();
        let mut embedded: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        embedded.sort();
        assert_eq!(there, embedded);
    }

    #[test]
    fn headers_stand_once_and_lines_keep_their_places() {
        let user = "#include \"iris/signal.h\"\n#include \"iris/heap.h\"\nint here;\n";
        let text = amalgamate("user.hip", user);
        assert!(!text.contains("#include \"iris/"));
        assert_eq!(text.matches("#line 1 \"iris/heap.h\"").count(), 1);
        let end: Vec<_> = text.lines().rev().take(2).collect();
        assert_eq!(end, ["int here;", "#line 3 \"user.hip\""]);
    }
}
