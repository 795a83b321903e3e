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
    "all_gather_matmul_packets.hip",
    "matmul.hip",
    "matmul_all_gather.hip",
    "matmul_reduce_scatter.hip",
    "matmul_reduce_scatter_packets.hip",
    "one_shot.hip",
    "one_shot_packets.hip",
    "two_shot.hip",
    "two_shot_packets.hip",
    "iris/args.h",
    "iris/atomics.h",
    "iris/barrier.h",
    "iris/chunks.h",
    "iris/epilogue.h",
    "iris/fault.h",
    "iris/gemm.h",
    "iris/heap.h",
    "iris/kernel.h",
    "iris/mma.h",
    "iris/operation.h",
    "iris/packets.h",
    "iris/platform.h",
    "iris/ranks.h",
    "iris/signal.h",
    "iris/tile.h",
    "iris/types.h",
    "iris/walk.h",
    "iris/words.h",
    "iris/sm90/args.h",
    "iris/sm90/crews.h",
    "iris/sm90/deliver.h",
    "iris/sm90/instructions.h",
    "iris/sm90/pace.h",
    "iris/sm90/pair.h",
    "iris/sm90/ring.h",
    "iris/sm90/stints.h",
    "iris/sm90/stream.h",
    "iris/sm90/unpack.h",
    "iris/sm90/wgmma.h",
];

/// An embedded file.
pub fn file(name: &str) -> Option<&'static str> {
    FILES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, text)| text)
}

/// A source with its headers in one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amalgam {
    /// The text.
    pub text: String,
    /// What it includes all the same: neither ours nor given. Of ours, what only a CPU's compiler sees does not count.
    pub outside: Vec<String>,
}

/// `source`, which is called `name`, with our headers in place of their first inclusion. Compilers go on naming the file and line
/// that a thing stood in, by `#line`.
pub fn amalgamate(name: &str, source: &str) -> String {
    amalgam(name, source, &[]).text
}

/// The same with `headers` besides ours, by the names by which they are included. Ours go before.
pub fn amalgam(name: &str, source: &str, headers: &[(&str, &str)]) -> Amalgam {
    let mut amalgamation = Amalgamation {
        headers,
        included: HashSet::new(),
        amalgam: Amalgam {
            text: String::new(),
            outside: Vec::new(),
        },
    };
    amalgamation.append(name, source, false);
    amalgamation.amalgam
}

/// What a text includes, by the names that stand there, in their order.
pub fn includes(source: &str) -> Vec<String> {
    source
        .lines()
        .filter_map(included)
        .map(str::to_owned)
        .collect()
}

struct Amalgamation<'a> {
    headers: &'a [(&'a str, &'a str)],
    /// The names of the headers that stand in the text already.
    included: HashSet<&'a str>,
    amalgam: Amalgam,
}

impl<'a> Amalgamation<'a> {
    /// Appends a file, one of `ours` or not.
    fn append(&mut self, name: &str, source: &str, ours: bool) {
        let literal = name
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', " ");
        // Writing to a string does not fail.
        let _ = writeln!(self.amalgam.text, "#line 1 \"{literal}\"");
        for (at, line) in source.lines().enumerate() {
            let wanted = included(line);
            let from = ours.then_some(name);
            if let Some((known, text, ours)) = wanted.and_then(|wanted| self.header(wanted, from)) {
                if self.included.insert(known) {
                    self.append(known, text, ours);
                }
                let _ = writeln!(self.amalgam.text, "#line {} \"{literal}\"", at + 2);
                continue;
            }
            // What a text asks for in other ways is not of the text either.
            let asks = wanted.or_else(|| line.contains("__has_include").then(|| line.trim()));
            if let Some(outside) = asks
                && !ours
            {
                self.amalgam.outside.push(outside.to_owned());
            }
            // Said of files; in one text each header stands once anyhow.
            if line.trim() == "#pragma once" {
                self.amalgam.text.push('\n');
            } else {
                let _ = writeln!(self.amalgam.text, "{line}");
            }
        }
    }

