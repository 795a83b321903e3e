//! What the command leaves: a file, a JSON object, text.

use std::fs;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use iris::ops::{DType, Element};
use rustix::fs::{Access, access};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::cli::error::Unusable;
use crate::cli::tables::Origin;

/// A file to be written, found writable before anything is run.
#[derive(Debug)]
pub(crate) struct Out {
    /// As it was given.
    given: PathBuf,
    /// What is replaced or made: no link.
    file: PathBuf,
    directory: PathBuf,
}

impl Out {
    /// Whether `given`, which `origin` names, can be replaced or made: its directory is there and writable, and what is there already is a regular file. Of a
    /// link it is what the link leads to.
    pub(crate) fn check(origin: Origin, given: &Path) -> Result<Self, Unusable> {
        let fault = |detail: String| Unusable::Out {
            origin,
            file: given.to_owned(),
            detail,
        };
        let file = match given.canonicalize() {
            Ok(file) => {
                let there = file.metadata().map_err(|error| fault(error.to_string()))?;
                if there.is_dir() {
                    return Err(fault("is a directory".to_owned()));
                }
                if !there.is_file() {
                    return Err(fault("is not a regular file".to_owned()));
                }
                file
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if given.file_name().is_none() {
                    return Err(fault(error.to_string()));
                }
                if given.is_symlink() {
                    return Err(fault("is a link to what is not there".to_owned()));
                }
                given.to_owned()
            }
            Err(error) => return Err(fault(error.to_string())),
        };
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        access(&directory, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
            fault(format!(
                "{}: {}",
                directory.display(),
                std::io::Error::from(error)
            ))
        })?;
        Ok(Self {
            given: given.to_owned(),
            file,
            directory,
        })
    }

    /// Writes the matrix as the file's only tensor, `c`.
    ///
    /// The file appears whole or not at all: it is written under another name in the same directory and then renamed; that
    /// other file is removed if anything goes wrong.
    pub(crate) fn write<T: Element>(
        &self,
        c: &[T],
        rows: usize,
        columns: usize,
    ) -> anyhow::Result<()> {
        let dtype = match T::DTYPE {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
        };
        let attempt = || -> anyhow::Result<()> {
            let view = TensorView::new(dtype, vec![rows, columns], bytemuck::cast_slice(c))?;
            let contents = safetensors::serialize([("c", view)], None)?;
            let mut temporary = tempfile::Builder::new()
                .prefix(".iris-")
                .suffix(".safetensors")
                // What the process's umask leaves of it, as for any file that is made by writing to it.
                .permissions(fs::Permissions::from_mode(0o666))
                .tempfile_in(&self.directory)?;
            let mut writer = BufWriter::new(&mut temporary);
            writer.write_all(&contents)?;
            writer.flush()?;
            drop(writer);
            temporary
                .persist(&self.file)
                .map_err(|failed| failed.error)?;
            Ok(())
        };
        attempt().with_context(|| format!("--out {}", self.given.display()))
    }
}

/// Prints one JSON object as a line of its own.
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    text(&serde_json::to_string(value)?)
}

/// Prints a text and ends its line.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let said = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    said.context("writing to standard output")
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use safetensors::SafeTensors;

    use super::*;

    fn check(file: &Path) -> Result<Out, Unusable> {
        Out::check(Origin::Out, file)
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_holds_c_and_replaces_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("y.safetensors");
        fs::write(&file, "old").unwrap();
        let c = [1.0, 2.0, -3.0, 4.0, 5.0, 6.5].map(bf16::from_f32);
        check(&file).unwrap().write(&c, 2, 3).unwrap();
        let bytes = fs::read(&file).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.names(), ["c"]);
        let tensor = tensors.tensor("c").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::BF16, &[2, 3][..]));
        assert_eq!(tensor.data(), bytemuck::cast_slice::<_, u8>(&c));
        assert_eq!(names(directory.path()), ["y.safetensors"]);
    }

    #[test]
    fn nothing_is_left_where_writing_fails() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("y.safetensors");
        let out = check(&file).unwrap();
        // Not as many elements as the shape says, then a directory in the way of the renaming.
        assert!(out.write(&[1.0f32], 2, 3).is_err());
        assert!(names(directory.path()).is_empty());
        fs::create_dir_all(file.join("full")).unwrap();
        let error = out.write(&[1.0f32], 1, 1).unwrap_err();
        assert!(format!("{error:#}").contains("y.safetensors"), "{error:#}");
        assert_eq!(names(directory.path()), ["y.safetensors"]);
    }

    #[test]
    fn what_a_link_leads_to_is_replaced_and_the_link_stays() {
        let directory = tempfile::tempdir().unwrap();
        let [file, link] = ["y.safetensors", "link"].map(|name| directory.path().join(name));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink("y.safetensors", &link).unwrap();
        check(&link).unwrap().write(&[1.0f32], 1, 1).unwrap();
        assert!(link.is_symlink() && !file.is_symlink());
        assert!(SafeTensors::deserialize(&fs::read(&file).unwrap()).is_ok());
        assert_eq!(names(directory.path()), ["link", "y.safetensors"]);
        fs::remove_file(&file).unwrap();
        let error = check(&link).unwrap_err().to_string();
        assert!(error.ends_with("/link: is a link to what is not there"));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_found_before() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            check(directory.path())
                .unwrap_err()
                .to_string()
                .contains("is a directory")
        );
        let missing = directory.path().join("none/y.safetensors");
        assert!(
            check(&missing)
                .unwrap_err()
                .to_string()
                .contains("No such file")
        );
        let through_a_file = Path::new("/dev/null/y.safetensors");
        assert!(check(through_a_file).is_err());
        assert!(check(Path::new("y.safetensors")).is_ok());
    }
}
