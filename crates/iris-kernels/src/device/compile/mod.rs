//! Compilation for GPUs, whichever vendor's: what to compile, by what, and where it is kept.
//!
//! A [`Request`] says what: a [`Source`], ours or a user's that includes our headers; an [`Architecture`], whose name tells the
//! vendor; definitions. [`compile()`] does it by the first compiler of this machine that knows the architecture, unless the
//! [`Cache`] on disk has what it made before:
//!
//! | vendor | compilers, in this order | named by |
//! |---|---|---|
//! | NVIDIA | NVRTC; nvcc | `IRIS_NVRTC_LIBRARY`; `IRIS_NVCC` |
//! | AMD | HIPRTC of ROCm 6 or newer; `amdclang++`, clang from version 22 on | `IRIS_HIPRTC_LIBRARY`; `IRIS_CLANG` |
//!
//! A program that its variable names goes first, and where what is named cannot be used, nothing else is. The same order holds at run time and ahead of time, so that either finds what the
//! other has left in the cache.
//!
//! ```no_run
//! use iris_kernels::device::compile::{Architecture, Request, Source, compile, target};
//!
//! let source = Source::user(
//!     "mine.hip",
//!     "#include \"iris/heap.h\"\nIRIS_KERNEL(64) mine(iris::u32* to) { *to = iris::LANES; }",
//! );
//! let device: Architecture = "sm_90".parse()?; // as the device tells
//! let image = compile(&Request::new(source, target(&device)?))?;
//! if let Some(notice) = image.notice() {
//!     eprintln!("{notice}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod architecture;
mod cache;
mod compiler;
mod error;
mod hiprtc;
mod program;
mod resources;
mod source;

pub use architecture::{Architecture, UnknownArchitecture, Vendor};
pub use cache::{Cache, CacheError, CacheUse, Damage, directory};
pub use compiler::{Compiler, Identity, Output};
pub use error::CompileError;
pub use hiprtc::Hiprtc;
pub use program::Program;
pub use resources::Resources;
pub use source::Source;

pub(super) use compiler::{c_options, c_string, fingerprint, log, mapped_at};
use compiler::{check, hex};

use crate::device::nvrtc::Nvrtc;
use crate::{DType, Tile};

/// What to compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    source: Source,
    architecture: Architecture,
    definitions: Vec<String>,
}

impl Request {
    /// A source for an architecture.
    pub fn new(source: Source, architecture: Architecture) -> Self {
        Self {
            source,
            architecture,
            definitions: Vec::new(),
        }
    }

    /// One of our programs, for elements of a type and tiles of a size: the same at run time and ahead of time, so that what is
    /// compiled ahead is found.
    pub fn program(
        program: crate::host::Program,
        dtype: DType,
        tile: Tile,
        architecture: Architecture,
    ) -> Self {
        Self::tiled(Source::program(program), dtype, tile, architecture)
    }

    /// The product by itself, likewise.
    pub fn product(dtype: DType, tile: Tile, architecture: Architecture) -> Self {
        Self::tiled(Source::product(), dtype, tile, architecture)
    }

    fn tiled(source: Source, dtype: DType, tile: Tile, architecture: Architecture) -> Self {
        Self::new(source, architecture)
            .define("IRIS_DTYPE", dtype)
            .define("IRIS_TILE_M", tile.m)
            .define("IRIS_TILE_N", tile.n)
            .define("IRIS_RASTER", super::fast::raster(tile))
    }

    /// The same for a portable kernel, whose waves share the tile.
    #[must_use]
    pub fn portable(self, tile: Tile) -> Self {
        // AMD's waves have twice the lanes, so that half as many make up a block of as many threads.
        let waves = super::fast::waves_n(tile);
        match (waves, self.architecture.vendor()) {
            (4, _) => self, // the source's default
            (_, Vendor::Nvidia) => self.define("IRIS_WAVES_N", waves),
            (_, Vendor::Amd) => self.define("IRIS_WAVES_N", waves / 2),
        }
    }

    /// The same with a macro defined.
    #[must_use]
    pub fn define(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.definitions.push(format!("{name}={value}"));
        self
    }

    /// The source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The macros, as `NAME=VALUE`.
    pub fn definitions(&self) -> &[String] {
        &self.definitions
    }
}

/// A code object, to be loaded as a module, and where it comes from.
#[derive(Debug)]
pub struct Image {
    output: Output,
    provenance: Provenance,
}

/// Where an image comes from.
#[derive(Debug)]
pub struct Provenance {
    /// The source's name.
    pub source: String,
    /// What it was compiled for.
    pub architecture: Architecture,
    /// By what, now or before.
    pub compiler: Identity,
    /// What the cache had to do with it.
    pub cache: CacheUse,
}

impl Image {
    /// The code object.
    pub fn bytes(&self) -> &[u8] {
        &self.output.bytes
    }

    /// What the compiler said when it made it: warnings. Mostly nothing.
    pub fn log(&self) -> &str {
        &self.output.log
    }

