//! Results in files of JSON lines, which a bench adds to and goes on from.
//!
//! A line is whole or does not count: a bench that is killed while it writes leaves at most the beginning of a row at the end, which the next
//! one drops. Nothing else is ever dropped.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{Access, FlockOperation, access, flock};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::cli::error::Unusable;

/// The rows of a file.
pub(crate) fn read<R: DeserializeOwned>(file: &Path) -> Result<Vec<R>, Unusable> {
    let text = fs::read_to_string(file).map_err(|source| Unusable::Unreadable {
        file: file.to_owned(),
        source,
    })?;
    rows(file, &text)
}

/// The rows of a file that may not be there yet.
pub(crate) fn read_if_there<R: DeserializeOwned>(file: &Path) -> Result<Vec<R>, Unusable> {
    match fs::read_to_string(file) {
        Ok(text) => rows(file, &text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Unusable::Unreadable {
            file: file.to_owned(),
            source,
        }),
    }
}

fn rows<R: DeserializeOwned>(file: &Path, text: &str) -> Result<Vec<R>, Unusable> {
    let whole = &text[..whole(file, text)?];
    let lines = whole.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| Unusable::Line {
                file: file.to_owned(),
                line: at + 1,
                detail: error.to_string(),
            })
        })
        .collect()
}

/// How much of a text is whole lines, of which the last may lack its newline. What is left is the beginning of a row, or this is no file of rows.
fn whole(file: &Path, text: &str) -> Result<usize, Unusable> {
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    let tail = text[end..].trim();
    if tail.is_empty() || serde_json::from_str::<IgnoredAny>(tail).is_ok() {
        return Ok(text.len());
    }
    if tail.starts_with('{') {
        return Ok(end);
    }
    Err(Unusable::Line {
        file: file.to_owned(),
        line: text.lines().count(),
        detail: "it is no row, nor the beginning of one".to_owned(),
    })
}

/// Whether a file can be written, or made: asked before anything is measured. Nothing is changed.
pub(crate) fn is_writable(argument: &'static str, file: &Path) -> Result<(), Unusable> {
    let unwritable = |source| Unusable::Unwritable {
        argument,
        file: file.to_owned(),
        source,
    };
    let there = OpenOptions::new().append(true).open(file);
    match there.map(drop) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let directory = file.parent().filter(|parent| *parent != Path::new(""));
            let directory = directory.unwrap_or(Path::new("."));
            access(directory, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|error| unwritable(error.into()))
        }
        there => there.map_err(unwritable),
    }
}

/// Adds rows at the end of a file, which is made where it is not there.
pub(crate) fn append<R: Serialize>(file: &Path, rows: &[R]) -> anyhow::Result<()> {
    let attempt = || -> anyhow::Result<()> {
        let mut open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(file)?;
        // Until it is closed: another bench may be adding to it, too.
        flock(&open, FlockOperation::LockExclusive)?;
        let text = std::io::read_to_string(&open)?;
        let end = whole(file, &text)?;
        // What an earlier bench was killed in the midst of.
        open.set_len(end as u64)?;
        let mut lines = Vec::new();
        if end > 0 && !text[..end].ends_with('\n') {
            lines.push(b'\n');
        }
        for row in rows {
            serde_json::to_writer(&mut lines, row)?;
            lines.push(b'\n');
        }
        std::io::Seek::seek(&mut open, std::io::SeekFrom::Start(end as u64))?;
        open.write_all(&lines)?;
        open.sync_data()?;
        Ok(())
    };
    attempt().with_context(|| format!("writing results to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::record::Record;
    use crate::cli::bench::record::tests::{gpu, host};

    #[test]
    fn rows_are_added_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.jsonl");
        assert_eq!(read_if_there::<Record>(&file).unwrap(), []);
        assert!(matches!(
            read::<Record>(&file),
            Err(Unusable::Unreadable { .. })
        ));
        append(&file, &[host()]).unwrap();
        let other = gpu("matmul_all_reduce", 16, None);
        append(&file, std::slice::from_ref(&other)).unwrap();
        assert_eq!(read::<Record>(&file).unwrap(), [host(), other]);
    }

    #[test]
    fn what_a_killed_bench_left_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.jsonl");
        // Longer rows than the one that follows: nothing of them is left behind it.
        let long = || gpu("matmul_all_reduce", 1, None);
        append(&file, &[long(), long()]).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        for end in 0..text.len() {
            fs::write(&file, &text[..end]).unwrap();
            let left: Vec<Record> = read(&file).unwrap();
            // The last row is whole without its newline, too.
            let whole = if end + 1 < text.len() { 1 } else { 2 };
            assert!(
                left.len() <= whole && left.iter().all(|row| *row == long()),
                "{end}"
            );
            append(&file, &[host()]).unwrap();
            let after: Vec<Record> = read(&file).unwrap();
            assert_eq!(after.len(), left.len() + 1, "{end}");
            assert_eq!(after.last(), Some(&host()), "{end}");
            // Nor is anything of it behind what follows, for other readers.
            assert!(fs::read_to_string(&file).unwrap().ends_with('\n'), "{end}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("notes.txt");
        for text in ["what I noted", "what I noted\nand more"] {
            fs::write(&file, text).unwrap();
            assert!(read_if_there::<Record>(&file).is_err());
            let error = format!("{:#}", append(&file, &[host()]).unwrap_err());
            assert!(
                error.contains("notes.txt") && error.contains("row"),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn several_add_to_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.jsonl");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..40 {
                        append(&file, &[host()]).unwrap();
                    }
                });
            }
        });
        assert_eq!(read::<Record>(&file).unwrap(), vec![host(); 320]);
    }

    #[test]
    fn a_line_that_is_no_row_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.jsonl");
        append(&file, &[host()]).unwrap();
        let mut text = fs::read_to_string(&file).unwrap();
        text += "{\"op\": 3}\n";
        fs::write(&file, text).unwrap();
        let error = read::<Record>(&file).unwrap_err();
        assert!(matches!(&error, Unusable::Line { line: 2, .. }), "{error}");
        // Nor is it overwritten by resuming.
        assert!(read_if_there::<Record>(&file).is_err());
    }
}
