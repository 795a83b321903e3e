//! `iris compile`: kernels for GPUs ahead of time.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use comfy_table::{CellAlignment, Table};
use iris::kernels::device::compile::{
    Architecture, Cache, CacheUse, Compiler, Image, Request, Source, find,
};
use iris::kernels::device::fast::{Crews, is_fast};
use iris::kernels::device::{PRODUCT, TILE};
use iris::kernels::host::Program;
use iris::ops::device::Tiles;
use iris::ops::{DType, Tile};
use serde::Serialize;

use crate::cli::args::parse_tile;
use crate::cli::error::{Unusable, say, whole};
use crate::cli::machine;
use crate::cli::operation::Operation;
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::size::Bytes;
use crate::cli::tables::Origin;

/// `iris compile`.
#[derive(Debug, Args)]
pub(crate) struct Compile {
    /// What to compile for, such as gfx90a, gfx942, gfx950, sm_80, sm_90a; may be given several times. A device of sm_90 takes what
    /// is compiled for sm_90a
    #[arg(long = "arch", value_name = "ARCH", required = true)]
    architectures: Vec<Architecture>,
    /// f32, f16 or bf16; may be given several times [default: all three; with --source none]
    #[arg(long = "dtype", value_name = "DTYPE")]
    dtypes: Vec<DType>,
    /// The operations; may be given several times [default: all]
    #[arg(long = "op", value_name = "OP", value_enum, conflicts_with = "source")]
    operations: Vec<Operation>,
    /// Tiles of our programs, such as 64x128; may be given several times. f32 has none of other than 128 columns, and is left out of others
    /// [default: 128x128]
    #[arg(long = "tile", value_name = "MxN", value_parser = parse_tile, conflicts_with = "source")]
    tiles: Vec<Tile>,
    /// A source of your own, which includes our headers, such as "iris/heap.h", and others from beside it
    #[arg(long, value_name = "FILE")]
    source: Option<PathBuf>,
    /// A macro for --source; may be given several times
    #[arg(long = "define", value_name = "NAME[=VALUE]", requires = "source")]
    definitions: Vec<String>,
    /// Write into this directory, a file for each kernel, dtype and architecture: two_shot.bf16.sm_80.cubin, one_shot.f32.gfx942.hsaco,
    /// with tiles other than 128x128 one_shot-64x128.f16.gfx942.hsaco, and those of Hopper one_shot-crews.bf16.sm_90a.cubin. The cache is
    /// left alone
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object and nothing else on stdout
    #[arg(long)]
    json: bool,
}

/// One thing to compile.
struct Job {
    /// The source's name without its ending, and what tells it from others of that source.
    kernel: String,
    dtype: Option<DType>,
    request: Request,
    compiler: &'static dyn Compiler,
}

/// What came of one.
#[derive(Debug, Serialize)]
struct Compiled {
    kernel: String,
    dtype: Option<String>,
    arch: String,
    compiler: String,
    /// Bytes of the code object.
    bytes: usize,
    /// Of a thread, of the kernel in it that takes most; none where the code does not tell.
    registers: Option<u32>,
    /// Bytes of memory of a thread; 0 where nothing is spilled.
    scratch_bytes: Option<u32>,
    /// Where it is.
    file: PathBuf,
    /// Whether it came from the cache.
    cached: bool,
    /// The compiler's warnings, and what was wrong with the file that was there.
    notes: Vec<String>,
    ms: f64,
}

#[derive(Debug, Serialize)]
struct Failed {
    kernel: String,
    dtype: Option<String>,
    arch: String,
    error: String,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    compiled: Vec<Compiled>,
    failed: Vec<Failed>,
}

/// Compiles, prints, and returns the exit status: 0 where everything was compiled and kept.
pub(crate) fn compile(arguments: &Compile) -> anyhow::Result<u8> {
    check_tiles(arguments)?;
    let place = Place::new(arguments.out.as_deref())?;
    let jobs = jobs(arguments)?;
    let mut report = Report {
        ok: true,
        compiled: Vec::new(),
        failed: Vec::new(),
    };
    for (job, result) in jobs.iter().zip(run(&jobs, &place)) {
        match result {
            Ok(compiled) => {
                for note in &compiled.notes {
                    say(note);
                }
                report.compiled.push(compiled);
            }
            Err(error) => {
                report.ok = false;
                let error = whole(&error);
                say(&error);
                report.failed.push(Failed {
                    kernel: job.kernel.clone(),
                    dtype: job.dtype.map(|dtype| dtype.to_string()),
                    arch: job.request.architecture().to_string(),
                    error,
                });
            }
        }
    }
    if arguments.json {
        output::json(&report)?;
    } else if !report.compiled.is_empty() {
        output::text(&table(&report.compiled, &place))?;
    }
    Ok(if report.ok { 0 } else { 1 })
}

