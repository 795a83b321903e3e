//! Two ranks under loom: words in vectors of loom's atomics, and data in loom's cells, so that a read of data that is not
//! ordered after its write is reported as the data race it is.

use iris_sync::primitive::{self, AtomicU64};
use iris_sync::{
    Announcement, Barrier, Call, Fault, Layout, Memory, Pause, Port, Rule, Rules, Signal, Step,
    Waiting, Word,
};
use loom::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a model is explored with: how often a rank that could go on may be interrupted. `None` is everything.
pub(crate) type Preemptions = Option<usize>;

/// The ranks of a model.
pub(crate) const RANKS: usize = 2;

/// How a rank of a model waits. Never for a time: a wait that does not end runs into loom's limit of branches.
#[derive(Clone, Copy)]
pub(crate) enum Waits {
    /// For as long as it takes, looking at nothing but the awaited word.
    Patiently,
    /// For as long as it takes, looking at the abort words after each poll.
    Looking,
    /// For so many polls after the first, looking at the abort words after each.
    Polls(u32),
}

impl Waiting for Waits {
    type Pause = Self;
    fn begin(&self) -> Self {
        *self
    }
    fn budget_ms(&self) -> u64 {
        0
    }
}

impl Pause for Waits {
    fn pause(&mut self) -> Step {
        match self {
            Self::Polls(0) => return Step::Over,
            Self::Polls(left) => *left -= 1,
            Self::Patiently | Self::Looking => {}
        }
        primitive::yield_now();
        match self {
            Self::Patiently => Step::Again,
            Self::Looking | Self::Polls(_) => Step::Look,
        }
    }
}

/// The words of all ranks. Shared by an `Arc` of `std`: one of loom's cannot be dropped where a model has failed.
pub(crate) struct Words<W: Word> {
    layout: Layout,
    words: Vec<Vec<W::Atomic>>,
    cells: Vec<Vec<AtomicU64>>,
}

/// One rank's view of the words.
#[derive(Clone)]
pub(crate) struct View<W: Word> {
    rank: usize,
    words: Arc<Words<W>>,
}

impl<W: Word> View<W> {
    /// Zeroed words for two ranks, and each rank's view of them.
    pub(crate) fn of_all(layout: Layout) -> [Self; RANKS] {
        let words = Arc::new(Words {
            layout,
            words: per_rank(layout.words(), || W::atomic(0)),
            cells: per_rank(layout.cells(), || AtomicU64::new(0)),
        });
        std::array::from_fn(|rank| Self {
            rank,
            words: words.clone(),
        })
    }
}

fn per_rank<T>(count: usize, make: impl Fn() -> T) -> Vec<Vec<T>> {
    (0..RANKS)
        .map(|_| (0..count).map(|_| make()).collect())
        .collect()
}

impl<W: Word> Memory<W> for View<W> {
    fn rank(&self) -> usize {
        self.rank
    }
    fn layout(&self) -> Layout {
        self.words.layout
    }
    fn word(&self, rank: usize, place: usize) -> &W::Atomic {
        &self.words.words[rank][place]
    }
    fn cell(&self, rank: usize, place: usize) -> &AtomicU64 {
        &self.words.cells[rank][place]
    }
}

/// Plain memory that ranks share: a race on it ends the model.
pub(crate) struct Data(Vec<UnsafeCell<u64>>);

// SAFETY: loom runs one of the model's threads at a time, and its cells panic on accesses that are not ordered.
unsafe impl Sync for Data {}
// SAFETY: as above.
unsafe impl Send for Data {}

impl Data {
    /// `len` zeros.
    pub(crate) fn new(len: usize) -> Arc<Self> {
        Arc::new(Self((0..len).map(|_| UnsafeCell::new(0)).collect()))
    }

    pub(crate) fn read(&self, at: usize) -> u64 {
        // SAFETY: the pointer is the cell's; that no write is concurrent is what loom checks.
        self.0[at].with(|value| unsafe { *value })
    }

    pub(crate) fn write(&self, at: usize, new: u64) {
        // SAFETY: the pointer is the cell's; that no access is concurrent is what loom checks.
        self.0[at].with_mut(|value| unsafe { *value = new });
    }
}

/// The words of a port of a model.
pub(crate) type ModelPort<W> = Port<'static, W, View<W>, Waits>;
/// A call of a model.
pub(crate) type ModelCall<'p, W> = Call<'p, W, View<W>, Waits>;

/// One rank of a model: its port, a barrier, the staging of both ranks in two banks, and both ranks' outputs.
pub(crate) struct Rank<W: Word> {
    pub(crate) port: ModelPort<W>,
    pub(crate) barrier: Barrier<'static, W, View<W>, Waits>,
    staging: Arc<Data>,
    output: Arc<Data>,
}

impl<W: Word> Rank<W> {
    pub(crate) fn rank(&self) -> usize {
        self.port.memory.rank()
    }

    pub(crate) fn peer(&self) -> usize {
        1 - self.rank()
    }

