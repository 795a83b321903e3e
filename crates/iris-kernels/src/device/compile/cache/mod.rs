//! Images on disk, for the next process that needs them.
//!
//! An image is found by everything that it depends on: the text with all headers, the options, the architecture, the compiler and
//! its version. A file holds a digest of itself and a second one of all that, and is used only if both are right, so that what
//! is torn, truncated or of another image is as good as absent: it is compiled anew and replaced. Files appear whole, by renaming.
//! Processes and threads can therefore use one directory at once, with no lock, and any of them can be killed at any time.
//!
//! The least recently used files go where together they are larger than the limit. Only files whose names are those of images, or of
//! images being written, are ever removed.
//!
//! | variable | meaning |
//! |---|---|
//! | `IRIS_CACHE_DIR` | the directory, in which images go into `kernels`; set to nothing: no cache |
//! | `XDG_CACHE_HOME`, `HOME` | where the first is not set: `$XDG_CACHE_HOME/iris`, or `~/.cache/iris` |
//! | `IRIS_CACHE_BYTES` | the limit, such as 1048576 or 64MiB; 512 MiB where it is not set |

mod directory;
mod file;
mod key;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use file::Damage;

use super::{CompileError, Compiler, Image, Output, Provenance, Request, check};
use directory::{Directory, Found};
use key::Key;

const DIRECTORY: &str = "IRIS_CACHE_DIR";
const BYTES: &str = "IRIS_CACHE_BYTES";
/// The limit where none is set.
const DEFAULT_BYTES: u64 = 512 << 20;

/// Why the cache was not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Nothing says where it is.
    #[error(
        "IRIS_CACHE_DIR, XDG_CACHE_HOME and HOME are not set, or the latter two are no absolute paths; set IRIS_CACHE_DIR"
    )]
    NoDirectory,
    /// The limit is not a number.
    #[error(
        "IRIS_CACHE_BYTES is `{value}`, and must be a number of bytes such as 1048576 or 64MiB"
    )]
    Limit {
        /// What it is.
        value: String,
    },
    /// The system refused something.
    #[error("{what} {}: {reason}; set IRIS_CACHE_DIR to a directory that can be written, or to nothing to do without", .path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// An image is larger than all of them together may be.
    #[error("an image takes {bytes} bytes, and IRIS_CACHE_BYTES allows {limit}")]
    TooLarge {
        /// The bytes of its file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// What the cache had to do with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheUse {
    /// It comes from this file.
    Hit(PathBuf),
    /// It was compiled, and is in this file now.
    Stored(PathBuf),
    /// It was compiled, and is in this file now, which was there and of no use.
    Replaced {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        damage: Damage,
    },
    /// There is no cache, as asked for.
    Off,
    /// It was compiled, and is not kept: its source includes what is not part of it, and may change by itself.
    Bypassed {
        /// What it includes.
        include: String,
    },
    /// It was compiled, and is not kept.
    Failed {
        /// Why.
        error: CacheError,
        /// Whether it is the first of this cache: the user wants to be told once.
        first: bool,
    },
}

/// A cache.
pub struct Cache {
    place: Place,
    /// Whether a failure has been told.
    told: AtomicBool,
    /// Of each image, who compiles it: the other threads of this process wait and find it.
    turns: Mutex<HashMap<Key, Arc<Mutex<()>>>>,
}

#[derive(Debug)]
enum Place {
    Off,
    Nowhere(CacheError),
    There(Directory),
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.place).finish()
    }
}

