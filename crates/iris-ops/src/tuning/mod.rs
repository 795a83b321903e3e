//! Tables of what was measured: which way a call is best carried out.
//!
//! A table is a file of JSON lines. Each is a [`TuningRow`]: the device, ranks, operation, dtype and compiler it was measured on; the
//! sizes M, N and K of the whole problem; and what was fastest there: the variant, whether in packets, the tile, whether it was fused. `iris tune` makes them.
//!
//! # Which table
//!
//! An operation that is created with [`Variant::Auto`](crate::Variant) and no tile asks, in this order,
//!
//! 1. the table in its [`FusedConfig::tuning`](crate::FusedConfig::tuning), else the file that `IRIS_TUNING` names, else `tuning.jsonl`
//!    in iris' cache directory (`IRIS_CACHE_DIR`, else `$XDG_CACHE_HOME/iris`, else `~/.cache/iris`), if that is there;
//! 2. the table that iris comes with, [`Tuning::shipped`];
//! 3. the models that it uses without any.
//!
//! `IRIS_TUNING` set to nothing leaves the user's file out, and [`FusedConfig::tuned`](crate::FusedConfig::tuned) turns all tables off. A
//! variant or a tile that is asked for is what is done, and where [`FusedConfig::packets`](crate::FusedConfig::packets) says no, rows
//! with packets do not count.
//!
//! # Which row
//!
//! Of the rows of the same device, ranks, operation, dtype and way to gather, those whose N and K both lie within a factor of the square
//! root of 2, and of these the nearest: by the distance of the logarithms, rows of the same compiler first. Among those of that N and
//! K a row holds for calls of up to M rows, down to the next smaller M; the one with the largest M for up to four times as many, unless it
//! says `one_shot` or packets, whose traffic grows faster than anything else's. For more the models say. Where the one-shot staging of a
//! row passes the cap that `auto` keeps to, it is as if there were no row.
//!
//! # All ranks do the same
//!
//! Rank 0's tables count for all ranks: it looks, and tells the others when the operation is created. Files that differ from host to host do no
//! harm, and those of other ranks are not read. What is wrong with rank 0's table is an error on all ranks, which names the file, the line,
//! the field, its value, and what was expected.

mod choice;
mod error;
mod lookup;
mod row;

pub(crate) use choice::{Asked, Choice, choices};
pub use error::TuningError;
pub use row::TuningRow;

use crate::backend::{Executor, Runs};
pub use crate::plan::Grids;
use crate::plan::{Kind, packets_of, tiled_as};
use iris_heap::World;
use iris_kernels::Element;
use iris_kernels::device::compile;
use iris_kernels::host::{GatherDim, MOST_UNPACKED, Program};
use iris_sync::Word;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The variable that names the user's table.
const VARIABLE: &str = "IRIS_TUNING";
/// Its name in the cache's directory.
const FILE: &str = "tuning.jsonl";
/// The table that iris comes with: what `iris tune` found on the machines that it names.
const SHIPPED: &str = include_str!("../../tuning/shipped.jsonl");

/// A table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tuning {
    /// What it is called in errors: its file's name.
    name: String,
    /// The rows, and the lines that they are.
    rows: Vec<(usize, TuningRow)>,
}

impl Tuning {
    /// A table of these rows. In errors they are numbered from 1 on.
    pub fn new(rows: impl IntoIterator<Item = TuningRow>) -> Self {
        Self {
            name: "the table given".to_owned(),
            rows: (1..).zip(rows).collect(),
        }
    }

    /// The table in a file. An end without a newline that is no JSON is what a command that was killed has left, and does not
    /// count.
    ///
    /// # Errors
    /// Where the file cannot be read, or a line is no row.
    pub fn read(file: &Path) -> Result<Self, TuningError> {
        let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
        Self::parse(&file.display().to_string(), &text)
    }

