//! What an operation is created with.

use crate::tuning::Tuning;
use iris_kernels::Tile;
use iris_kernels::host::GatherDim;
use iris_sync::{Phase, Probe, Rules};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How `matmul_all_reduce` brings the ranks' partial sums together. The other operations have one way each, `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Variant {
    /// What a [table](crate::tuning) says, or else `one_shot` for small results and `two_shot` for others; fixed by `m` when the
    /// operation is created.
    #[default]
    Auto,
    /// Every rank sends every tile to every rank, and each reduces all of them. Fewest steps; traffic and staging grow with
    /// `M N W`. The same bits on all ranks and in all runs.
    OneShot,
    /// Every tile is reduced by one rank, its owner, which stores the sum everywhere. The same bits on all ranks and in all
    /// runs.
    TwoShot,
    /// Every rank adds to f32 sums at every rank, atomically. The order of the additions, and so the last bits, differ from
    /// rank to rank and from run to run.
    Atomic,
    /// The same under a spin lock for each tile. The last bits differ, too.
    Spinlock,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Auto,
        Self::OneShot,
        Self::TwoShot,
        Self::Atomic,
        Self::Spinlock,
    ];
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::OneShot => "one_shot",
            Self::TwoShot => "two_shot",
            Self::Atomic => "atomic",
            Self::Spinlock => "spinlock",
        })
    }
}

/// A name that is no variant's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("variant `{0}` is not one of auto, one_shot, two_shot, atomic, spinlock")]
pub struct UnknownVariant(pub String);

impl FromStr for Variant {
    type Err = UnknownVariant;
    fn from_str(name: &str) -> Result<Self, UnknownVariant> {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        Self::ALL
            .into_iter()
            .find(|variant| variant.to_string() == plain)
            .ok_or_else(|| UnknownVariant(name.to_owned()))
    }
}

/// A point of a call where the blocks of one rank stand still.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// The rank.
    pub rank: usize,
    /// The call.
    pub index: u64,
    /// Where in the call.
    pub phase: Phase,
    /// For how long.
    pub time: Duration,
}

/// The parameters of an operation. All ranks create it with the same.
///
/// Sizes are those of the whole problem: what falls to a rank follows from them by [`shard`](crate::shard).
#[derive(Clone)]
pub struct FusedConfig {
    /// The most rows a call may have.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Depth of the product.
    pub k: usize,
    /// Whether calls bring a bias, one value a column of the rank's result, the same on all ranks.
    pub bias: bool,
    /// The variant, for `matmul_all_reduce`.
    pub variant: Variant,
    /// How A is split, for `all_gather_matmul`.
    pub gather: GatherDim,
    /// The tile in elements, rows by columns, or `None` for one that suits the sizes or that a table names; with a tile no table is asked. On the host any
    /// tile does. On GPUs it is a multiple of 32 x 128 up to 128 x 256, of f32 up to 128 x 128, on Hopper with f16 and bf16 also 64 or 128 rows by 64, 128,
    /// 192 or 256 columns; anything else is [`OpError::Tile`](crate::OpError::Tile), which names them.
    pub tile: Option<Tile>,
    /// The signal value of the first call: 1, or anything up to the word's largest value for tests at the wrap.
    pub first: i64,
    /// How long a call waits for a peer before it gives up.
    pub budget: Duration,
    /// Whether outputs may be plain buffers where peers store into them (`two_shot`, `matmul_all_gather`). It costs symmetric
    /// memory for another result, and one copy of the result a call that has a plain output.
    pub plain_output: bool,
    /// Whether devices run the portable kernels also where there are faster ones for them: the reference that those are tested
    /// against.
    pub portable: bool,
    /// Whether `one_shot` and `auto` calls of few rows go in packets on devices: tiles, or rows of A, that carry their own signals. They do
    /// unless this says no.
    pub packets: bool,
    /// Whether [tables](crate::tuning) of what was measured are asked, where the variant is `auto` and no tile is given.
    pub tuned: bool,
    /// The table to ask first, in place of the user's file. Rank 0's counts for all ranks.
    pub tuning: Option<Arc<Tuning>>,
    /// The rules kept; for negative controls in tests.
    #[doc(hidden)]
    pub rules: Rules,
    /// Where a kernel on a device stands still; for tests.
    #[doc(hidden)]
    pub stall: Option<Stall>,
    /// Who looks into this rank's calls on the host; for stalls in tests.
    #[doc(hidden)]
    pub probe: Option<Arc<dyn Probe>>,
}