    /// A header by the name by which a file includes it: one of ours, from within ours (`from`) also by its place beside that, or
    /// one that was given. Its name, its text, and whether it is ours.
    fn header(&self, wanted: &str, from: Option<&str>) -> Option<(&'a str, &'a str, bool)> {
        let beside = from.map(|from| beside(from, wanted));
        let ours = FILES
            .iter()
            .find(|(known, _)| *known == wanted || beside.as_deref() == Some(*known));
        if let Some(&(known, text)) = ours {
            return Some((known, text, true));
        }
        let given = self.headers.iter().find(|(known, _)| *known == wanted);
        given.map(|&(known, text)| (known, text, false))
    }
}

/// What `wanted` is if it is looked for beside the file `from`.
fn beside(from: &str, wanted: &str) -> String {
    let mut path: Vec<&str> = from.split('/').collect();
    path.pop();
    for part in wanted.split('/') {
        match part {
            ".." => drop(path.pop()),
            part => path.push(part),
        }
    }
    path.join("/")
}

/// What a line includes, if it does: `#include "this"`, `# include <this>`, or what stands in place of a name.
fn included(line: &str) -> Option<&str> {
    let directive = line.trim_start().strip_prefix('#')?.trim_start();
    let rest = ["include_next", "include", "embed"]
        .iter()
        .find_map(|word| directive.strip_prefix(word))?
        .trim();
    let name = match rest.as_bytes().first()? {
        b'"' => rest[1..].split('"').next(),
        b'<' => rest[1..].split('>').next(),
        _ => None,
    };
    Some(name.unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_beside_those_that_include_them() {
        assert_eq!(beside("iris/heap.h", "atomics.h"), "iris/atomics.h");
        assert_eq!(beside("iris/kernel.h", "sm90/crews.h"), "iris/sm90/crews.h");
        assert_eq!(beside("iris/sm90/ring.h", "../args.h"), "iris/args.h");
        for (name, text) in FILES {
            let outside = amalgam(name, text, &[]).outside;
            let only_there: Vec<_> = outside.iter().filter(|it| *it != "emulator.h").collect();
            // A header alone, which is not ours to `amalgam`, names those beside it.
            assert!(
                !name.ends_with(".hip") || only_there.is_empty(),
                "{name}: {only_there:?}"
            );
        }
    }

    #[test]
    fn every_file_is_embedded() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("hip");
        let mut there = Vec::new();
        for directory in ["", "iris", "iris/sm90"] {
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

    #[test]
    fn every_program_is_embedded() {
        for program in crate::host::Program::ALL {
            let (source, kernel) = program.kernel();
            assert!(file(source).unwrap().contains(kernel), "{program:?}");
        }
        let (source, kernel) = crate::device::PRODUCT;
        assert!(file(source).unwrap().contains(kernel));
    }

    #[test]
    fn includes_are_seen_in_every_form() {
        let text = "#include \"a.h\"\n  #  include <b/c>\n#include \"d.h\" // e\n// #include \"f.h\"\n#include G\nint include;\n";
        assert_eq!(includes(text), ["a.h", "b/c", "d.h", "G"]);
    }

    /// A name that ours has beside it means another header in a user's source.
    #[test]
    fn users_headers_are_not_mistaken_for_ours() {
        let user = "#include \"types.h\"\n#include \"iris/heap.h\"\n#include \"none.h\"\n";
        let theirs = ("types.h", "int of_user;\n");
        let fake = ("iris/heap.h", "int fake;\n");
        let amalgam = amalgam("a \"b\".hip", user, &[theirs, fake]);
        assert!(
            amalgam
                .text
                .starts_with("#line 1 \"a \\\"b\\\".hip\"\n#line 1 \"types.h\"\nint of_user;\n")
        );
        assert!(
            amalgam.text.contains("#line 1 \"iris/types.h\"") && !amalgam.text.contains("int fake")
        );
        // Of ours, only the emulator's header stays, which is no part of what a GPU's compiler sees.
        assert_eq!(amalgam.outside, ["none.h"]);
        assert_eq!(
            amalgamate("x.hip", "#include \"types.h\"\n")
                .matches("#line")
                .count(),
            1
        );
        let asks = super::amalgam("x.hip", "#if __has_include(<x>)\n#endif\n", &[]);
        assert_eq!(asks.outside.len(), 1);
    }
}
