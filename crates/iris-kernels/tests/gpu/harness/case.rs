//! What is run: a program, its calls, and how they are interfered with.

use iris_kernels::DType;
use iris_kernels::host::Program;
use iris_sync::{Phase, Rule};
use iris_testkit::device::{Kernel, Numbers, budget};
use iris_testkit::random::{Stream, Tensor};
use std::time::Duration;

/// How a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Build {
    /// As it is used.
    Plain,
    /// With stalls.
    Stalls,
    /// With stalls, and rules that can be removed.
    Controls,
    /// The same, on the smallest ring that the rules allow: calls lap it soon.
    SmallRing,
}

impl Build {
    fn definitions(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Stalls => &["IRIS_STALLS"],
            Self::Controls => &["IRIS_STALLS", "IRIS_CONTROLS"],
            Self::SmallRing => &["IRIS_STALLS", "IRIS_CONTROLS", "IRIS_WORD_MAX=7"],
        }
    }
}

/// How operands lie in memory, and which variant of the operation is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Form {
    /// Columns of A and B lie side by side in place of rows.
    pub(crate) transposed: bool,
    /// Rows are not whole chunks apart, and nothing is aligned; outputs lie elsewhere on each rank, and in each of two calls.
    pub(crate) ragged: bool,
    pub(crate) bias: bool,
    /// The output of programs that store to peers is the workspace's, and copied.
    pub(crate) bounced: bool,
    /// There is no product: the matrix is there already. For the programs that can do that.
    pub(crate) given: bool,
}

impl Form {
    /// One of all forms.
    pub(crate) fn number(number: usize) -> Self {
        Self {
            transposed: number & 1 != 0,
            ragged: number & 2 != 0,
            bias: number & 4 == 0,
            bounced: number & 8 != 0,
            given: false,
        }
    }
}

/// A rank held up in one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stall {
    pub(crate) rank: usize,
    pub(crate) index: u64,
    pub(crate) phase: Phase,
    pub(crate) duration: Duration,
}

/// Which ranks are held up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stalls {
    None,
    One(Stall),
    /// In one of so many calls a rank, at a phase, both drawn by chance, for up to `longest`.
    Random {
        seed: u64,
        one_in: u64,
        longest: Duration,
    },
}

/// Calls of one program.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) program: Program,
    pub(crate) dtype: DType,
    /// The rows of each call, over and over.
    pub(crate) rows: Vec<usize>,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// The value of the call with index 0.
    pub(crate) first: i64,
    /// What all inputs are drawn by.
    pub(crate) seed: u64,
    pub(crate) form: Form,
    pub(crate) build: Build,
    /// The most blocks of each call, over and over; 0 for as many as fit.
    pub(crate) blocks: Vec<u32>,
    pub(crate) budget: Duration,
    pub(crate) removed: Vec<Rule>,
    pub(crate) stalls: Stalls,
    /// Elements that are checked of a call; 0 for all.
    pub(crate) samples: usize,
    /// Random numbers of many digits in place of integers: sums depend on the order.
    pub(crate) inexact: bool,
}

impl Case {
    pub(crate) fn new(program: Program, dtype: DType, rows: &[usize], n: usize, k: usize) -> Self {
        Self {
            program,
            dtype,
            rows: rows.to_vec(),
            n,
            k,
            first: 1,
            seed: 1,
            form: Form {
                bias: true,
                ..Form::default()
            },
            build: Build::Plain,
            blocks: vec![0],
            budget: budget(),
            removed: Vec::new(),
            stalls: Stalls::None,
            samples: 0,
            inexact: false,
        }
    }

    pub(crate) fn kernel(&self) -> Kernel {
        Kernel {
            source: self.program.kernel().0,
            dtype: self.dtype,
            definitions: self.build.definitions(),
        }
    }

    /// The rows of a call.
    pub(crate) fn m(&self, call: u64) -> usize {
        self.rows[(call % self.rows.len() as u64) as usize]
    }

    pub(crate) fn most_rows(&self) -> usize {
        self.rows.iter().copied().max().unwrap_or(1)
    }

    /// How the numbers of a call are drawn.
    pub(crate) fn numbers(&self, call: u64) -> Numbers {
        Numbers::exact(self.seed.wrapping_mul(1_000_003).wrapping_add(call), self.k)
    }

    /// The rules that are removed, as the kernel is told.
    pub(crate) fn removed(&self) -> u64 {
        self.removed
            .iter()
            .fold(0, |bits, rule| bits | 1 << (*rule as u64))
    }

    /// Who is held up in a call. The same on every rank.
    pub(crate) fn stall(&self, call: u64, world: usize) -> Option<Stall> {
        match self.stalls {
            Stalls::None => None,
            // The kernel looks at the index: a launch may be captured, and replayed.
            Stalls::One(stall) => Some(stall),
            Stalls::Random {
                seed,
                one_in,
                longest,
            } => {
                let mut random = Stream::new(seed, 0, call, Tensor::Plan);
                (random.below(one_in) == 0).then(|| Stall {
                    rank: random.below(world as u64) as usize,
                    index: call,
                    phase: Phase::ALL[random.below(Phase::ALL.len() as u64) as usize],
                    duration: Duration::from_nanos(random.below(longest.as_nanos() as u64)),
                })
            }
        }
    }
}