impl FusedConfig {
    /// For up to `m` rows, `n` columns and depth `k`, and otherwise the defaults: no bias, [`Variant::Auto`], A split by rows,
    /// a tile that suits, values from 1, a budget of 30 seconds, symmetric outputs, tables of what was measured.
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        Self {
            m,
            n,
            k,
            bias: false,
            variant: Variant::Auto,
            gather: GatherDim::Rows,
            tile: None,
            first: 1,
            budget: Duration::from_secs(30),
            plain_output: false,
            portable: false,
            packets: true,
            tuned: true,
            tuning: None,
            rules: Rules::ALL,
            stall: None,
            probe: None,
        }
    }

    /// Sets [`FusedConfig::bias`].
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Sets [`FusedConfig::variant`].
    #[must_use]
    pub fn variant(mut self, variant: Variant) -> Self {
        self.variant = variant;
        self
    }

    /// Sets [`FusedConfig::gather`].
    #[must_use]
    pub fn gather(mut self, gather: GatherDim) -> Self {
        self.gather = gather;
        self
    }

    /// Sets [`FusedConfig::tile`].
    #[must_use]
    pub fn tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// Sets [`FusedConfig::first`].
    #[must_use]
    pub fn first(mut self, first: i64) -> Self {
        self.first = first;
        self
    }

    /// Sets [`FusedConfig::budget`].
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Sets [`FusedConfig::plain_output`].
    #[must_use]
    pub fn plain_output(mut self, plain_output: bool) -> Self {
        self.plain_output = plain_output;
        self
    }

    /// Sets [`FusedConfig::portable`].
    #[must_use]
    pub fn portable(mut self, portable: bool) -> Self {
        self.portable = portable;
        self
    }

    /// Sets [`FusedConfig::packets`].
    #[must_use]
    pub fn packets(mut self, packets: bool) -> Self {
        self.packets = packets;
        self
    }

    /// Sets [`FusedConfig::tuned`].
    #[must_use]
    pub fn tuned(mut self, tuned: bool) -> Self {
        self.tuned = tuned;
        self
    }

    /// Sets [`FusedConfig::tuning`].
    #[must_use]
    pub fn tuning(mut self, tuning: Arc<Tuning>) -> Self {
        self.tuning = Some(tuning);
        self
    }

    /// Has `probe` look into this rank's calls. For tests: a probe that takes time stalls the rank.
    #[doc(hidden)]
    #[must_use]
    pub fn probe(mut self, probe: Arc<dyn Probe>) -> Self {
        self.probe = Some(probe);
        self
    }

    /// Has one rank's kernel stand still once. For tests, on devices.
    #[doc(hidden)]
    #[must_use]
    pub fn stall(mut self, stall: Stall) -> Self {
        self.stall = Some(stall);
        self
    }

    /// Sets the rules kept. For negative controls.
    #[doc(hidden)]
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }
}

impl fmt::Debug for FusedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FusedConfig")
            .field("m", &self.m)
            .field("n", &self.n)
            .field("k", &self.k)
            .field("bias", &self.bias)
            .field("variant", &self.variant)
            .field("gather", &self.gather)
            .field("tile", &self.tile)
            .field("first", &self.first)
            .field("budget", &self.budget)
            .field("plain_output", &self.plain_output)
            .field("portable", &self.portable)
            .field("packets", &self.packets)
            .field("tuned", &self.tuned)
            .finish_non_exhaustive()
    }
}
