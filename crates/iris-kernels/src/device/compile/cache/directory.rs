//! The directory of a cache.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use super::CacheError;
use super::file::{Damage, decode, encode};
use super::key::Key;
use crate::device::compile::{Output, hex};

/// How the name of an image ends; before it stand the 64 digits of its key.
const IMAGE: &str = ".iris-image";
/// How the name of an image being written begins and ends.
const WRITING: (&str, &str) = (".iris-", ".writing");
/// Nothing is written for so long: what is older was left by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A directory of images.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    limit: u64,
}

/// What is there of an image.
pub(super) enum Found {
    Image(Output),
    Nothing,
    Damaged(Damage),
}

/// A file of ours.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
    /// Whether it is an image, or one being written.
    image: bool,
}

impl Directory {
    pub(super) fn new(path: PathBuf, limit: u64) -> Self {
        Self { path, limit }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of an image.
    pub(super) fn file(&self, key: &Key) -> PathBuf {
        self.path.join(hex(&key.name) + IMAGE)
    }

    /// An image.
    pub(super) fn load(&self, key: &Key) -> Result<Found, CacheError> {
        let path = self.file(key);
        let failed = |error: io::Error| CacheError::System {
            what: "reading",
            path: path.clone(),
            reason: error.to_string(),
        };
        // Opening a named pipe would wait for its writer.
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Ok(Found::Damaged(Damage::NotAFile)),
            Err(error) if is_absent(&error) => return Ok(Found::Nothing),
            Err(error) => return Err(failed(error)),
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // Another process has made room.
            Err(error) if is_absent(&error) => return Ok(Found::Nothing),
            Err(error) => return Err(failed(error)),
        };
        match decode(key, &bytes) {
            Ok(output) => {
                // Where this is not allowed, files go by when they were written instead of when they were used.
                let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Ok(Found::Image(output))
            }
            Err(damage) => Ok(Found::Damaged(damage)),
        }
    }

    /// Puts an image where [`load`](Self::load) finds it, whole or not at all, and makes room for it.
    pub(super) fn save(&self, key: &Key, output: &Output) -> Result<(), CacheError> {
        let contents = encode(key, output);
        if contents.len() as u64 > self.limit {
            return Err(CacheError::TooLarge {
                bytes: contents.len() as u64,
                limit: self.limit,
            });
        }
        self.make()?;
        self.make_room(contents.len() as u64, &self.file(key))
            .map_err(self.failed("making room in"))?;
        let write = || -> io::Result<()> {
            let mut file = self.temporary()?;
            file.write_all(&contents)?;
            file.as_file().sync_all()?;
            file.persist(self.file(key)).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(self.failed("writing to"))
    }

    /// Whether images can be put there.
    pub(super) fn check(&self) -> Result<(), CacheError> {
        self.make()?;
        self.temporary()
            .map(drop)
            .map_err(self.failed("writing to"))
    }

    fn make(&self) -> Result<(), CacheError> {
        DirBuilder::new()
            .recursive(true)
            // What is in it runs on GPUs: it is the user's alone to write.
            .mode(0o700)
            .create(&self.path)
            .map_err(self.failed("making the directory"))
    }

    /// A file to be written and renamed, which is removed if it is not.
    fn temporary(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(WRITING.0)
            .suffix(WRITING.1)
            .tempfile_in(&self.path)
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> CacheError {
        move |error| CacheError::System {
            what,
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }

    /// Removes what was used longest ago until there is room for so many bytes in place of a file, and what killed processes left.
    fn make_room(&self, bytes: u64, replaced: &Path) -> io::Result<()> {
        let now = SystemTime::now();
        let mut images = Vec::new();
        let mut total = bytes;
        for entry in self.entries()? {
            if entry.image && entry.path != replaced {
                total = total.saturating_add(entry.bytes);
                images.push(entry);
            } else if !entry.image
                && now
                    .duration_since(entry.used)
                    .is_ok_and(|age| age > ABANDONED)
            {
                remove(&entry.path)?;
            }
        }
        images.sort_by_key(|entry| entry.used);
        for entry in images {
            if total <= self.limit {
                break;
            }
            remove(&entry.path)?;
            total -= entry.bytes;
        }
        Ok(())
    }

    /// The files that are ours by their names.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(image) = name.to_str().and_then(is_image) else {
                continue;
            };
            // Not followed where it is a link; gone where another process was faster.
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => entries.push(Entry {
                    path: entry.path(),
                    bytes: metadata.len(),
                    used: metadata.modified()?,
                    image,
                }),
                Ok(_) => {}
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }
}

/// Whether a name is an image's, or that of one being written; nothing where it is neither.
fn is_image(name: &str) -> Option<bool> {
    if let Some(digits) = name.strip_suffix(IMAGE) {
        let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        return (digits.len() == 64 && digits.bytes().all(hexadecimal)).then_some(true);
    }
    let (begin, end) = WRITING;
    (name.starts_with(begin) && name.ends_with(end)).then_some(false)
}

/// Removes a file, which another process may have done.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