    /// What its kernels take of a device, by their names; nothing where the form of the code object is not known here.
    pub fn resources(&self) -> Option<Vec<Resources>> {
        resources::resources(self.provenance.architecture.vendor(), &self.output.bytes)
    }

    /// Where it comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// What the user should be told: that nothing is kept, and why. The first image of a cache that cannot be used has it, so that
    /// it can be passed on wherever it is and is still said once.
    pub fn notice(&self) -> Option<String> {
        match &self.provenance.cache {
            CacheUse::Failed { error, first: true } => Some(format!(
                "kernels are compiled anew each time, as their cache cannot be used: {error}"
            )),
            _ => None,
        }
    }
}

/// All compilers that could be used, in the order in which they are tried, each with its vendor and what it is called: it, or why it
/// will not do.
pub fn compilers() -> [(
    Vendor,
    &'static str,
    Result<&'static dyn Compiler, CompileError>,
); 4] {
    let of = |vendor: Vendor| order(vendor).map(|(_, name, find)| (vendor, name, find()));
    let ([a, b], [c, d]) = (of(Vendor::Nvidia), of(Vendor::Amd));
    [a, b, c, d]
}

/// The first compiler of this machine that knows an architecture.
///
/// # Errors
/// [`CompileError::NoCompiler`] where there is none, with what is wrong with each.
pub fn find(architecture: &Architecture) -> Result<&'static dyn Compiler, CompileError> {
    find_where(architecture, |compiler| check(compiler, architecture))
}

/// What to compile for, for a device of an architecture: see [`Compiler::target`].
///
/// # Errors
/// As [`find`].
pub fn target(device: &Architecture) -> Result<Architecture, CompileError> {
    let compiler = find_where(device, |compiler| check(compiler, &compiler.target(device)))?;
    Ok(compiler.target(device))
}

/// Compiles by the first compiler of this machine that knows the architecture, or takes from the cache what it made before.
///
/// The cache is [the environment's](Cache::of_environment).
///
/// # Errors
/// As [`find`]; and where the source does not compile.
pub fn compile(request: &Request) -> Result<Image, CompileError> {
    Cache::of_environment().compile(find(&request.architecture)?, request)
}

/// Finds a compiler.
type Find = fn() -> Result<&'static dyn Compiler, CompileError>;

/// A vendor's compilers in the order in which they are tried: what names another, what they are called, how they are found.
fn order(vendor: Vendor) -> [(&'static str, &'static str, Find); 2] {
    let mut order: [(_, _, Find); 2] = match vendor {
        Vendor::Nvidia => [
            ("IRIS_NVRTC_LIBRARY", "NVRTC", || Ok(Nvrtc::load()?)),
            ("IRIS_NVCC", "nvcc", || Ok(Program::nvcc()?)),
        ],
        Vendor::Amd => [
            ("IRIS_HIPRTC_LIBRARY", "HIPRTC", || Ok(Hiprtc::recent()?)),
            ("IRIS_CLANG", "clang", || Ok(Program::clang()?)),
        ],
    };
    if is_named(order[1].0) {
        order.reverse();
    }
    order
}

fn is_named(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|name| !name.is_empty())
}

fn find_where(
    architecture: &Architecture,
    usable: impl Fn(&dyn Compiler) -> Result<(), CompileError>,
) -> Result<&'static dyn Compiler, CompileError> {
    let mut reasons = Vec::new();
    for (variable, _, find) in order(architecture.vendor()) {
        let error = match find().and_then(|compiler| usable(compiler).map(|()| compiler)) {
            Ok(compiler) => return Ok(compiler),
            Err(error) => error,
        };
        let is_there = matches!(
            error,
            CompileError::Unsupported { .. } | CompileError::TooOld { .. }
        );
        reasons.push(error.to_string());
        // Whoever names one wants no other in its place, unless it is there and cannot know.
        if is_named(variable) && !is_there {
            break;
        }
    }
    Err(CompileError::NoCompiler {
        architecture: architecture.clone(),
        reasons,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of a portable kernel has 64 threads for each of `waves_n`, whatever a wave has of them.
    #[test]
    fn waves_that_share_a_wide_tile_have_as_many_threads_everywhere() {
        let program = crate::host::Program::TwoShot;
        let waves = |architecture: &str, n| {
            let tile = Tile { m: 64, n };
            let architecture = architecture.parse().unwrap();
            let request = Request::program(program, DType::F16, tile, architecture).portable(tile);
            let given = request.definitions.iter();
            given
                .filter_map(|given| given.strip_prefix("IRIS_WAVES_N="))
                .map(|waves| waves.parse().unwrap())
                .collect::<Vec<usize>>()
        };
        for n in [64, 128] {
            assert_eq!((waves("sm_80", n), waves("gfx942", n)), (vec![], vec![]));
        }
        let wide = super::super::fast::waves_n(Tile { m: 64, n: 256 });
        assert_eq!(waves("sm_90a", 256), [wide]);
        assert_eq!(waves("gfx90a", 256), [wide / 2]);
    }
}
