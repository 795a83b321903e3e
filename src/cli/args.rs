//! The command's arguments.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use iris::ops::{DType, Tile, Variant};

use crate::cli::compile::Compile;
use crate::cli::operation::Operation;
use crate::cli::size::Bytes;

/// Fused GEMM + collective operations on symmetric memory.
#[derive(Debug, Parser)]
#[command(name = "iris", version, about, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an operation on given or random matrices and verify its result against an f64 reference
    ///
    /// The whole matrices are given, and every size is that of the whole problem; they are split among the ranks as a
    /// tensor-parallel layer would: for matmul-all-reduce and matmul-reduce-scatter along K, for all-gather-matmul A by its
    /// rows (or columns) and B by its columns, for matmul-all-gather A by its rows.
    ///
    /// Under torchrun, mpirun or srun this process is one rank of theirs, and rank 0 prints and writes.
    ///
    /// Exit status: 0 where everything was verified, 2 where the arguments cannot be used, 1 for a failure.
    Run(Box<Run>),
    /// Measure an operation against the product and the collective one after the other
    ///
    /// On the host, measurements alternate: one fused call on all ranks, then the same work unfused, that is every rank's share
    /// of the product at once, then the collective over the same heap. Reported are medians, in microseconds: of the fused call,
    /// of the product and the collective alone, and of both in sequence; the speedup (in sequence over fused); and the fused call
    /// over the larger of product and collective, which it cannot beat.
    ///
    /// On GPUs the product is cuBLASLt's, the best of the first eight algorithms that it suggests, and the collective is NCCL's, on
    /// plain memory and on registered windows; "in sequence" is that product with the better of the two. All are measured in
    /// turn, in captured graphs, by device time, on operands that are in no cache; the slowest rank's time counts; results are
    /// checked before and after. NVLink multicast is off for all.
    Bench(Box<Bench>),
    /// Measure which way each operation is best carried out, and keep it in a table that operations then go by
    ///
    /// At each point the ways that make sense are measured: for matmul-all-reduce one_shot and two_shot, each in packets or
    /// not where rows are few; for all-gather-matmul each tile whole and streamed; for the others also the product as a kernel of its
    /// own, before; with each tile that the device's fast kernels have, where they have several, and that suits the sizes. The fastest
    /// is appended to the table as a line of JSON. Points that the table has already, of the same device, compiler, ranks and dtype, are
    /// left out, so that tuning that was stopped goes on where it was.
    ///
    /// Operations that are given neither a variant nor a tile go by the table in IRIS_TUNING, else by tuning.jsonl in the cache's
    /// directory (IRIS_CACHE_DIR, else XDG_CACHE_HOME/iris, else ~/.cache/iris), where --out leaves it unless it says otherwise; then by the
    /// table that iris comes with. A row holds for sizes near its own: N and K within a factor of 1.4, and up to M rows, the last one up to 4 M
    /// unless it says one_shot or packets.
    ///
    /// On GPUs times are the device's, of captured graphs, on operands that are in no cache; on the host they are the clock's. The
    /// slowest rank's counts. Results on GPUs are checked before and after.
    ///
    /// Exit status: 0 where all points are in the table, 2 where the arguments cannot be used, 1 for a failure.
    Tune(Box<Tune>),
    /// Compile kernels for GPUs ahead of time, by the compilers of this machine; no GPU is needed
    ///
    /// Of the operations, the kernels with tiles of 128x128, or of what --tile says: the portable ones, and for sm_90a, f16 and bf16 the
    /// faster ones, too. Operations that are given no tile take 128x128, but for f16 and bf16 on Hopper: there tiles of 64 or 128 rows and
    /// 64, 128 or 256 columns are chosen by the sizes. What was not compiled ahead is compiled when an operation is first created.
    ///
    /// For NVIDIA by NVRTC or nvcc, for AMD by HIPRTC of ROCm 6 or newer, amdclang++ or clang from version 22 on: the first that is there and knows
    /// the architecture. IRIS_NVRTC_LIBRARY, IRIS_NVCC, IRIS_HIPRTC_LIBRARY and IRIS_CLANG name others.
    ///
    /// Without --out they go into the cache, where operations find them at run time: IRIS_CACHE_DIR, else XDG_CACHE_HOME/iris, else
    /// ~/.cache/iris. A source of your own is found there by what `Source::user` is given: the name, which is FILE as it is
    /// written here, the text, and the macros in their order.
    ///
    /// Exit status: 0 where everything was compiled and kept, 2 where the arguments cannot be used, 1 for a failure.
    Compile(Box<Compile>),
    /// Tell what this machine has, and check that two ranks work on it
    Doctor(Doctor),
}

