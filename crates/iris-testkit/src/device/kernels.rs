//! Kernels compiled once a process, all that are missing at once: compiling takes most of a GPU test's time.

use super::check;
use iris_kernels::DType;
use iris_kernels::device::nvrtc::{CompileError, Nvrtc};
use iris_kernels::device::sources;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A source as it is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The name of an embedded source, or [`check::NAME`].
    pub source: &'static str,
    /// The type of its elements.
    pub dtype: DType,
    /// What is defined beside that: `IRIS_STALLS`, `IRIS_WORD_MAX=7`.
    pub definitions: &'static [&'static str],
}

impl Kernel {
    fn compile(&self, architecture: &str) -> Result<Image, CompileError> {
        let text = match sources::file(self.source) {
            Some(text) => sources::amalgamate(self.source, text),
            None => check::source(),
        };
        let dtype = format!("IRIS_DTYPE={}", self.dtype);
        let mut definitions = vec![dtype.as_str()];
        definitions.extend(self.definitions);
        Nvrtc::load()?
            .compile(self.source, &text, architecture, &definitions)
            .map(Image::from)
    }
}

/// Machine code.
pub type Image = Arc<[u8]>;

static COMPILED: Mutex<Option<HashMap<(Kernel, String), Image>>> = Mutex::new(None);

/// The images of `wanted` for an architecture, in this order. What this process has not compiled yet it compiles now, on all
/// cores.
///
/// # Errors
/// The first that does not compile.
pub fn images(architecture: &str, wanted: &[Kernel]) -> Result<Vec<Image>, CompileError> {
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = compiled.get_or_insert_default();
    let key = |kernel: &Kernel| (kernel.clone(), architecture.to_owned());
    let mut missing: Vec<&Kernel> = Vec::new();
    for kernel in wanted {
        if !compiled.contains_key(&key(kernel)) && !missing.contains(&kernel) {
            missing.push(kernel);
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..cores.min(missing.len()) {
            scope.spawn(|| {
                while let Some(kernel) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let image = kernel.compile(architecture);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((*kernel, image));
                }
            });
        }
    });
    for (kernel, image) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        compiled.insert(key(kernel), image?);
    }
    Ok(wanted
        .iter()
        .filter_map(|kernel| compiled.get(&key(kernel)).cloned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_compile() {
        if let Err(error) = Nvrtc::load() {
            crate::skipped("the_checks_compile", error);
            return;
        }
        let wanted = DType::ALL.map(|dtype| Kernel {
            source: check::NAME,
            dtype,
            definitions: &[],
        });
        for architecture in ["sm_80", "sm_90a"] {
            let images = images(architecture, &wanted).unwrap();
            assert_eq!(images.len(), 3);
            assert!(images.iter().all(|image| image.starts_with(b"\x7fELF")));
        }
    }
}
