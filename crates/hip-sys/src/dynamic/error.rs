//! Why a library could not be loaded.

use std::fmt;

/// Why a library could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// None of the libraries that could be one is usable.
    #[error("no {what} could be loaded ({variable} can name one): {}", List(.attempts))]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// The environment variable that can name it.
        variable: &'static str,
        /// All that was tried, in that order.
        attempts: Vec<Attempt>,
    },
    /// The library named by the environment is not usable. Nothing else was tried.
    #[error("{variable} names no usable {what}: {attempt}")]
    Unusable {
        /// What was looked for.
        what: &'static str,
        /// The environment variable that names it.
        variable: &'static str,
        /// The library, and what is wrong with it.
        attempt: Attempt,
    },
}

/// A library that was tried and not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{library}: {rejection}")]
pub struct Attempt {
    /// The name, or the path, by which it was asked for; or a directory in which none was looked for.
    pub library: String,
    /// Why it was not taken.
    pub rejection: Rejection,
}

/// Why a library was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The directory does not exist.
    #[error("no such directory")]
    NoDirectory,
    /// The dynamic linker could not open it.
    #[error("{reason}")]
    NotOpened {
        /// What the dynamic linker says.
        reason: String,
    },
    /// It was opened and lacks functions that all versions of it have.
    #[error("lacks {}", .symbols.join(", "))]
    MissingSymbols {
        /// All the functions it lacks, except optional ones.
        symbols: Vec<&'static str>,
    },
}

/// Attempts in their order. Neighbours that failed alike share their reason.
struct List<'a>(&'a [Attempt]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alike = self.0.chunk_by(|a, b| a.rejection == b.rejection);
        for (i, attempts) in alike.enumerate() {
            let libraries: Vec<_> = attempts.iter().map(|a| a.library.as_str()).collect();
            let separator = if i == 0 { "" } else { "; " };
            write!(
                f,
                "{separator}{}: {}",
                libraries.join(", "),
                attempts[0].rejection
            )?;
        }
        Ok(())
    }
}