/// Whether there are kernels of each tile for each architecture, of some of the types at least: a tile may be asked for with types that do not
/// have it.
fn check_tiles(arguments: &Compile) -> Result<(), Unusable> {
    for architecture in &arguments.architectures {
        let of = |dtype| Tiles::of(architecture.name(), dtype);
        for &tile in &arguments.tiles {
            let dtypes = dtypes(arguments);
            if dtypes.iter().any(|&dtype| of(dtype).has(tile)) {
                continue;
            }
            let there = dtypes
                .iter()
                .map(|&dtype| format!("of {dtype} those {}", of(dtype)));
            return Err(Unusable::Tile {
                tile,
                architecture: architecture.to_string(),
                there: there.collect::<Vec<_>>().join("; "),
            });
        }
    }
    Ok(())
}

/// The types of the operations' kernels.
fn dtypes(arguments: &Compile) -> Vec<DType> {
    match arguments.dtypes.is_empty() {
        true => DType::ALL.to_vec(),
        false => distinct(&arguments.dtypes).copied().collect(),
    }
}

/// What there is to compile, and by what: found before anything is compiled.
fn jobs(arguments: &Compile) -> anyhow::Result<Vec<Job>> {
    let compilers = distinct(&arguments.architectures)
        .map(|architecture| Ok((architecture, find(architecture)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut jobs = Vec::new();
    for &(architecture, compiler) in &compilers {
        for (kernel, dtype, request) in requests(arguments, architecture)? {
            jobs.push(Job {
                kernel,
                dtype,
                request,
                compiler,
            });
        }
    }
    Ok(jobs)
}

fn requests(
    arguments: &Compile,
    architecture: &Architecture,
) -> anyhow::Result<Vec<(String, Option<DType>, Request)>> {
    let Some(file) = &arguments.source else {
        let dtypes = dtypes(arguments);
        let tiles: Vec<Tile> = distinct(&arguments.tiles).copied().collect();
        let tiles = if tiles.is_empty() { vec![TILE] } else { tiles };
        let mut requests = Vec::new();
        let kinds = || {
            dtypes
                .iter()
                .flat_map(|&dtype| tiles.iter().map(move |&tile| (dtype, tile)))
                .filter(|&(dtype, tile)| Tiles::of(architecture.name(), dtype).has(tile))
        };
        for program in programs(&arguments.operations) {
            let of = |(dtype, tile)| of_program(program, dtype, tile, architecture);
            requests.extend(kinds().flat_map(of));
        }
        if may_be_unfused(&arguments.operations) {
            let of = |(dtype, tile)| of_product(dtype, tile, architecture);
            requests.extend(kinds().flat_map(of));
        }
        return Ok(requests);
    };
    let source = Source::read(file).map_err(|source| Unusable::Unreadable {
        file: file.clone(),
        source,
    })?;
    let mut request = Request::new(source, architecture.clone());
    for given in &arguments.definitions {
        let (name, value) = given.split_once('=').unwrap_or((given, "1"));
        let begins = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
        if !begins || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
            let given = given.clone();
            return Err(Unusable::Define { given }.into());
        }
        request = request.define(name, value);
    }
    if arguments.dtypes.is_empty() {
        return Ok(vec![(stem(file), None, request)]);
    }
    Ok(distinct(&arguments.dtypes)
        .map(|&dtype| {
            let request = request.clone().define("IRIS_DTYPE", dtype);
            (stem(file), Some(dtype), request)
        })
        .collect())
}

/// What an operation may run with tiles of a size.
fn of_program(
    program: Program,
    dtype: DType,
    tile: Tile,
    architecture: &Architecture,
) -> Vec<(String, Option<DType>, Request)> {
    let accumulates = matches!(program, Program::Atomic | Program::Spinlock);
    let crews = Crews::of_program(program, tile).filter(|_| !accumulates);
    let request = Request::program(program, dtype, tile, architecture.clone());
    of_kernel(
        program.kernel().0,
        Some(program),
        (dtype, tile),
        crews,
        &request,
    )
}

/// The same of the product that goes before operations that are not fused.
fn of_product(
    dtype: DType,
    tile: Tile,
    architecture: &Architecture,
) -> Vec<(String, Option<DType>, Request)> {
    let request = Request::product(dtype, tile, architecture.clone());
    of_kernel(PRODUCT.0, None, (dtype, tile), Crews::of(tile), &request)
}

/// The portable kernel of a source and, where there are some, those for Hopper: which of them a call takes is found out from its sizes.
fn of_kernel(
    source: &str,
    program: Option<Program>,
    (dtype, tile): (DType, Tile),
    crews: Option<Crews>,
    request: &Request,
) -> Vec<(String, Option<DType>, Request)> {
    let mut name = stem(Path::new(source));
    if tile != TILE {
        name += &format!("-{}x{}", tile.m, tile.n);
    }
    let crews = crews.filter(|_| is_fast(request.architecture().name(), dtype));
    let pairs = crews.filter(|_| Crews::may_pair(program, tile, tile.m));
    let of_crews = |kind: &str, crews: Crews| {
        let request = crews.request(request.clone());
        (format!("{name}-{kind}"), Some(dtype), request)
    };
    let crews = crews.map(|crews| of_crews("crews", crews));
    let pairs = pairs.map(|crews| of_crews("pairs", crews.paired()));
    let portable = (name.clone(), Some(dtype), request.clone().portable(tile));
    [portable].into_iter().chain(crews).chain(pairs).collect()
}

/// Whether a product may go before one of these operations, or of all: what gathers first is always fused.
fn may_be_unfused(operations: &[Operation]) -> bool {
    let others = |it: &Operation| *it != Operation::AllGatherMatmul;
    operations.is_empty() || operations.iter().any(others)
}

/// The programs of operations, or all: of those that share a source, one.
fn programs(operations: &[Operation]) -> Vec<Program> {
    let mut sources = HashSet::new();
    Program::ALL
        .into_iter()
        .filter(|program| operations.is_empty() || operations.contains(&operation(*program)))
        .filter(|program| sources.insert(program.kernel().0))
        .collect()
}

fn operation(program: Program) -> Operation {
    match program {
        Program::OneShot
        | Program::OneShotPackets
        | Program::TwoShot
        | Program::TwoShotPackets
        | Program::Atomic
        | Program::Spinlock => Operation::MatmulAllReduce,
        Program::ReduceScatter | Program::ReduceScatterPackets => Operation::MatmulReduceScatter,
        Program::AllGatherMatmul(_) | Program::AllGatherMatmulPackets => Operation::AllGatherMatmul,
        Program::MatmulAllGather => Operation::MatmulAllGather,
    }
}

/// Each value once, in their order.
fn distinct<T: PartialEq>(values: &[T]) -> impl Iterator<Item = &T> {
    values
        .iter()
        .enumerate()
        .filter(|(at, value)| !values[..*at].contains(value))
        .map(|(_, value)| value)
}

fn stem(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or(file.as_os_str());
    stem.display().to_string()
}

/// Does the jobs, as many at a time as there are processors. The results are in the order of the jobs.
fn run(jobs: &[Job], place: &Place) -> Vec<anyhow::Result<Compiled>> {
    let next = AtomicUsize::new(0);
    let progress = Mutex::new(Progress::alone("kernels", jobs.len() as u64));
    let work = || {
        let mut results = Vec::new();
        while let Some((at, job)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(at).map(|job| (at, job))
        } {
            results.push((at, place.compile(job)));
            if let Ok(mut progress) = progress.lock() {
                progress.step();
            }
        }
        results
    };
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..machine::cores().min(jobs.len()))
            .map(|_| scope.spawn(work))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Where images go.
enum Place {
    Cache(&'static Cache),
    Directory(PathBuf),
}

impl Place {
    /// A directory, which is made where it is missing, or the cache.
    fn new(out: Option<&Path>) -> Result<Self, Unusable> {
        let Some(out) = out else {
            let cache = Cache::of_environment();
            return match cache.is_off() {
                true => Err(Unusable::NoCache),
                false => Ok(Self::Cache(cache)),
            };
        };
        let fault = |detail: String| Unusable::Out {
            origin: Origin::Out,
            file: out.to_owned(),
            detail,
        };
        fs::create_dir_all(out).map_err(|error| fault(error.to_string()))?;
        rustix::fs::access(
            out,
            rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
        )
        .map_err(|error| fault(std::io::Error::from(error).to_string()))?;
        Ok(Self::Directory(out.to_owned()))
    }

    fn compile(&self, job: &Job) -> anyhow::Result<Compiled> {
        let begun = Instant::now();
        let mut notes = Vec::new();
        let (image, file, cached) = match self {
            Self::Directory(directory) => {
                let image = Cache::off().compile(job.compiler, &job.request)?;
                let file = directory.join(job.file_name());
                write(directory, &file, image.bytes())
                    .with_context(|| format!("--out {}", file.display()))?;
                (image, file, false)
            }
            Self::Cache(cache) => {
                let image = cache.compile(job.compiler, &job.request)?;
                let (file, cached) = kept(&image, &mut notes)?;
                (image, file, cached)
            }
        };
        if !image.log().is_empty() {
            notes.push(image.log().to_owned());
        }
        let resources = image.resources();
        let most = |of: fn(&_) -> u32| resources.as_ref()?.iter().map(of).max();
        Ok(Compiled {
            kernel: job.kernel.clone(),
            dtype: job.dtype.map(|dtype| dtype.to_string()),
            arch: job.request.architecture().to_string(),
            compiler: format!(
                "{} {}",
                job.compiler.identity().kind,
                job.compiler.identity().version
            ),
            bytes: image.bytes().len(),
            registers: most(|kernel: &iris::kernels::device::compile::Resources| kernel.registers),
            scratch_bytes: most(|kernel| kernel.scratch),
            file,
            cached,
            notes,
            ms: begun.elapsed().as_secs_f64() * 1e3,
        })
    }
}

/// The file of the cache that an image is in, and whether it was there before. Where it is not kept, nothing was achieved.
fn kept(image: &Image, notes: &mut Vec<String>) -> anyhow::Result<(PathBuf, bool)> {
    let provenance = image.provenance();
    match &provenance.cache {
        CacheUse::Hit(path) => Ok((path.clone(), true)),
        CacheUse::Stored(path) => Ok((path.clone(), false)),
        CacheUse::Replaced { path, damage } => {
            notes.push(format!("{}: {damage}; replaced", path.display()));
            Ok((path.clone(), false))
        }
        CacheUse::Failed { error, .. } => Err(anyhow::Error::from(error.clone()))
            .with_context(|| format!("{} is not kept", provenance.source)),
        CacheUse::Bypassed { include } => anyhow::bail!(
            "{} is not kept in the cache, since it includes {include}, which is neither ours nor beside it; give --out",
            provenance.source
        ),
        other => anyhow::bail!("{} is not kept: {other:?}", provenance.source),
    }
}

impl Job {
    fn file_name(&self) -> String {
        let architecture = self.request.architecture();
        let dtype = self
            .dtype
            .map(|dtype| format!("{dtype}."))
            .unwrap_or_default();
        format!(
            "{}.{dtype}{architecture}.{}",
            self.kernel,
            architecture.extension()
        )
    }
}

/// Writes a file whole or not at all.
fn write(directory: &Path, file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut temporary = tempfile::Builder::new()
        .prefix(".iris-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    temporary.write_all(bytes)?;
    temporary.persist(file).map_err(|failed| failed.error)?;
    Ok(())
}

fn table(compiled: &[Compiled], place: &Place) -> String {
    let mut table = Table::new();
    table.set_header([
        "kernel",
        "dtype",
        "arch",
        "compiler",
        "size",
        "registers",
        "scratch",
        "ms",
        "from",
    ]);
    let number = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
    for it in compiled {
        table.add_row([
            it.kernel.clone(),
            it.dtype.clone().unwrap_or("-".to_owned()),
            it.arch.clone(),
            it.compiler.clone(),
            Bytes(it.bytes).to_string(),
            number(it.registers),
            number(it.scratch_bytes),
            format!("{:.0}", it.ms),
            if it.cached { "cache" } else { "compiler" }.to_owned(),
        ]);
    }
    for column in 4..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let place = match place {
        Place::Directory(directory) => directory.display().to_string(),
        Place::Cache(cache) => {
            let directory = cache.directory().unwrap_or(Path::new("the cache"));
            format!("{} (the cache)", directory.display())
        }
    };
    format!("{table}\n{} in {place}", compiled.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_compiled_once() {
        let names = |operations: &[Operation]| {
            programs(operations)
                .into_iter()
                .map(|program| program.kernel().0)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(&[]),
            [
                "one_shot.hip",
                "one_shot_packets.hip",
                "two_shot.hip",
                "two_shot_packets.hip",
                "accumulate.hip",
                "matmul_reduce_scatter.hip",
                "matmul_reduce_scatter_packets.hip",
                "all_gather_matmul.hip",
                "all_gather_matmul_packets.hip",
                "matmul_all_gather.hip",
            ]
        );
        assert_eq!(
            names(&[Operation::AllGatherMatmul]),
            ["all_gather_matmul.hip", "all_gather_matmul_packets.hip"]
        );
        let unfused = may_be_unfused;
        assert!(unfused(&[]) && unfused(&[Operation::MatmulAllGather]));
        assert!(unfused(&[
            Operation::AllGatherMatmul,
            Operation::MatmulAllReduce
        ]));
        assert!(!unfused(&[Operation::AllGatherMatmul; 2]));
        assert_eq!(distinct(&[3, 1, 3, 1, 2]).collect::<Vec<_>>(), [&3, &1, &2]);
    }
}