/// `iris run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The operation
    #[arg(value_name = "OP", value_enum)]
    pub(crate) operation: Operation,
    #[command(flatten)]
    pub(crate) inputs: Inputs,
    #[command(flatten)]
    pub(crate) sizes: Sizes,
    /// Seed of the random matrices, and of what calls before the last derive from theirs
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    #[command(flatten)]
    pub(crate) how: How,
    /// matmul-all-reduce only: auto, one_shot, two_shot, atomic or spinlock
    #[arg(long)]
    pub(crate) variant: Option<Variant>,
    /// How many calls to make; all but the last on inputs derived from the given ones (rows permuted, signs changed), each
    /// verified
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) calls: u64,
    /// Signal value of the first call, to start the counter anywhere, also just before it wraps
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i32::MAX as i64))]
    pub(crate) first_call: u32,
    /// Write the last call's whole result as tensor `c` of a safetensors file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print one JSON object and nothing else on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Matrices from files.
#[derive(Debug, Args)]
pub(crate) struct Inputs {
    /// A, of M x K, from a safetensors file
    #[arg(long, value_name = "FILE:TENSOR")]
    pub(crate) a: Option<Source>,
    /// B, of K x N, from a safetensors file
    #[arg(long, value_name = "FILE:TENSOR")]
    pub(crate) b: Option<Source>,
    /// A bias of N values, added to each row of C once
    #[arg(long, value_name = "FILE:TENSOR")]
    pub(crate) bias: Option<Source>,
    /// B is stored as N x K, as checkpoints store the weight of a linear layer
    #[arg(long)]
    pub(crate) transpose_b: bool,
}

/// Sizes of the whole problem, for random matrices.
#[derive(Debug, Args)]
pub(crate) struct Sizes {
    /// Rows of A and C [default: 512 without --a and --b]
    #[arg(long)]
    pub(crate) m: Option<NonZeroUsize>,
    /// Columns of B and C [default: 512 without --a and --b]
    #[arg(long)]
    pub(crate) n: Option<NonZeroUsize>,
    /// Columns of A, rows of B [default: 512 without --a and --b]
    #[arg(long)]
    pub(crate) k: Option<NonZeroUsize>,
}

impl Sizes {
    /// The sizes, `default` where none is given.
    pub(crate) fn or(&self, default: usize) -> [usize; 3] {
        [self.m, self.n, self.k].map(|size| size.map_or(default, NonZeroUsize::get))
    }
}

/// The ranks.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorldArguments {
    /// How many ranks [default: as many as the launcher started; without one 2, for a bench on GPUs as many as there are GPUs]
    #[arg(long)]
    pub(crate) ranks: Option<usize>,
    /// One operating system process a rank, else one thread a rank
    #[arg(long)]
    pub(crate) processes: bool,
    /// Where the ranks compute; auto takes GPUs where each rank has one of its own, or shares one by --share-devices, and the host elsewhere
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,
    /// Not for `bench` and `tune`, which refuse it: lets several ranks use one GPU, each a part of it, where there are fewer GPUs than ranks
    #[arg(long)]
    pub(crate) share_devices: bool,
    /// Bytes of each rank's symmetric heap, such as 64MiB [default: what the problem needs, and nothing else for a bench on GPUs]
    #[arg(long, value_name = "BYTES")]
    pub(crate) heap: Option<Bytes>,
}

/// What `run` and `bench` have in common besides.
#[derive(Debug, Clone, Args)]
pub(crate) struct How {
    /// f32, f16 or bf16; inputs of another are converted [default: the inputs', f32 for random ones]
    #[arg(long)]
    pub(crate) dtype: Option<DType>,
    /// all-gather-matmul only: whether A is split by its rows or its columns
    #[arg(long, value_enum)]
    pub(crate) gather: Option<Gather>,
    /// Tile of the product, such as 64x64 [default: chosen by the sizes]
    #[arg(long, value_name = "MxN", value_parser = parse_tile)]
    pub(crate) tile: Option<Tile>,
    /// Leave out tables of what was measured (see `iris tune`), and choose by the sizes alone
    #[arg(long)]
    pub(crate) no_tuning: bool,
    /// How long a wait for a peer may last before the call is given up as faulty
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_budget, allow_negative_numbers = true)]
    pub(crate) budget: Duration,
}

