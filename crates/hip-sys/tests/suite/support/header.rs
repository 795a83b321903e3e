//! A vendor's C header, asked what it says by a program that the C compiler makes with it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use super::compiler::{Compiler, run};

/// A header, and where it is.
pub(crate) struct Header {
    compiler: Compiler,
    /// The lines that include it.
    prelude: String,
    flags: Vec<String>,
    /// All words of what it comes to, the names of its macros among them.
    words: BTreeSet<String>,
}

/// Something that the header is asked, and what these bindings say to it.
struct Check {
    /// A constant, a type, a function, or `struct.field`.
    name: String,
    /// What of it is asked.
    what: String,
    /// A word that the header has, where it has the rest.
    needs: String,
    /// An expression in C, with an integer's value.
    expression: String,
    ours: i64,
}

/// What the header is asked, all in one.
#[derive(Default)]
pub(crate) struct Checks(Vec<Check>);

/// What the header said.
pub(crate) struct Report {
    /// What it says as these bindings do.
    pub(crate) agreed: usize,
    /// What it says otherwise: its name, and a sentence.
    pub(crate) different: Vec<(String, String)>,
    /// What it does not have.
    pub(crate) absent: Vec<String>,
}

impl Header {
    /// The header that `prelude` includes from `directories`, for the definitions `defines`.
    pub(crate) fn new(
        compiler: Compiler,
        prelude: &str,
        directories: &[PathBuf],
        defines: &[&str],
    ) -> Self {
        let prelude =
            format!("#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n{prelude}\n");
        let mut flags = vec!["-w".to_owned()];
        flags.extend(defines.iter().map(|define| format!("-D{define}")));
        flags.extend(
            directories
                .iter()
                .map(|path| format!("-I{}", path.display())),
        );
        let mut text = String::new();
        for mode in ["-E", "-dM"] {
            let mut flags = flags.clone();
            flags.extend(["-E".to_owned(), mode.to_owned()]);
            let file = compiler.compile("preprocessed", &prelude, &flags);
            text += &std::fs::read_to_string(file).expect("preprocessed source in UTF-8");
        }
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        let words = words.map(str::to_owned).collect();
        Self {
            compiler,
            prelude,
            flags,
            words,
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.words.contains(name)
    }

    /// The values of integer expressions.
    pub(crate) fn evaluate<'a>(&self, expressions: impl IntoIterator<Item = &'a str>) -> Vec<i64> {
        let mut source = format!("{}int main(void) {{\n", self.prelude);
        for expression in expressions {
            writeln!(source, "printf(\"%lld\\n\", (long long)({expression}));").expect("a string");
        }
        source += "return 0;\n}\n";
        let program = self.compiler.compile("ask", &source, &self.flags);
        let output = run(&mut Command::new(program));
        let numbers = output.lines().map(|line| line.parse());
        numbers.collect::<Result<_, _>>().expect("numbers")
    }

    /// Asks all of `checks`.
    pub(crate) fn ask(&self, checks: Checks) -> Report {
        let (known, absent): (Vec<_>, Vec<_>) = checks
            .0
            .into_iter()
            .partition(|check| self.has(&check.needs));
        let values = self.evaluate(known.iter().map(|check| check.expression.as_str()));
        assert_eq!(values.len(), known.len(), "an answer to each question");
        let mut report = Report {
            agreed: 0,
            different: Vec::new(),
            absent: absent.into_iter().map(|check| check.name).collect(),
        };
        for (check, theirs) in known.iter().zip(values) {
            if theirs == check.ours {
                report.agreed += 1;
            } else {
                let words = format!(
                    "{}: {} here, {theirs} in the header",
                    check.what, check.ours
                );
                report.different.push((check.name.clone(), words));
            }
        }
        report
    }
}

impl Checks {
    fn push(&mut self, name: &str, what: &str, expression: String, ours: i64) {
        self.0.push(Check {
            name: name.to_owned(),
            what: format!("{what} {name}").trim_start().to_owned(),
            needs: name.to_owned(),
            expression,
            ours,
        });
    }

    /// A constant has this value.
    pub(crate) fn constant(&mut self, name: &str, ours: i64) {
        self.push(name, "", name.to_owned(), ours);
    }

    /// A type has the size of `T`.
    pub(crate) fn size<T>(&mut self, name: &str) {
        let size = i64::try_from(size_of::<T>()).expect("a size");
        self.push(name, "size of", format!("sizeof({name})"), size);
        let align = i64::try_from(align_of::<T>()).expect("an alignment");
        self.push(name, "alignment of", format!("_Alignof({name})"), align);
    }

    /// A field is at this offset, and has this size. Its name is one that nothing else has, where older headers lack it.
    pub(crate) fn field(&mut self, name: &str, field: &str, offset: usize, size: usize) {
        let asked = [
            ("offset", format!("offsetof({name}, {field})"), offset),
            ("size", format!("sizeof((({name} *)0)->{field})"), size),
        ];
        for (what, expression, ours) in asked {
            self.0.push(Check {
                name: format!("{name}.{field}"),
                what: format!("{what} of {name}.{field}"),
                needs: field.split('.').next().unwrap_or(field).to_owned(),
                expression,
                ours: i64::try_from(ours).expect("a number of bytes"),
            });
        }
    }

    /// A function has this prototype: the types as Rust writes them.
    pub(crate) fn prototype(&mut self, name: &str, parameters: &[&str], result: &str) {
        let parameters = match parameters {
            [] => "void".to_owned(),
            _ => parameters
                .iter()
                .map(|&ty| c_type(ty))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let prototype = format!("{} (*)({parameters})", c_type(result));
        // Some versions of the vendors' headers lack the const of `const char *const *`. It is the same to the callee.
        let without = prototype.replace("const * const *", "const * *");
        let compatible = |prototype: &str| {
            format!("__builtin_types_compatible_p(__typeof__(&{name}), {prototype})")
        };
        let expression = format!("{} || {}", compatible(&prototype), compatible(&without));
        self.push(
            name,
            &format!("whether {prototype} is the type of"),
            expression,
            1,
        );
    }
}

/// A type of a prototype in C. All but C's own have the same name there.
fn c_type(rust: &str) -> String {
    let rust = rust.trim();
    if let Some(target) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(target));
    }
    if let Some(target) = rust.strip_prefix("*const ") {
        return format!("{} const *", c_type(target));
    }
    match rust {
        "c_int" => "int",
        "c_uint" => "unsigned int",
        "c_char" => "char",
        "c_void" => "void",
        "c_ulonglong" => "unsigned long long",
        "u32" => "uint32_t",
        "i64" => "int64_t",
        "u64" => "uint64_t",
        "usize" => "size_t",
        "f32" => "float",
        other => other,
    }
    .to_owned()
}

/// The size of the field that `get` gives.
pub(crate) fn size_of_field<T, F>(_get: fn(&T) -> &F) -> usize {
    size_of::<F>()
}
