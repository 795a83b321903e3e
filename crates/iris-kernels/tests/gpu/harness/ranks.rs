//! The ranks of a world, a thread each: their memory, and how their calls are run.

use super::case::Case;
use super::plan::Plan;
use super::side::{Report, Side};
use iris_heap::device::{DeviceError, Memory, Module, PinnedMemory, SharedMemory, Stream};
use iris_kernels::device::FaultRecord;
use iris_kernels::host::Program;
use iris_testkit::device::check::NAME as CHECKS;
use iris_testkit::device::{Checks, Gpu, Gpus, Kernel, Placement, Verdict, images};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Barrier, Mutex, PoisonError};

/// Threads of a block of the programs.
pub(crate) const THREADS: u32 = 256;

/// One rank's memory.
pub(crate) struct Memories {
    pub(crate) stream: Stream<Gpu>,
    pub(crate) heap: SharedMemory<Gpu>,
    /// The heaps of the peers on other GPUs, as this rank's sees them.
    mapped: Vec<Option<SharedMemory<Gpu>>>,
    pub(crate) arena: Memory<Gpu>,
    pub(crate) host: PinnedMemory<Gpu>,
    pub(crate) verdict: Verdict<Gpu>,
    /// A word that kernels count in.
    pub(crate) counter: Memory<Gpu>,
}

/// Ranks with memory for cases up to a size, used again from case to case.
pub(crate) struct Ranks {
    pub(crate) placement: Placement,
    pub(crate) memories: Vec<Memories>,
    /// Where each rank sees the heap of each.
    pub(crate) seen: Vec<Vec<u64>>,
}

impl Ranks {
    /// Ranks with memory for all of `cases`, whose kernels are compiled.
    pub(crate) fn new(gpus: &Gpus, placement: Placement, cases: &[Case]) -> Self {
        compile(gpus, cases);
        let world = placement.world();
        let plans: Vec<_> = cases.iter().map(|case| Plan::new(case, world)).collect();
        let most = |of: fn(&Plan) -> usize| plans.iter().map(of).max().unwrap_or(0);
        let (heap, arena) = (most(|plan| plan.bytes), most(|plan| plan.arena));
        let mut memories: Vec<_> = placement
            .devices
            .iter()
            .map(|device| Memories {
                stream: Stream::new(device).unwrap(),
                heap: SharedMemory::new(device, heap).unwrap(),
                mapped: Vec::new(),
                arena: Memory::new(device, arena).unwrap(),
                host: PinnedMemory::new(device, 4096).unwrap(),
                verdict: Verdict::new(device).unwrap(),
                counter: Memory::new(device, 8).unwrap(),
            })
            .collect();
        let mut seen = Vec::new();
        for rank in 0..world {
            let device = &placement.devices[rank];
            let mapped: Vec<_> = (0..world)
                .map(|peer| {
                    let heap = &memories[peer].heap;
                    let here = placement.devices[peer].ordinal() == device.ordinal();
                    (!here).then(|| {
                        SharedMemory::import(device, heap.export().unwrap(), heap.len()).unwrap()
                    })
                })
                .collect();
            seen.push(
                (0..world)
                    .map(|peer| match &mapped[peer] {
                        Some(mapped) => mapped.address(),
                        None => memories[peer].heap.address(),
                    })
                    .collect(),
            );
            memories[rank].mapped = mapped;
        }
        Self {
            placement,
            memories,
            seen,
        }
    }

    pub(crate) fn world(&self) -> usize {
        self.placement.world()
    }

