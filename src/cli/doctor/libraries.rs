//! The libraries and compilers that GPUs need, which of them are here, and where.

use std::fmt;
use std::fs;

use iris::heap::cuda::Cuda;
use iris::heap::device::Driver;
use iris::kernels::device::compile::{self, Cache};
use serde::Serialize;

/// A library or a compiler.
#[derive(Debug, Serialize)]
pub(super) struct Library {
    pub(super) name: &'static str,
    /// Whose GPUs it is for: cuda or hip.
    pub(super) backend: &'static str,
    pub(super) found: bool,
    pub(super) version: Option<String>,
    pub(super) path: Option<String>,
    /// What is wrong.
    pub(super) error: Option<String>,
    /// What to do.
    pub(super) advice: Option<&'static str>,
}

/// Where kernels are kept.
#[derive(Debug, Serialize)]
pub(super) struct Kept {
    pub(super) directory: Option<String>,
    pub(super) error: Option<String>,
}

/// What was found: version and path.
type Found = (Option<String>, Option<String>);

impl Library {
    fn of(
        name: &'static str,
        backend: &'static str,
        advice: Option<&'static str>,
        found: Result<Found, String>,
    ) -> Self {
        match found {
            Ok((version, path)) => Self {
                name,
                backend,
                found: true,
                version,
                path,
                error: None,
                advice: None,
            },
            Err(error) => Self {
                name,
                backend,
                found: false,
                version: None,
                path: None,
                // Whose error it is stands before it.
                error: Some(match error.strip_prefix(name) {
                    Some(rest) => rest.trim_start_matches(" is ").to_owned(),
                    None => error,
                }),
                advice,
            },
        }
    }
}

/// All of them, by trying.
pub(super) fn all() -> Vec<Library> {
    let mut libraries = vec![
        Library::of(
            "CUDA driver",
            "cuda",
            Some(
                "it comes with NVIDIA's kernel driver; IRIS_CUDA_LIBRARY names another libcuda.so.1",
            ),
            driver(),
        ),
        Library::of(
            "HIP runtime",
            "hip",
            Some("install ROCm; IRIS_HIP_LIBRARY names another libamdhip64.so"),
            hip(),
        ),
    ];
    for (vendor, name, compiler) in compile::compilers() {
        let backend = match vendor {
            compile::Vendor::Nvidia => "cuda",
            compile::Vendor::Amd => "hip",
        };
        // A compiler that is missing says itself what to do.
        libraries.push(Library::of(
            name,
            backend,
            None,
            compiler
                .map(|compiler| {
                    let identity = compiler.identity();
                    let path = identity.path.as_ref();
                    (
                        Some(identity.version.clone()),
                        path.map(|path| path.display().to_string()),
                    )
                })
                .map_err(|error| error.to_string()),
        ));
    }
    libraries.push(Library::of(
        "cuBLASLt",
        "cuda",
        Some("`iris bench` alone needs it: install CUDA's, or PyPI's nvidia-cublas; IRIS_CUBLASLT_LIBRARY names another libcublasLt.so.13"),
        cublaslt_sys::Loaded::load()
            .map(|library| (Some(library.version().to_string()), path(library.origin().path())))
            .map_err(|error| error.to_string()),
    ));
    for (name, backend, flavour, advice) in [
        (
            "NCCL",
            "cuda",
            rccl_sys::Flavour::Nccl,
            "`iris bench` alone needs it: install NCCL, or PyPI's nvidia-nccl-cu13; IRIS_NCCL_LIBRARY names another libnccl.so.2",
        ),
        (
            "RCCL",
            "hip",
            rccl_sys::Flavour::Rccl,
            "nothing here needs it, since `iris bench` measures beside NCCL alone: ROCm has one; IRIS_NCCL_LIBRARY names another librccl.so.1",
        ),
    ] {
        let found = rccl_sys::Loaded::load_flavour(flavour)
            .map_err(|error| error.to_string())
            .and_then(|library| match library.flavour() {
                found if found == flavour => Ok((
                    library.version().ok().map(|version| version.to_string()),
                    path(library.origin().path()),
                )),
                other => Err(format!("IRIS_NCCL_LIBRARY names {other}")),
            });
        libraries.push(Library::of(name, backend, Some(advice), found));
    }
    libraries
}

