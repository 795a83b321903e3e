//! Errors of the command and the exit status they lead to.

use std::io::Write;
use std::path::PathBuf;

use iris::ops::Tile;
use iris::ops::tuning::TuningError;

use crate::cli::launch;
use crate::cli::size::Bytes;
use crate::cli::tables::Origin;

/// Arguments that cannot be used: nothing was run, exit status 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("--a and --b belong together: give both, or neither and --m, --n, --k")]
    HalfGiven,
    #[error("{argument} has no meaning with --a and --b, whose shapes give the sizes")]
    SizeBesidesInputs { argument: &'static str },
    #[error("{argument} has no meaning for {operation}")]
    NotForOperation {
        argument: String,
        operation: &'static str,
    },
    #[error("the inner dimensions differ: A ({a}) is {m} x {k_a}, B ({b}) is {k_b} x {n}{hint}")]
    Inner {
        a: String,
        b: String,
        m: usize,
        k_a: usize,
        k_b: usize,
        n: usize,
        hint: &'static str,
    },
    #[error("{what} is {rows} x {columns}; every size must be at least 1")]
    Empty {
        what: String,
        rows: usize,
        columns: usize,
    },
    #[error("{what} has {given} dimensions, and must have {expected}")]
    Dimensions {
        what: String,
        given: usize,
        expected: usize,
    },
    #[error("the bias ({what}) has {given} values, and C has {expected} columns")]
    BiasLength {
        what: String,
        given: usize,
        expected: usize,
    },
    #[error("{what} is of dtype {dtype}; f32, f16 and bf16 are supported")]
    DType { what: String, dtype: String },
    #[error("A is {a} and B is {b}; say with --dtype which of f32, f16 and bf16 to compute in")]
    DTypesDiffer { a: String, b: String },
    #[error("{file}", file = file.display())]
    Unreadable {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("{argument} {file}", file = file.display())]
    Unwritable {
        argument: &'static str,
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("--results {file}: there are no rows in it", file = file.display())]
    NoRows { file: PathBuf },
    #[error("{file}, line {line}: {detail}", file = file.display())]
    Line {
        file: PathBuf,
        line: usize,
        detail: String,
    },
    #[error("{ranks} ranks need as many GPUs, and {detail}")]
    Devices { ranks: usize, detail: String },
    #[error("{argument} is for {backend}")]
    NotForBackend {
        argument: &'static str,
        backend: &'static str,
    },
    #[error("{file}: is not a regular file", file = file.display())]
    NotAFile { file: PathBuf },
    #[error("{file}: is not a usable safetensors file: {detail}", file = file.display())]
    Malformed { file: PathBuf, detail: String },
    #[error("{file}: is not a usable safetensors file: tensor `{tensor}` {detail}", file = file.display())]
    MalformedTensor {
        file: PathBuf,
        tensor: String,
        detail: String,
    },
    #[error("{file}: has no tensor `{tensor}`; it has {there}", file = file.display())]
    NoTensor {
        file: PathBuf,
        tensor: String,
        there: String,
    },
    #[error("{origin} {file}: {detail}", file = file.display())]
    Out {
        origin: Origin,
        file: PathBuf,
        detail: String,
    },
    #[error("{origin}: {error}")]
    Table { origin: Origin, error: TuningError },
    #[error(
        "there is no place for a table, since IRIS_TUNING or IRIS_CACHE_DIR is set to nothing, or there is no home; give --out"
    )]
    NoTable,
    #[error("--tile {}x{}: kernels for {architecture} have no such tile, but {there}", .tile.m, .tile.n)]
    Tile {
        tile: Tile,
        architecture: String,
        there: String,
    },
    #[error("--define {given} is not of the form NAME or NAME=VALUE")]
    Define { given: String },
    #[error("there is no cache to fill, since IRIS_CACHE_DIR is set to nothing; give --out")]
    NoCache,
    #[error("{what} of {m} x {n} x {k} needs about {needed} of memory; this machine has {there}")]
    Memory {
        what: &'static str,
        m: usize,
        n: usize,
        k: usize,
        needed: Bytes,
        there: Bytes,
    },
    #[error("{m} x {n} x {k} is more than can be addressed")]
    TooLarge { m: usize, n: usize, k: usize },
    #[error(
        "`iris {command}` does not measure the {backend} backend; `--backend host` runs everywhere"
    )]
    Backend {
        command: &'static str,
        backend: &'static str,
    },
    #[error("--backend {backend} cannot be had here: {detail}; `--backend host` runs everywhere")]
    NoBackend {
        backend: &'static str,
        detail: String,
    },
    #[error("--ranks is {given}, and the launcher started {world} ranks; leave it out")]
    RanksDiffer { given: usize, world: usize },
    #[error("--ranks is {given}, and must be from 1 to {max}")]
    Ranks { given: usize, max: usize },
    #[error("the launcher's environment: {0}")]
    Launcher(String),
    #[error("--heap {heap} does not do: {detail}")]
    Heap { heap: Bytes, detail: String },
}

