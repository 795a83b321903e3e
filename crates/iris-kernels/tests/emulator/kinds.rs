//! The kinds of kernels that one program has, each compiled, with what a case must say of it.

use crate::cases::MAX;
use crate::compile::{BESIDE_CREWS, TARGETS, kernel, own};
use iris_kernels::device::compile::{Request, Source};
use iris_kernels::device::fast::Crews;
use iris_kernels::host::Program;
use iris_kernels::{DType, Tile};
use std::path::PathBuf;

/// A kernel.
pub(crate) struct Kernel {
    pub(crate) path: PathBuf,
    /// What a case begins with.
    pub(crate) describe: String,
}

/// The name of a program's kernel, as cases have it, and of the source that it is in.
pub(crate) fn op_of(program: Program) -> &'static str {
    let (_, name) = program.kernel();
    name.strip_prefix("iris_").expect("our kernels' prefix")
}
fn source_of(program: Program) -> &'static str {
    let (file, _) = program.kernel();
    file.strip_suffix(".hip").expect("a source's ending")
}

/// The program of a name.
pub(crate) fn program_of(op: &str) -> Program {
    let named = Program::ALL
        .into_iter()
        .find(|&program| op_of(program) == op);
    named.expect("a program has this name")
}

/// A text with something else in place of a part that it has once.
pub(crate) fn with(text: &str, part: &str, instead: &str) -> String {
    assert_eq!(text.matches(part).count(), 1, "{part}");
    text.replace(part, instead)
}

/// The plain path, which every architecture has.
pub(crate) fn plain(program: Program, dtype: &str, ring: u64) -> Kernel {
    let op = op_of(program);
    Kernel {
        path: kernel(source_of(program), &TARGETS[0], dtype, ring),
        describe: TARGETS[0].describe(op, dtype),
    }
}

/// The portable kernel with waves of 64 lanes, of a source's text with a part of it replaced, if one is.
pub(crate) fn of_wide_waves(program: Program, replaced: Option<(&str, &str)>) -> Kernel {
    let target = &TARGETS[2];
    let source = Source::program(program);
    let text = match replaced {
        Some((part, instead)) => with(source.text(), part, instead),
        None => source.text().to_owned(),
    };
    Kernel {
        path: own("wide", &text, 64, &target.definitions("bf16", MAX)),
        describe: target.describe(op_of(program), "bf16"),
    }
}

/// A portable kernel with the tiles that crews have too, and the threads of its blocks.
pub(crate) fn beside_crews(program: Program) -> (PathBuf, u32) {
    let path = kernel(source_of(program), &BESIDE_CREWS, "bf16", MAX);
    (path, BESIDE_CREWS.threads())
}

/// Hopper's kernel of crews, as the host has it compiled.
pub(crate) struct OfCrews {
    crews: Crews,
    request: Request,
    describe: String,
    ring: u64,
}

impl OfCrews {
    pub(crate) fn new(program: Program, (m, n): (usize, usize), dtype: DType, ring: u64) -> Self {
        let tile = Tile { m, n };
        let crews = Crews::of_program(program, tile).expect("there are fast kernels of it");
        Self::of(crews, program, dtype, ring)
    }

    /// The same whose blocks go in pairs, of calls of no more rows than a tile has.
    pub(crate) fn paired(program: Program, (m, n): (usize, usize)) -> Self {
        let crews =
            Crews::of_program(program, Tile { m, n }).expect("there are fast kernels of it");
        Self::of(crews.paired(), program, DType::BF16, MAX)
    }

    fn of(crews: Crews, program: Program, dtype: DType, ring: u64) -> Self {
        let tile @ Tile { m, n } = crews.tile;
        let architecture = "sm_90a".parse().expect("it is known");
        Self {
            crews,
            request: crews.request(Request::program(program, dtype, tile, architecture)),
            describe: format!("op={} dtype={dtype} lanes=32 tile={m},{n}", op_of(program)),
            ring,
        }
    }

    /// The source, with its headers in it.
    pub(crate) fn text(&self) -> &str {
        self.request.source().text()
    }

    pub(crate) fn compile(&self) -> Kernel {
        self.compile_as(self.text())
    }

    /// The same of another text.
    pub(crate) fn compile_as(&self, text: &str) -> Kernel {
        let mut definitions: Vec<_> = self
            .request
            .definitions()
            .iter()
            .filter_map(|it| it.split_once('='))
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        definitions.push(("IRIS_WORD_MAX", self.ring.to_string()));
        let (threads, shared) = (self.crews.threads(), self.crews.shared());
        let (depth, a_rows) = (self.crews.slab_depth(), self.crews.a_rows);
        Kernel {
            path: own("crews", text, 32, &definitions),
            describe: format!(
                "{} threads={threads} crews={shared} slab={a_rows},{depth}",
                self.describe
            ),
        }
    }
}

/// Whether a program has kernels of crews.
pub(crate) fn has_crews(program: Program) -> bool {
    !matches!(program, Program::Atomic | Program::Spinlock)
}

/// The plain path, and crews with small tiles where there are any.
pub(crate) fn kinds(program: Program, ring: u64) -> Vec<Kernel> {
    let crews =
        has_crews(program).then(|| OfCrews::new(program, (64, 64), DType::BF16, ring).compile());
    std::iter::once(plain(program, "f32", ring))
        .chain(crews)
        .collect()
}

/// The same of two programs that share a workspace: of each kind one of both.
pub(crate) fn kinds_of_two(programs: [Program; 2], ring: u64) -> Vec<[Kernel; 2]> {
    let [many, few] = programs.map(|program| kinds(program, ring));
    let launched_as = |describe: &str| {
        let of = |key: &str| {
            describe
                .split(' ')
                .find_map(|it| it.strip_prefix(key))
                .map(str::to_owned)
        };
        of("threads=").zip(of("crews="))
    };
    many.into_iter()
        .zip(few)
        .map(|(mut many, few)| {
            if let Some((threads, crews)) = launched_as(&few.describe) {
                many.describe += &format!(" launch_of_few={threads},{crews}");
            }
            [many, few]
        })
        .collect()
}