fn path(path: Option<&std::path::Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

fn driver() -> Result<Found, String> {
    let driver = Cuda::load().map_err(|error| error.to_string())?;
    let version = driver.version().map_err(|error| error.to_string())?;
    let version = format!("{}.{}", version / 1000, version % 1000 / 10);
    Ok((Some(version), mapped("libcuda.so")))
}

fn hip() -> Result<Found, String> {
    let runtime = hip_sys::Loaded::load().map_err(|error| error.to_string())?;
    let version = runtime.runtime_version().ok();
    Ok((
        version.map(|version| version.to_string()),
        path(runtime.origin().path()),
    ))
}

/// The file that is mapped in this process and whose name begins so.
fn mapped(name: &str) -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        let file = path.rsplit('/').next()?;
        file.starts_with(name).then(|| path.to_owned())
    })
}

/// The cache of kernels, by trying.
pub(super) fn cache() -> Kept {
    match Cache::of_environment().check() {
        Ok(directory) => Kept {
            directory: path(directory),
            error: None,
        },
        Err(error) => Kept {
            directory: path(Cache::of_environment().directory()),
            error: Some(error.to_string()),
        },
    }
}

impl Kept {
    /// Where kernels are kept, if anywhere: one that was turned off is as it should be.
    pub(super) fn outcome(&self) -> anyhow::Result<String> {
        match (&self.directory, &self.error) {
            (_, Some(error)) => anyhow::bail!("{error}"),
            (Some(directory), None) => Ok(directory.clone()),
            (None, None) => Ok("turned off, as asked for".to_owned()),
        }
    }
}

/// All as a text: what is missing of those for GPUs that are not here takes a line in all.
pub(super) fn text(libraries: &[Library], is_here: impl Fn(&str) -> bool) -> String {
    let missed = |library: &&Library| library.found || is_here(library.backend);
    let mut lines: Vec<_> = libraries
        .iter()
        .filter(missed)
        .map(Library::to_string)
        .collect();
    let idle: Vec<_> = libraries
        .iter()
        .filter(|library| !missed(library))
        .map(|library| library.name)
        .collect();
    if !idle.is_empty() {
        lines.push(format!(
            "  no   {}; nor are there GPUs to need them",
            idle.join(", ")
        ));
    }
    lines.join("\n")
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.found { "yes" } else { "no " };
        write!(f, "  {mark}  {}", self.name)?;
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        if let Some(path) = &self.path {
            write!(f, "  {path}")?;
        }
        if let Some(error) = &self.error {
            write!(f, ": {error}")?;
        }
        if let Some(advice) = self.advice {
            write!(f, "\n        {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.directory, &self.error) {
            (_, Some(error)) => write!(f, "  no   cache of kernels: {error}"),
            (Some(directory), None) => write!(f, "  yes  cache of kernels  {directory}"),
            (None, None) => write!(
                f,
                "  no   cache of kernels, as asked for: they are compiled anew each time"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_missing_is_told_with_what_to_do() {
        let missing = Library::of("NCCL", "cuda", Some("install it"), Err("not there".into()));
        assert_eq!(
            missing.to_string(),
            "  no   NCCL: not there\n        install it"
        );
        let there = Library::of(
            "NCCL",
            "cuda",
            Some("install it"),
            Ok((Some("2.28.3".into()), Some("/lib/libnccl.so.2".into()))),
        );
        assert_eq!(there.to_string(), "  yes  NCCL 2.28.3  /lib/libnccl.so.2");
        let all = [missing, there];
        assert_eq!(text(&all, |_| true).lines().count(), 3);
        let short = text(&all, |backend| backend == "hip");
        assert!(
            short.ends_with("  no   NCCL; nor are there GPUs to need them"),
            "{short}"
        );
        assert!(!short.contains("install it"));
    }

    #[test]
    fn an_error_does_not_name_the_library_twice() {
        let error = "NVRTC is not there: libnvrtc.so.13".to_owned();
        let missing = Library::of("NVRTC", "cuda", None, Err(error));
        assert_eq!(
            missing.to_string(),
            "  no   NVRTC: not there: libnvrtc.so.13"
        );
    }

    #[test]
    fn every_library_is_found_or_says_what_to_do() {
        let all = all();
        for name in [
            "CUDA driver",
            "NVRTC",
            "cuBLASLt",
            "NCCL",
            "HIP runtime",
            "HIPRTC",
        ] {
            assert!(all.iter().any(|library| library.name == name), "{name}");
        }
        for library in all {
            let error = library.error.as_deref().unwrap_or_default();
            assert!(
                library.found || library.advice.is_some() || error.contains("IRIS_"),
                "{library}"
            );
        }
    }

    #[test]
    fn the_file_of_a_loaded_library_is_found() {
        assert!(mapped("libc.so").is_some_and(|path| path.starts_with('/')));
        assert_eq!(mapped("libnosuchthing"), None);
    }
}