/// Sizes that are measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sweep {
    /// Rows of A and C; of several sizes each with each is measured [default: 1024, with --llama 1,2,4 and so on up to 16384]
    #[arg(long, value_name = "M,...", value_delimiter = ',')]
    pub(crate) m: Vec<NonZeroUsize>,
    /// Columns of B and C [default: 1024]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub(crate) n: Vec<NonZeroUsize>,
    /// Columns of A, rows of B [default: 1024]
    #[arg(long, value_name = "K,...", value_delimiter = ',')]
    pub(crate) k: Vec<NonZeroUsize>,
    /// A file of sizes to measure, three numbers a line: M N K
    #[arg(long, value_name = "FILE", conflicts_with_all = ["m", "n", "k"])]
    pub(crate) sweep: Option<PathBuf>,
    /// N and K of the projections of Llama 3 models that each operation serves: of attention's output and the MLP's last for
    /// matmul-all-reduce and matmul-reduce-scatter, of q, k, v and of gate and up for all-gather-matmul
    #[arg(long, value_enum, value_name = "MODEL,...", value_delimiter = ',', conflicts_with_all = ["n", "k", "sweep", "per_rank"])]
    pub(crate) llama: Vec<Llama>,
    /// Sizes are those of one rank's product: K is its depth where that is split, N its columns where A is gathered first, M its
    /// rows where C is
    #[arg(long)]
    pub(crate) per_rank: bool,
}

/// A Llama 3 model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Llama {
    /// 8 billion parameters
    #[value(name = "8b")]
    B8,
    /// 70 billion parameters
    #[value(name = "70b")]
    B70,
    /// 405 billion parameters
    #[value(name = "405b")]
    B405,
}

/// `iris bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The operations
    #[arg(value_name = "OP", value_enum, required_unless_present = "results")]
    pub(crate) operations: Vec<Operation>,
    #[command(flatten)]
    pub(crate) sizes: Sweep,
    /// Seed of the random matrices
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    #[command(flatten)]
    pub(crate) how: How,
    /// matmul-all-reduce only: one_shot, two_shot, atomic, spinlock or auto [default: on the host each of the four, on GPUs auto]
    #[arg(long, conflicts_with = "vendor_only")]
    pub(crate) variant: Option<Variant>,
    /// How often each thing is measured, in turn with the others
    #[arg(long, default_value = "30")]
    pub(crate) pairs: NonZeroUsize,
    /// On GPUs: measure the vendor's libraries alone, cuBLASLt and NCCL
    #[arg(long)]
    pub(crate) vendor_only: bool,
    /// On GPUs: let cuBLASLt's f32 products round their factors to TF32, which ours never do
    #[arg(long)]
    pub(crate) tf32: bool,
    /// Append what is measured to this file of JSON lines, and leave out what is there already
    #[arg(long, value_name = "FILE", conflicts_with = "results")]
    pub(crate) resume: Option<PathBuf>,
    /// Measure nothing, and take what was measured from this file of JSON lines
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "operations", "m", "n", "k", "sweep", "llama", "per_rank", "seed", "ranks", "processes", "backend", "share_devices", "heap", "dtype",
        "gather", "tile", "no_tuning", "budget", "variant", "pairs", "vendor_only", "tf32",
    ])]
    pub(crate) results: Option<PathBuf>,
    /// Draw the speedups over M, and the limit on them, as an SVG
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) chart: Option<PathBuf>,
    /// Say which ratios have moved by more than 5 % since this baseline; exit with 1 if any got worse
    #[arg(long, value_name = "BASELINE")]
    pub(crate) compare: Option<PathBuf>,
    /// Write the ratios as a baseline
    #[arg(long, value_name = "FILE")]
    pub(crate) write_baseline: Option<PathBuf>,
    /// Print one JSON object a line and nothing else on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `iris tune`.
