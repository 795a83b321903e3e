//! Why something was not compiled.

use super::{Architecture, UnknownArchitecture};

/// An error of compiling.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The name of an architecture is not one.
    #[error(transparent)]
    Architecture(#[from] UnknownArchitecture),
    /// A compiler could not be loaded or run.
    #[error("{compiler} is not there: {tried}; {remedy}")]
    NotThere {
        /// Which.
        compiler: &'static str,
        /// What was tried, and why each failed.
        tried: String,
        /// What to install or to set.
        remedy: &'static str,
    },
    /// A compiler's library lacks a function.
    #[error("{compiler} ({library}) has no function {symbol}; {remedy}")]
    MissingFunction {
        /// Which compiler.
        compiler: &'static str,
        /// The library.
        library: String,
        /// The function.
        symbol: &'static str,
        /// What to install or to set.
        remedy: &'static str,
    },
    /// The compiler that is there does not know the architecture.
    #[error("{compiler} does not know {architecture}: it knows {known}; {remedy}")]
    Unsupported {
        /// The compiler and its version.
        compiler: String,
        /// What was asked for.
        architecture: String,
        /// What it says that it knows.
        known: String,
        /// What to install or to set.
        remedy: &'static str,
    },
    /// The compiler that is there is too old for anything.
    #[error("{compiler} is of {release} or before; {remedy}")]
    TooOld {
        /// The compiler and its version.
        compiler: String,
        /// The last release that is too old.
        release: &'static str,
        /// What to install or to set.
        remedy: &'static str,
    },
    /// No compiler for the architecture is there.
    #[error("no compiler for {architecture}: {}", .reasons.join("; "))]
    NoCompiler {
        /// What was asked for.
        architecture: Architecture,
        /// Of each compiler, in the order in which they are tried, why it will not do.
        reasons: Vec<String>,
    },
    /// The source does not compile.
    #[error("{name} does not compile for {architecture}:\n{log}")]
    Source {
        /// The source's name.
        name: String,
        /// What it was compiled for.
        architecture: String,
        /// What the compiler says, by file and line.
        log: String,
    },
    /// The compiler refused something else.
    #[error("{compiler}: {what}: {detail}")]
    Call {
        /// Which compiler.
        compiler: &'static str,
        /// What was tried.
        what: &'static str,
        /// The status, or what the system says.
        detail: String,
    },
    /// A source, name or option has a zero byte in it.
    #[error("{what} has a zero byte in it")]
    ZeroByte {
        /// Which.
        what: &'static str,
    },
}
