//! Where libraries are looked for.

use std::ffi::{OsStr, OsString, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::error::{Attempt, LoadError, Rejection};
use super::table::Table;

/// A library that is looked for.
pub(crate) struct Wanted {
    /// What it is, for errors.
    pub(crate) what: &'static str,
    /// The environment variable that can name it. Where it is set, nothing else is tried.
    pub(crate) variable: &'static str,
    /// Its names, the preferred one first.
    pub(crate) names: &'static [&'static str],
    /// Where it is installed besides the places that the dynamic linker knows.
    pub(crate) installation: Option<Installation>,
}

/// Where a vendor installs its libraries, in `lib` below a prefix.
pub(crate) struct Installation {
    /// The environment variable that names the prefix. It goes before what the dynamic linker knows.
    pub(crate) variable: &'static str,
    /// The prefix where no variable says otherwise. It goes after what the dynamic linker knows.
    pub(crate) usual: &'static str,
}

/// A place to look in.
enum Place {
    Directory(PathBuf),
    /// Wherever the dynamic linker looks: `LD_LIBRARY_PATH`, its cache, the system's directories.
    Linker,
}

/// The environment, or what stands for it in a test.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Where a loaded library comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    name: String,
    path: Option<PathBuf>,
}

impl Origin {
    /// The name, or the path, by which it was asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that it was found in, where the system tells.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

/// Opens the first usable library of those that `wanted` describes.
pub(crate) fn open<T: Table>(
    wanted: &Wanted,
    lookup: Lookup<'_>,
) -> Result<(T, Origin), LoadError> {
    if let Some(library) = get(lookup, wanted.variable) {
        return attempt(&library).map_err(|attempt| LoadError::Unusable {
            what: wanted.what,
            variable: wanted.variable,
            attempt,
        });
    }
    let mut attempts = Vec::new();
    for place in places(wanted, lookup) {
        if let Place::Directory(directory) = &place
            && !directory.is_dir()
        {
            attempts.push(Attempt {
                library: directory.display().to_string(),
                rejection: Rejection::NoDirectory,
            });
            continue;
        }
        for name in wanted.names {
            let library = match &place {
                Place::Directory(directory) => directory.join(name).into_os_string(),
                Place::Linker => OsString::from(name),
            };
            match attempt(&library) {
                Ok(opened) => return Ok(opened),
                Err(attempt) => attempts.push(attempt),
            }
        }
    }
    Err(LoadError::NotFound {
        what: wanted.what,
        variable: wanted.variable,
        attempts,
    })
}

/// What `loaded` holds, or what `load` gives, which it then holds.
///
/// Of two threads that load at the same time, both get what the first one has loaded; as libraries are never closed,
/// the other's does no harm.
pub(crate) fn once<T>(
    loaded: &'static OnceLock<T>,
    load: impl FnOnce() -> Result<T, LoadError>,
) -> Result<&'static T, LoadError> {
    if let Some(loaded) = loaded.get() {
        return Ok(loaded);
    }
    let new = load()?;
    Ok(loaded.get_or_init(|| new))
}

/// The environment of this process.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// A variable that is set, and not to nothing.
fn get(lookup: Lookup<'_>, variable: &str) -> Option<OsString> {
    lookup(variable).filter(|value| !value.is_empty())
}

fn places(wanted: &Wanted, lookup: Lookup<'_>) -> Vec<Place> {
    let Some(installation) = &wanted.installation else {
        return vec![Place::Linker];
    };
    let library_directory = |prefix: &OsStr| Place::Directory(Path::new(prefix).join("lib"));
    match get(lookup, installation.variable) {
        Some(prefix) => vec![library_directory(&prefix), Place::Linker],
        None => vec![
            Place::Linker,
            library_directory(OsStr::new(installation.usual)),
        ],
    }
}

fn attempt<T: Table>(library: &OsStr) -> Result<(T, Origin), Attempt> {
    let name = library.to_string_lossy().into_owned();
    let (table, path) = try_open(library, &name).map_err(|rejection| Attempt {
        library: name.clone(),
        rejection,
    })?;
    Ok((table, Origin { name, path }))
}

fn try_open<T: Table>(library: &OsStr, name: &str) -> Result<(T, Option<PathBuf>), Rejection> {
    // SAFETY: opening a library runs its initialisers. The names are those of vendors' runtimes, which programs link
    // to and so initialise before `main`, with nothing to be kept by the program. A library named by the environment
    // is run on the word of whoever set it, as with `LD_PRELOAD`.
    let opened = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_LOCAL) };
    let library = opened.map_err(|error| Rejection::NotOpened {
        reason: reason(&error, name),
    })?;
    // Never closed: the table's functions must stay where they are, and these runtimes leave threads and exit handlers
    // behind that would run in unmapped memory. That holds for a library that is rejected, too.
    let library = ManuallyDrop::new(library);
    let table = T::resolve(&library).map_err(|symbols| Rejection::MissingSymbols { symbols })?;
    Ok((table, path_of(address::<T>(&library))))
}

/// What the dynamic linker says, without the library's name before it.
fn reason(error: &libloading::Error, name: &str) -> String {
    let text = match error {
        libloading::Error::DlOpen { source } => source.to_string(),
        other => other.to_string(),
    };
    match text
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(": "))
    {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// An address in the library: that of the first function it has.
fn address<T: Table>(library: &Library) -> Option<usize> {
    let mut symbols = T::SYMBOLS.iter();
    symbols.find_map(|symbol| {
        // SAFETY: the pointer is taken for its address alone.
        let found = unsafe { library.get::<*const c_void>(symbol.name) };
        found.ok().map(|symbol| symbol.as_raw_ptr().addr())
    })
}

/// The file that is mapped at `address` in this process.
fn path_of(address: Option<usize>) -> Option<PathBuf> {
    let address = address?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        let (start, rest) = line.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (start..end).contains(&address).then(|| PathBuf::from(path))
    })
}