#[derive(Debug, Args)]
pub(crate) struct Tune {
    /// The operations
    #[arg(value_name = "OP", value_enum, required = true)]
    pub(crate) operations: Vec<Operation>,
    #[command(flatten)]
    pub(crate) sizes: Sweep,
    /// Seed of the random matrices
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// f32, f16 or bf16
    #[arg(long, default_value_t = DType::F32)]
    pub(crate) dtype: DType,
    /// all-gather-matmul only: whether A is split by its rows or its columns
    #[arg(long, value_enum)]
    pub(crate) gather: Option<Gather>,
    /// How long a wait for a peer may last before the call is given up as faulty
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_budget, allow_negative_numbers = true)]
    pub(crate) budget: Duration,
    /// How often each way is measured
    #[arg(long, default_value = "9")]
    pub(crate) pairs: NonZeroUsize,
    /// The table [default: what IRIS_TUNING names, else tuning.jsonl in the cache's directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Measure points again that the table has already; the last row of a point counts
    #[arg(long)]
    pub(crate) again: bool,
    /// Print the rows that were measured as JSON, one a line, and nothing else on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `iris doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print one JSON object and nothing else on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where ranks compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// The best that is there
    Auto,
    /// Threads on this machine's processors
    Host,
    /// NVIDIA GPUs
    Cuda,
    /// AMD GPUs
    Hip,
}

/// How all-gather-matmul's A is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gather {
    /// Each rank has some of its rows
    Rows,
    /// Each rank has some of its columns
    Columns,
}

/// A tensor of a file: `FILE:TENSOR`, split at the last colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    pub(crate) tensor: String,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.tensor)
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((file, tensor)) if !file.is_empty() && !tensor.is_empty() => Ok(Self {
                file: file.into(),
                tensor: tensor.to_owned(),
            }),
            _ => Err("not of the form FILE:TENSOR, such as model.safetensors:weight".to_owned()),
        }
    }
}

pub(crate) fn parse_tile(text: &str) -> Result<Tile, String> {
    text.split_once(['x', 'X'])
        .and_then(|(m, n)| {
            Some(Tile {
                m: m.parse::<NonZeroUsize>().ok()?.get(),
                n: n.parse::<NonZeroUsize>().ok()?.get(),
            })
        })
        .ok_or_else(|| "not of the form MxN, such as 64x64".to_owned())
}

fn parse_budget(text: &str) -> Result<Duration, String> {
    const LONGEST: f64 = 86400.0 * 365.0;
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= LONGEST => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds above 0 and below a year".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(arguments.split_whitespace())
    }

    fn run(arguments: &str) -> Run {
        match parse(&format!("iris run {arguments}")).unwrap().command {
            Command::Run(run) => *run,
            _ => unreachable!(),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn operations_go_by_dashes_and_underscores() {
        for (name, operation) in [
            ("matmul-all-reduce", Operation::MatmulAllReduce),
            ("matmul_reduce_scatter", Operation::MatmulReduceScatter),
            ("all-gather-matmul", Operation::AllGatherMatmul),
            ("matmul_all_gather", Operation::MatmulAllGather),
        ] {
            assert_eq!(run(name).operation, operation);
        }
        assert!(parse("iris run matmul").is_err());
    }

    #[test]
    fn a_source_is_split_at_its_last_colon() {
        let source: Source = "dir:odd/x.safetensors:layer.0.weight".parse().unwrap();
        assert_eq!(source.file, PathBuf::from("dir:odd/x.safetensors"));
        assert_eq!(source.tensor, "layer.0.weight");
        assert_eq!(source.to_string(), "dir:odd/x.safetensors:layer.0.weight");
        for bad in ["x.safetensors", ":t", "x:", ""] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for bad in [
            "--first-call 0",
            "--first-call 2147483648",
            "--calls 0",
            "--m 0",
            "--budget 0",
            "--budget -1",
            "--budget nan",
            "--budget 1e99",
            "--tile 64",
            "--tile 0x4",
            "--dtype f64",
            "--backend rocm",
            "--gather tiles",
            "--heap 12cows",
            "--ranks -1",
        ] {
            let error = parse(&format!("iris run matmul-all-reduce {bad}")).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn values_in_range_are_taken() {
        let run = run(
            "matmul-all-reduce --first-call 2147483647 --budget 0.25 --tile 8x16 --dtype bf16 --heap 64MiB --ranks 3",
        );
        assert_eq!(run.first_call, i32::MAX as u32);
        assert_eq!(run.how.budget, Duration::from_millis(250));
        assert_eq!(run.how.tile, Some(Tile { m: 8, n: 16 }));
        assert_eq!(run.how.dtype, Some(DType::BF16));
        assert_eq!(run.world.heap, Some(Bytes(64 << 20)));
        assert_eq!(run.world.ranks, Some(3));
        assert_eq!(run.sizes.or(512), [512; 3]);
    }
}