/// The exit status for an error: 2 where the arguments are to blame, else 1.
pub(crate) fn status(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Unusable>()) {
        2
    } else {
        1
    }
}

/// In an error's chain once it has been said.
#[derive(Debug, thiserror::Error)]
#[error("said before")]
struct Said;

/// Says of a rank's process what it failed of, before it gives back its GPU: a driver does that for one process after the other, which
/// takes seconds where there are several, and whoever waits for the ranks may not have that patience.
pub(crate) fn at_once<R>(outcome: anyhow::Result<R>) -> anyhow::Result<R> {
    match outcome {
        Err(error) if launch::own_rank().is_some() => {
            report(&error);
            Err(error.context(Said))
        }
        outcome => outcome,
    }
}

/// Says on stderr what went wrong, causes last, unless it has been said.
pub(crate) fn report(error: &anyhow::Error) {
    if let Some(words) = words(launch::own_rank(), error) {
        say(&words);
    }
}

fn words(rank: Option<usize>, error: &anyhow::Error) -> Option<String> {
    if error.is::<Said>() {
        return None;
    }
    let whole = whole(error);
    Some(match rank {
        Some(rank) => format!("rank {rank}: {whole}"),
        None => whole,
    })
}

/// An error and its causes, in one line. Some errors end with their cause themselves: it is not said again.
pub(crate) fn whole(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.ends_with(&cause) {
            words += &format!(": {cause}");
        }
    }
    words
}

/// Says something on stderr, in one write: ranks in several processes share it, and their lines must not mix.
pub(crate) fn say(what: &str) {
    // Where stderr is closed there is nobody to be told.
    let _ = std::io::stderr().write_all(format!("iris: {what}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_is_said_once() {
        let error = || anyhow::anyhow!("cause").context("what it was about");
        let whole = "what it was about: cause";
        assert_eq!(words(None, &error()).unwrap(), whole);
        assert_eq!(
            words(Some(2), &error()).unwrap(),
            format!("rank 2: {whole}")
        );
        assert_eq!(words(Some(2), &error().context(Said)), None);
        let unusable = anyhow::Error::from(Unusable::HalfGiven).context(Said);
        assert_eq!(status(&unusable), 2);
        // Of a process that is no rank `main` says it.
        let kept = at_once::<()>(Err(error())).unwrap_err();
        assert!(words(None, &kept).is_some());
    }

    #[test]
    fn a_cause_that_an_error_ends_with_is_said_once() {
        let system = || std::io::Error::from_raw_os_error(2);
        let once = "No such file or directory (os error 2)";
        let unreadable = anyhow::Error::from(Unusable::Unreadable {
            file: "x".into(),
            source: system(),
        });
        assert_eq!(words(None, &unreadable).unwrap(), format!("x: {once}"));
        let of_world = anyhow::Error::from(iris::heap::WorldError::Os {
            what: "looking",
            source: system(),
        });
        let said = words(None, &of_world.context("starting")).unwrap();
        assert_eq!(said, format!("starting: looking: {once}"));
    }

    #[test]
    fn unusable_arguments_exit_with_2_also_in_context() {
        let unusable = anyhow::Error::from(Unusable::HalfGiven);
        assert_eq!(status(&unusable), 2);
        let wrapped = Err::<(), _>(unusable).context("while reading").unwrap_err();
        assert_eq!(status(&wrapped), 2);
        assert_eq!(status(&anyhow::anyhow!("a fault")), 1);
    }
}
