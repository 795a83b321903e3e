//! Sources: ours, and those of users, which include our headers.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::device::sources::{self, Amalgam};
use crate::host::Program;

/// A source with the headers that it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    name: String,
    amalgam: Amalgam,
}

impl Source {
    /// The source of one of our programs. Its [kernel](Program::kernel) is one of those that it defines.
    pub fn program(program: Program) -> Self {
        Self::embedded(program.kernel().0)
    }

    /// The source of the product by itself: [`PRODUCT`](crate::device::PRODUCT).
    pub fn product() -> Self {
        Self::embedded(crate::device::PRODUCT.0)
    }

    fn embedded(name: &str) -> Self {
        // What is asked for is embedded: `sources::tests::every_program_is_embedded`.
        Self::user(name, sources::file(name).unwrap_or_default())
    }

    /// A user's own source, which includes our headers as `"iris/heap.h"`. Compilers name it `name` where it has errors.
    ///
    /// ```
    /// use iris_kernels::device::compile::Source;
    ///
    /// let source = Source::user(
    ///     "mine.hip",
    ///     "#include \"iris/heap.h\"\nIRIS_KERNEL(64) mine(iris::u32* to) { *to = iris::LANES; }",
    /// );
    /// assert!(source.text().contains("constexpr u32 LANES"));
    /// ```
    pub fn user(name: impl Into<String>, text: &str) -> Self {
        Self::with_headers(name, text, &[])
    }

    /// The same, with headers of the user's own, by the names by which they are included, and their texts. Ours go before: a
    /// header of the user's cannot be called `iris/heap.h`.
    pub fn with_headers(name: impl Into<String>, text: &str, headers: &[(&str, &str)]) -> Self {
        let name = name.into();
        let amalgam = sources::amalgam(&name, text, headers);
        Self { name, amalgam }
    }

    /// A user's source from a file, with headers from beside it.
    ///
    /// # Errors
    /// Where it, or a header that is there, cannot be read as text.
    pub fn read(file: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(file)?;
        let directory = file.parent().unwrap_or(Path::new(""));
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut seen = HashSet::new();
        let mut wanted = sources::includes(&text);
        while let Some(name) = wanted.pop() {
            let path = directory.join(&name);
            if sources::file(&name).is_none() && seen.insert(name.clone()) && path.is_file() {
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?;
                wanted.extend(sources::includes(&text));
                headers.push((name, text));
            }
        }
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        Ok(Self::with_headers(
            file.display().to_string(),
            &text,
            &headers,
        ))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text, headers included.
    pub fn text(&self) -> &str {
        &self.amalgam.text
    }

    /// What it includes that is neither ours nor given: the text is not all that the compiler will see.
    pub fn outside(&self) -> &[String] {
        &self.amalgam.outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_the_headers_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        write("mine.h", "#include \"sub/other.h\"\nint of_mine;\n");
        // Two that include each other stand once each.
        write("sub/other.h", "#include \"mine.h\"\nint of_other;\n");
        let file = write(
            "kernel.hip",
            "#include <iris/types.h>\n# include \"mine.h\" // ours\n#include \"away.h\"\nint of_kernel;\n",
        );
        let source = Source::read(&file).unwrap();
        assert_eq!(source.name(), file.display().to_string());
        for once in [
            "int of_mine;",
            "int of_other;",
            "int of_kernel;",
            "using u32 =",
        ] {
            assert_eq!(source.text().matches(once).count(), 1, "{once}");
        }
        assert_eq!(source.outside(), ["away.h"]);
        assert!(Source::read(&directory.path().join("none.hip")).is_err());
    }

    #[test]
    fn our_programs_are_whole() {
        for program in Program::ALL {
            let source = Source::program(program);
            assert!(source.text().contains(program.kernel().1), "{program:?}");
            assert_eq!(source.outside(), [""; 0], "{program:?}");
        }
    }
}