    /// The table that iris comes with.
    pub fn shipped() -> &'static Self {
        static TABLE: OnceLock<Tuning> = OnceLock::new();
        TABLE.get_or_init(|| {
            // A test sees to it that it is one.
            Self::parse("the shipped tuning table", SHIPPED).unwrap_or_default()
        })
    }

    /// The user's: the file that `IRIS_TUNING` names, else `tuning.jsonl` in the cache's directory, if that is there.
    ///
    /// # Errors
    /// Where the file cannot be read, or a line is no row; where one that is named is not there.
    pub fn of_environment() -> Result<Option<Self>, TuningError> {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, TuningError> {
        match lookup(VARIABLE) {
            Some(named) if named.is_empty() => return Ok(None),
            Some(named) => return Self::read(Path::new(&named)).map(Some),
            None => {}
        }
        // Without a directory there is no table in it.
        let Some(file) = file_in_cache(lookup) else {
            return Ok(None);
        };
        match fs::metadata(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&file, &error)),
            Ok(_) => Self::read(&file).map(Some),
        }
    }

    /// Where `iris tune` leaves its table unless it is told otherwise: what `IRIS_TUNING` names, else `tuning.jsonl` in the cache's directory.
    /// Nothing where there is no such directory, or the variable is set to nothing.
    pub fn file() -> Option<PathBuf> {
        match std::env::var_os(VARIABLE) {
            Some(named) => Some(PathBuf::from(named)).filter(|path| !path.as_os_str().is_empty()),
            None => file_in_cache(|name| std::env::var_os(name)),
        }
    }

    /// The rows, in the order in which they stand there.
    pub fn rows(&self) -> impl Iterator<Item = &TuningRow> {
        self.rows.iter().map(|(_, row)| row)
    }

    fn parse(name: &str, text: &str) -> Result<Self, TuningError> {
        let mut rows = Vec::new();
        for (at, line) in text.split_inclusive('\n').enumerate() {
            let ended = line.ends_with('\n');
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            match TuningRow::parse(name, at + 1, line) {
                Err(TuningError::Line { .. }) if !ended => {}
                row => rows.push((at + 1, row?)),
            }
        }
        Ok(Self {
            name: name.to_owned(),
            rows,
        })
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> TuningError {
    TuningError::Unreadable {
        file: file.to_owned(),
        reason: error.to_string(),
    }
}

fn file_in_cache(lookup: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let directory = compile::directory(lookup).ok().flatten()?;
    Some(directory.join(FILE))
}

/// Whether an operation, by its name, has packets on devices in calls of `m` rows: what rows of it may say. `gather` counts where A is gathered.
pub fn has_packets(op: &str, gather: GatherDim, m: usize) -> bool {
    match kind_of(op).and_then(|kind| packets_of(kind, gather)) {
        Some(Program::AllGatherMatmulPackets) => m <= MOST_UNPACKED,
        program => program.is_some(),
    }
}

/// The tiles that a rank multiplies in a call of an operation, by its name, of `m` rows and `n` columns of the whole problem, in packets or
/// not; `None` if there is no such operation.
pub fn grids(op: &str, packets: bool, [m, n]: [usize; 2], ranks: usize) -> Option<Grids> {
    let kind = tiled_as(kind_of(op)?, packets);
    Some(kind.grids(m, n, ranks))
}

fn kind_of(op: &str) -> Option<Kind> {
    let mut kinds = Kind::ALL.into_iter();
    kinds.find(|kind| kind.operation() == op)
}

/// What rows are measured on, beside ranks and dtype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The device's name, as the runtime tells it; `host` where ranks compute on processors.
    pub device: String,
    /// What kernels are compiled by, and its version; empty where there is no compiler.
    pub compiler: String,
}

impl Machine {
    /// That of a world's own rank.
    pub fn of<T: Element, W: Word, B: Runs<T, W>>(world: &World<B>) -> Self {
        B::Kernel::machine(world)
    }
}

#[cfg(test)]
mod tests {
    use super::row::tests::row;
    use super::*;

    #[test]
    fn the_shipped_table_is_one() {
        let table = Tuning::parse("the shipped tuning table", SHIPPED).unwrap();
        assert_eq!(&table, Tuning::shipped());
    }

    #[test]
    fn a_file_has_a_row_a_line_and_an_end_that_was_cut_off_does_not_count() {
        let rows = [row(1, 2, 3), row(4, 5, 6)];
        let text = format!("{}\n\n{}\n", rows[0], rows[1]);
        let table = Tuning::parse("t", &text).unwrap();
        assert_eq!(table.rows().cloned().collect::<Vec<_>>(), rows);
        assert_eq!(table.rows[1].0, 3);
        for cut in 0..rows[0].to_string().len() {
            let table = Tuning::parse("t", &text[..cut]).unwrap();
            assert_eq!(table.rows().count(), 0, "{cut}");
        }
        let error = Tuning::parse("t", "{}\n").unwrap_err();
        assert!(matches!(error, TuningError::Field { line: 1, .. }));
        assert!(Tuning::parse("t", "{\n").is_err());
    }

    #[test]
    fn the_users_table_is_the_one_named_or_the_caches() {
        let directory = tempfile::tempdir().unwrap();
        let (named, cached) = (
            directory.path().join("named"),
            directory.path().join("tuning.jsonl"),
        );
        let found = |named: Option<&Path>| {
            Tuning::from_lookup(|name| match name {
                "IRIS_TUNING" => named.map(|path| path.as_os_str().to_owned()),
                "IRIS_CACHE_DIR" => Some(directory.path().as_os_str().to_owned()),
                _ => None,
            })
        };
        let rows = |table: Option<Tuning>| table.map(|table| table.rows().count());
        assert_eq!(found(None), Ok(None));
        fs::write(&cached, format!("{}\n", row(1, 2, 3))).unwrap();
        assert_eq!(rows(found(None).unwrap()), Some(1));
        // One that is named and not there is not passed over.
        let error = found(Some(&named)).unwrap_err();
        assert!(matches!(&error, TuningError::Unreadable { file, .. } if *file == named));
        fs::write(&named, "").unwrap();
        assert_eq!(rows(found(Some(&named)).unwrap()), Some(0));
        assert_eq!(found(Some(Path::new(""))), Ok(None));
        fs::write(&cached, "{\"device\": 3}\n").unwrap();
        let error = found(None).unwrap_err().to_string();
        assert!(
            error.contains(cached.to_str().unwrap()) && error.contains("line 1"),
            "{error}"
        );
    }
}