    /// The next call, its gate passed. `writes` is as for [`Call::gate`]: this rank has a tile for its peer in this call.
    pub(crate) fn enter(&self, writes: bool) -> ModelCall<'_, W> {
        self.try_enter(writes).unwrap()
    }

    /// As [`Rank::enter`], in models where ranks fault.
    pub(crate) fn try_enter(&self, writes: bool) -> Result<ModelCall<'_, W>, Fault> {
        let call = self.port.begin(Announcement::default())?;
        call.gate(writes, |_| usize::from(writes))?;
        Ok(call)
    }

    /// Stages a tile of the call for the peer, and says so.
    pub(crate) fn hand_over(&self, call: &ModelCall<'_, W>) {
        let at = call.bank() * RANKS + self.peer();
        self.staging.write(at, stamp(call.index()));
        call.push_ready(self.peer(), 0);
    }

    /// Waits for the tile the peer staged for this rank in the call, and reads it.
    pub(crate) fn take_over(&self, call: &ModelCall<'_, W>) -> Result<(), Fault> {
        call.await_ready(self.peer(), 0)?;
        let seen = self.staging.read(call.bank() * RANKS + self.rank());
        assert_eq!(seen, stamp(call.index()), "{STALE}");
        Ok(())
    }

    /// Stores this call's result into the peer's output.
    pub(crate) fn store(&self, call: &ModelCall<'_, W>) {
        call.meet().unwrap();
        self.output.write(self.peer(), stamp(call.index()));
    }

    /// Another port of this rank, such as its host has.
    pub(crate) fn host(&self) -> ModelPort<W> {
        Port::new("host", self.port.memory.clone(), Waits::Patiently)
    }

    /// What a user finds in this rank's output.
    pub(crate) fn output(&self) -> u64 {
        self.output.read(self.rank())
    }
}

/// The data of call `index`: never 0, and different for each.
pub(crate) fn stamp(index: u64) -> u64 {
    100 + index
}

/// Part of the message of a model that read data of another call.
pub(crate) const STALE: &str = "data of another call";

/// How a model fails whose rule is removed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// A wait does not end.
    Deadlock,
    /// Two accesses to data are not ordered.
    Race,
    /// Accesses to data are not ordered, or their order is the wrong one: which of the two loom meets first is its affair.
    WrongData,
    /// A call that ought to work does not, with this message.
    Message(&'static str),
}

impl Failure {
    fn explains(self, message: &str) -> bool {
        let race = message.contains("Causality violation: Concurrent");
        match self {
            Self::Deadlock => message.contains("Model exceeded maximum number of branches"),
            Self::Race => race,
            Self::WrongData => race || message.contains(STALE),
            Self::Message(part) => message.contains(part),
        }
    }
}

/// The protocol without `rule`.
pub(crate) fn without(rule: Rule) -> Rules {
    // SAFETY: all data of these models lies in loom's cells, which end the model where accesses to it are not ordered.
    unsafe { Rules::without(&[rule]) }
}

/// Both ranks of a world that begins at value `first`, under `rules`.
pub(crate) fn world<W: Word>(first: i64, rules: Rules, waits: [Waits; RANKS]) -> [Rank<W>; RANKS] {
    let first = Signal::new(first).expect("a value of the ring");
    let staging = Data::new(2 * RANKS);
    let output = Data::new(RANKS);
    let [zero, one] = View::of_all(Layout::new(RANKS, 1, 1));
    let [barrier_zero, barrier_one] = View::of_all(Barrier::<W, View<W>, Waits>::layout(RANKS));
    [(zero, barrier_zero, waits[0]), (one, barrier_one, waits[1])].map(|(view, barrier, waits)| {
        let mut port = Port::new("model", view, waits);
        port.first = first;
        port.rules = rules;
        Rank {
            port,
            barrier: Barrier::starting_at(barrier, Waits::Patiently, first, Rules::ALL),
            staging: staging.clone(),
            output: output.clone(),
        }
    })
}

/// Runs `one` and `other` at once, each with one of `ends`.
pub(crate) fn both<T: 'static>(
    ends: [T; RANKS],
    one: impl FnOnce(T),
    other: impl FnOnce(T) + 'static,
) {
    let [first, second] = ends;
    let thread = loom::thread::spawn(move || other(second));
    one(first);
    thread.join().unwrap();
}

/// A model in which both ranks run `body` under `rules`, beginning at value `first`.
pub(crate) fn ranks<W: Word>(
    first: i64,
    rules: Rules,
    body: impl Fn(Rank<W>) + Copy + Send + Sync + 'static,
) -> impl Fn() + Send + Sync + 'static {
    move || both(world(first, rules, [Waits::Patiently; RANKS]), body, body)
}

/// Explores `model` within the bound, and prints how many executions that took.
pub(crate) fn explore(preemptions: Preemptions, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = executions.clone();
    let began = std::time::Instant::now();
    // Not from the environment: a bound of time or of executions would let a model pass that was not explored.
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 2_000;
    builder.max_duration = None;
    builder.max_permutations = None;
    builder.preemption_bound = preemptions;
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!(
        "{} executions in {:.1?}, preemptions at most {preemptions:?}",
        executions.load(Ordering::Relaxed),
        began.elapsed(),
    );
}

/// Sees `model` fail within the bound, and in the way it must.
pub(crate) fn fails(
    preemptions: Preemptions,
    how: Failure,
    model: impl Fn() + Send + Sync + 'static,
) {
    let panic = catch_unwind(AssertUnwindSafe(|| explore(preemptions, model)))
        .expect_err("the model passes without its rule");
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(
        how.explains(message),
        "the model fails, but not by {how:?}: {message}"
    );
    println!("fails: {message}");
}
