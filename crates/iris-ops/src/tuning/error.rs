//! What can be wrong with a table.

use std::path::PathBuf;

/// Why a table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TuningError {
    /// The file cannot be read.
    #[error("the tuning table {}: {reason}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A line is no row.
    #[error("{table}, line {line}: not a JSON object on a line of its own: {reason}")]
    Line {
        /// The file, or what else the table is called.
        table: String,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A field of a row is not what it must be.
    #[error("{table}, line {line}: `{field}` is {value}, and must be {expected}")]
    Field {
        /// The file, or what else the table is called.
        table: String,
        /// The line, from 1 on.
        line: usize,
        /// The field.
        field: String,
        /// What it is.
        value: String,
        /// What it must be.
        expected: String,
    },
}