    /// Runs `body` as each rank, on a thread each, from a state in which there has been no call; then waits for all that it
    /// enqueued.
    pub(crate) fn run(
        &self,
        case: &Case,
        body: impl Fn(&mut Side<'_>) -> Result<(), DeviceError> + Sync,
    ) -> Vec<Report> {
        let plan = Plan::new(case, self.world());
        let met = Barrier::new(self.world());
        std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..self.world())
                .map(|rank| {
                    let (plan, met, body) = (&plan, &met, &body);
                    scope.spawn(move || {
                        let mut side = Side::new(self, case, plan, rank, met).unwrap();
                        met.wait();
                        body(&mut side).unwrap();
                        side.finish().unwrap()
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    /// Makes `calls` calls back to back, and asserts that all are right.
    pub(crate) fn right(&self, case: &Case, calls: u64) {
        // Threads that share a GPU share its driver's lock, which one that finds its queue full keeps: they stop before that.
        let most = if self.placement.is_shared() {
            100
        } else {
            u64::MAX
        };
        let reports = self.run(case, |side| {
            for call in 0..calls {
                side.call(call)?;
                if call % most == most - 1 {
                    side.memories().stream.synchronize()?;
                }
            }
            Ok(())
        });
        all_right(case, &reports, calls);
    }

    /// The kernels' code on the GPU of a rank, loaded once.
    pub(crate) fn module(&self, rank: usize, kernel: &Kernel) -> Module<Gpu> {
        type Loaded = HashMap<(Kernel, usize), Module<Gpu>>;
        static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);
        let device = &self.placement.devices[rank];
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        loaded
            .get_or_insert_default()
            .entry((kernel.clone(), device.ordinal()))
            .or_insert_with(|| Module::load(device, &image(device, kernel)).unwrap())
            .clone()
    }

    pub(crate) fn checks(&self, rank: usize, case: &Case) -> Checks<Gpu> {
        let device = &self.placement.devices[rank];
        let module = self.module(rank, &checks(case));
        let mut checks = Checks::new(device, &module, case.dtype).unwrap();
        if self.placement.is_shared() {
            checks.blocks = (checks.blocks / (2 * self.placement.each as u32)).max(1);
        }
        checks
    }
}

fn image(
    device: &iris_heap::device::Device<Gpu>,
    kernel: &Kernel,
) -> iris_testkit::device::kernels::Image {
    images(&device.info().architecture, std::slice::from_ref(kernel))
        .unwrap()
        .remove(0)
}

fn checks(case: &Case) -> Kernel {
    Kernel {
        source: CHECKS,
        dtype: case.dtype,
        definitions: &[],
    }
}

/// Compiles all that the cases need, at once.
pub(crate) fn compile(gpus: &Gpus, cases: &[Case]) {
    let wanted: Vec<_> = cases
        .iter()
        .flat_map(|case| [case.kernel(), checks(case)])
        .collect();
    images(gpus.architecture(), &wanted).unwrap();
}

/// Asserts that no rank faulted, and all calls were right.
pub(crate) fn all_right(case: &Case, reports: &[Report], calls: u64) {
    for (rank, report) in reports.iter().enumerate() {
        if let Err(error) = report.right(calls) {
            panic!("rank {rank} of {}: {error}\n{case:?}", reports.len());
        }
    }
}

/// What a record says, in the words of its numbers.
pub(crate) fn describe(record: &FaultRecord) -> String {
    const WORDS: [&str; 6] = ["entered", "ready", "gathered", "added", "lock", "barrier"];
    const CAUSES: [&str; 4] = ["budget ended", "aborted", "mismatch", "poisoned"];
    let name = |names: &[&'static str], at: u64| names.get(at as usize).copied().unwrap_or("?");
    let mut text = format!(
        "rank {} in call {} (value {}): {}",
        record.rank,
        record.index,
        record.value,
        name(&CAUSES, record.cause)
    );
    // What is said beside the cause, and what was waited for, is as the cause has it.
    let _ = match record.cause {
        0 => write!(text, " after {} ns", record.other),
        1 => write!(text, " by rank {}", record.other),
        2 => write!(text, ", m {} there and {} here", record.other, record.ours),
        _ => Ok(()),
    };
    if record.waited != 0 {
        let _ = write!(
            text,
            ", waiting for `{}` of rank {}, tile {}, expected {}, seen {}",
            name(&WORDS, record.word),
            record.peer,
            record.tile as i64,
            record.expected,
            record.seen
        );
    }
    text
}

/// Whether a program can exchange a matrix that is there already.
pub(crate) fn takes_given(program: Program) -> bool {
    !matches!(
        program,
        Program::AllGatherMatmul(_) | Program::AllGatherMatmulPackets
    )
}