impl Cache {
    /// The one that the environment says, as it is at the first call.
    pub fn of_environment() -> &'static Self {
        static CACHE: OnceLock<Cache> = OnceLock::new();
        CACHE.get_or_init(|| Self::from_lookup(|name| std::env::var_os(name)))
    }

    /// The one that variables say.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        Self::new(place(&lookup))
    }

    /// One in a directory, which is made where it is missing, of so many bytes at most.
    pub fn at(directory: impl Into<PathBuf>, limit: u64) -> Self {
        Self::new(Place::There(Directory::new(directory.into(), limit)))
    }

    /// None.
    pub fn off() -> Self {
        Self::new(Place::Off)
    }

    fn new(place: Place) -> Self {
        Self {
            place,
            told: AtomicBool::new(false),
            turns: Mutex::default(),
        }
    }

    /// Whether there is none, as asked for.
    pub fn is_off(&self) -> bool {
        matches!(self.place, Place::Off)
    }

    /// Where its files are, if it has a place.
    pub fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::There(directory) => Some(directory.path()),
            Place::Off | Place::Nowhere(_) => None,
        }
    }

    /// Whether images can be kept, by trying: where, or nothing where there is no cache, as asked for.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<Option<&Path>, CacheError> {
        match &self.place {
            Place::Off => Ok(None),
            Place::Nowhere(error) => Err(error.clone()),
            Place::There(directory) => directory.check().map(|()| Some(directory.path())),
        }
    }

    /// Takes an image from the cache, or compiles it and puts it there. What is wrong with the cache is no error: the image tells it.
    ///
    /// # Errors
    /// Where the compiler does not know the architecture, or the source does not compile.
    pub fn compile(
        &self,
        compiler: &dyn Compiler,
        request: &Request,
    ) -> Result<Image, CompileError> {
        check(compiler, request.architecture())?;
        let options = compiler.options(request);
        let (output, cache) = self.output(compiler, request, &options)?;
        Ok(Image {
            output,
            provenance: Provenance {
                source: request.source().name().to_owned(),
                architecture: request.architecture().clone(),
                compiler: compiler.identity().clone(),
                cache,
            },
        })
    }

    fn output(
        &self,
        compiler: &dyn Compiler,
        request: &Request,
        options: &[String],
    ) -> Result<(Output, CacheUse), CompileError> {
        let compile = || compiler.compile(request, options);
        let directory = match &self.place {
            Place::Off => return Ok((compile()?, CacheUse::Off)),
            Place::Nowhere(error) => return Ok((compile()?, self.failed(error.clone()))),
            Place::There(directory) => directory,
        };
        if let Some(include) = request.source().outside().first() {
            let include = include.clone();
            return Ok((compile()?, CacheUse::Bypassed { include }));
        }
        let key = Key::new(compiler, request, options);
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(key).or_default())
        };
        // It guards no data: a thread that panicked in it has left nothing half done.
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let path = directory.file(&key);
        let damage = match directory.load(&key) {
            Ok(Found::Image(output)) => return Ok((output, CacheUse::Hit(path))),
            Ok(Found::Nothing) => None,
            Ok(Found::Damaged(damage)) => Some(damage),
            Err(error) => return Ok((compile()?, self.failed(error))),
        };
        let output = compile()?;
        let cache = match (directory.save(&key, &output), damage) {
            (Ok(()), None) => CacheUse::Stored(path),
            (Ok(()), Some(damage)) => CacheUse::Replaced { path, damage },
            (Err(error), _) => self.failed(error),
        };
        Ok((output, cache))
    }

    fn failed(&self, error: CacheError) -> CacheUse {
        let first = !self.told.swap(true, Ordering::Relaxed);
        CacheUse::Failed { error, first }
    }
}

/// The directory in which everything lies that iris keeps, images in `kernels` below it; nothing where there is none, as asked for.
///
/// # Errors
/// [`CacheError::NoDirectory`] where the variables that `lookup` looks up say of none.
pub fn directory(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>, CacheError> {
    let absolute = |name: &str| {
        lookup(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    match lookup(DIRECTORY) {
        Some(directory) if directory.is_empty() => Ok(None),
        Some(directory) => Ok(Some(PathBuf::from(directory))),
        // The standard has paths that are not absolute be ignored.
        None => match (absolute("XDG_CACHE_HOME"), absolute("HOME")) {
            (Some(cache), _) => Ok(Some(cache.join("iris"))),
            (None, Some(home)) => Ok(Some(home.join(".cache").join("iris"))),
            (None, None) => Err(CacheError::NoDirectory),
        },
    }
}

fn place(lookup: &dyn Fn(&str) -> Option<OsString>) -> Place {
    let base = match directory(lookup) {
        Ok(Some(base)) => base,
        Ok(None) => return Place::Off,
        Err(error) => return Place::Nowhere(error),
    };
    match lookup(BYTES) {
        None => Place::There(Directory::new(base.join("kernels"), DEFAULT_BYTES)),
        Some(value) => match value.to_str().and_then(bytes) {
            Some(limit) => Place::There(Directory::new(base.join("kernels"), limit)),
            None => Place::Nowhere(CacheError::Limit {
                value: value.display().to_string(),
            }),
        },
    }
}

/// A number of bytes as people write it.
fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (number, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
        .unwrap_or((text, 0));
    number.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}
