//! One rank's side of a case: its inputs, calls and checks, each enqueued and none waited for.

use super::case::Case;
use super::plan::{Lines, Operands, Plan, TILE, parts};
use super::ranks::{Memories, Ranks, THREADS, describe};
use iris_heap::device::{DeviceError, Function, Stream};
use iris_kernels::device::{Args, FaultRecord, completed};
use iris_kernels::host::{Parts, Program};
use iris_testkit::device::{Checks, Content, Expected, Found, Gpu, Numbers, Part};
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicI32, Ordering};

/// The tensors that inputs are drawn from.
pub(crate) const A: u64 = 1;
pub(crate) const B: u64 = 2;
pub(crate) const BIAS: u64 = 3;
/// And the matrices that are given, rank by rank.
pub(crate) const GIVEN: u64 = 16;

/// Where the abort word lies in the host's memory, behind the fault record.
const ABORT: usize = 1024;

/// What became of a rank's calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) fault: FaultRecord,
    pub(crate) found: Found,
    /// Elements that were to be looked at.
    pub(crate) checked: u64,
    /// Calls that the workspace counts.
    pub(crate) index: u64,
    pub(crate) poisoned: bool,
}

impl Report {
    /// Whether `calls` calls were made and all were right.
    pub(crate) fn right(&self, calls: u64) -> Result<(), String> {
        if self.fault != FaultRecord::default() {
            return Err(describe(&self.fault));
        }
        self.found.right(self.checked)?;
        if self.index != calls || self.poisoned {
            return Err(format!(
                "the workspace counts {} calls of {calls}, poisoned: {}",
                self.index, self.poisoned
            ));
        }
        Ok(())
    }
}

pub(crate) struct Side<'a> {
    pub(crate) rank: usize,
    pub(crate) case: &'a Case,
    ranks: &'a Ranks,
    plan: &'a Plan,
    met: &'a Barrier,
    function: Function<Gpu>,
    /// Blocks of a launch at most.
    most_blocks: u32,
    pub(crate) checks: Checks<Gpu>,
    /// Whether the driver is asked to see to it that all blocks are resident: it is, where the rank has a GPU of its own.
    pub(crate) cooperative: bool,
    /// Whether the seed of each call is counted by the device.
    pub(crate) counted: bool,
    checked: u64,
}

impl<'a> Side<'a> {
    /// The rank's memory, as before the first call.
    pub(crate) fn new(
        ranks: &'a Ranks,
        case: &'a Case,
        plan: &'a Plan,
        rank: usize,
        met: &'a Barrier,
    ) -> Result<Self, DeviceError> {
        let function =
            ranks
                .module(rank, &case.kernel())
                .function(case.program.kernel().1, THREADS, 0)?;
        let memories = &ranks.memories[rank];
        let stream = &memories.stream;
        stream.fill(&memories.heap, 0, plan.bytes, 0)?;
        // What is staged and never written is not a number.
        stream.fill(&memories.heap, plan.staging, plan.staging_bytes, 0xff)?;
        stream.fill(&memories.counter, 0, 8, 0)?;
        memories.verdict.clear(stream)?;
        stream.synchronize()?;
        // SAFETY: pinned memory of 4096 bytes, which no kernel uses between two cases.
        unsafe { memories.host.host().write_bytes(0, 4096) };
        Ok(Self {
            rank,
            case,
            ranks,
            plan,
            met,
            most_blocks: ranks.placement.blocks(function.shape().most_blocks),
            function,
            checks: ranks.checks(rank, case),
            cooperative: !ranks.placement.is_shared(),
            counted: false,
            checked: 0,
        })
    }

    pub(crate) fn world(&self) -> usize {
        self.ranks.world()
    }

    pub(crate) fn memories(&self) -> &'a Memories {
        &self.ranks.memories[self.rank]
    }

    pub(crate) fn stream(&self) -> &'a Stream<Gpu> {
        &self.memories().stream
    }

    /// Waits until all ranks' threads have come here.
    pub(crate) fn meet(&self) {
        self.met.wait();
    }

    fn parts(&self, call: u64) -> Parts {
        parts(self.case, self.world(), self.rank, self.case.m(call))
    }

    pub(crate) fn numbers(&self, call: u64) -> Numbers {
        let mut numbers = self.case.numbers(if self.counted { 0 } else { call });
        if self.counted {
            numbers.counter = self.memories().counter.address();
        }
        numbers
    }

    /// Where the result of a call lies.
    pub(crate) fn result(&self, call: u64) -> Part {
        if self.case.program.stores_to_peers() && !self.case.form.bounced {
            return self.symmetric(call);
        }
        let c = self.operands().c;
        self.part_of_c(call, self.memories().arena.address() + c.at as u64, c.row)
    }

    /// Where peers store a call's result.
    fn symmetric(&self, call: u64) -> Part {
        let (at, row) = self.plan.output(self.case, self.rank, call);
        self.part_of_c(call, self.memories().heap.address() + at as u64, row)
    }

    fn part_of_c(&self, call: u64, address: u64, row_stride: usize) -> Part {
        let (rows, cols) = self.parts(call).c;
        Part {
            address,
            rows: rows.len() as u64,
            cols: cols.len() as u64,
            row_stride: row_stride as u64,
            col_stride: 1,
            row0: rows.start as u64,
            col0: cols.start as u64,
        }
    }

    fn operands(&self) -> Operands {
        Operands::new(self.case, self.world(), self.rank)
    }

    /// Makes a call's inputs, and fills its output with what is no number.
    pub(crate) fn fill(&self, call: u64) -> Result<(), DeviceError> {
        let case = self.case;
        let (operands, parts) = (self.operands(), self.parts(call));
        let arena = self.memories().arena.address();
        let content = |tensor| match case.inexact {
            true => Content::Uniform(tensor),
            false => Content::Integers(tensor),
        };
        let part = |lines: Lines, (rows, cols): &(Range<usize>, Range<usize>)| Part {
            address: arena + lines.at as u64,
            rows: rows.len() as u64,
            cols: cols.len() as u64,
            row_stride: lines.row as u64,
            col_stride: lines.col as u64,
            row0: rows.start as u64,
            col0: cols.start as u64,
        };
        let bias = Part {
            address: arena + operands.bias as u64,
            rows: 1,
            cols: parts.c.1.len() as u64,
            row_stride: parts.c.1.len() as u64,
            col_stride: 1,
            row0: 0,
            col0: parts.c.1.start as u64,
        };
        let mut outputs = vec![self.result(call)];
        if case.form.bounced && case.program.stores_to_peers() {
            outputs.push(self.symmetric(call));
        }
        let outputs = outputs
            .into_iter()
            .map(|output| (output, case.n, Content::NotANumber));
        let a = part(operands.a, &parts.a);
        let mut jobs = match (case.form.given, case.program) {
            (true, Program::MatmulAllGather) => vec![(a, case.n, content(GIVEN))],
            (true, _) => vec![(a, case.n, content(GIVEN + self.rank as u64))],
            (false, _) => vec![
                (a, case.k, content(A)),
                (part(operands.b, &parts.b), case.n, content(B)),
            ],
        };
        jobs.push((bias, case.n, content(BIAS)));
        jobs.extend(outputs);
        // SAFETY: the parts lie in this rank's arena and heap, which outlive the run; nobody but this rank's own kernels, which
        // come before on the stream, and peers in a call that this rank has not entered, access them.
        unsafe { self.checks.fill(self.stream(), &self.numbers(call), &jobs) }
    }

    /// The argument of a call.
    pub(crate) fn args(&self, call: u64) -> Args {
        let (case, plan) = (self.case, self.plan);
        let (memories, operands) = (self.memories(), self.operands());
        let (world, m) = (self.world(), case.m(call));
        let arena = memories.arena.address();
        let (output, output_row) = plan.output(case, self.rank, call);
        let most = case.blocks[(call % case.blocks.len() as u64) as usize];
        let stall = case.stall(call, world);
        let mut args = Args {
            world: world as u64,
            rank: self.rank as u64,
            blocks: u64::from(match most {
                0 => self.most_blocks,
                most => self.most_blocks.min(most),
            }),
            m: m as u64,
            n: case.n as u64,
            k: case.k as u64,
            given: u64::from(case.form.given),
            a: arena + operands.a.at as u64,
            a_row: operands.a.row as u64,
            a_col: operands.a.col as u64,
            b: arena + operands.b.at as u64,
            b_row: operands.b.row as u64,
            b_col: operands.b.col as u64,
            bias: if case.form.bias {
                arena + operands.bias as u64
            } else {
                0
            },
            c: arena + operands.c.at as u64,
            c_row: operands.c.row as u64,
            output: output as u64,
            output_row: output_row as u64,
            bounced: u64::from(case.form.bounced && case.program.stores_to_peers()),
            words: plan.words as u64,
            tiles: plan.layout.tiles() as u64,
            locks: plan.layout.locks() as u64,
            staging: plan.staging as u64,
            slots: plan.slots as u64,
            slot_bytes: plan.slot_bytes as u64,
            packets: plan.packets as u64,
            packet_slots: plan.packet_slots as u64,
            packet_bytes: plan.packet_bytes as u64,
            accumulators: plan.accumulators as u64,
            accumulator_elements: plan.accumulator_elements as u64,
            first: case.first as u64,
            budget_ns: case.budget.as_nanos() as u64,
            abort: memories.host.address() + ABORT as u64,
            fault: memories.host.address(),
            removed: case.removed(),
            stall_rank: stall.map_or(0, |stall| 1 + stall.rank as u64),
            stall_index: stall.map_or(0, |stall| stall.index),
            stall_phase: stall.map_or(0, |stall| stall.phase as u64),
            stall_ns: stall.map_or(0, |stall| stall.duration.as_nanos() as u64),
            ..Args::default()
        };
        args.heap[..world].copy_from_slice(&self.ranks.seen[self.rank]);
        args.with_shares().gathering(case.program, TILE)
    }

    /// Makes a call.
    pub(crate) fn launch(&self, call: u64) -> Result<(), DeviceError> {
        self.launch_with(&self.args(call))
    }

    /// Makes a call with other arguments.
    pub(crate) fn launch_with(&self, args: &Args) -> Result<(), DeviceError> {
        let (stream, blocks) = (self.stream(), args.blocks as u32);
        // SAFETY: the kernel takes such a block; all that it names lives until the run has ended, and `Ranks::run` waits for that.
        // Where ranks share a GPU their grids fit it together, by `Placement::blocks`.
        unsafe {
            if self.cooperative {
                self.function.launch_programmatic(stream, blocks, args)
            } else {
                self.function.launch_ordinary(stream, blocks, args)
            }
        }
    }

    /// What the result of a call must be.
    pub(crate) fn expected(&self, call: u64) -> Expected {
        let case = self.case;
        let (matrices, a) = match (case.form.given, case.program) {
            (false, _) => (0, A),
            (true, Program::MatmulAllGather) => (1, GIVEN),
            // The ranks that have depth.
            (true, _) => (case.k.div_ceil(case.k.div_ceil(self.world())), GIVEN),
        };
        Expected {
            part: self.result(call),
            n: case.n,
            k: case.k,
            matrices,
            a,
            b: B,
            bias: if case.form.bias { BIAS } else { 0 },
            samples: case.samples,
        }
    }

    /// Checks the result of a call.
    pub(crate) fn check(&mut self, call: u64) -> Result<(), DeviceError> {
        let expected = self.expected(call);
        self.check_as(call, &expected)
    }

    /// Checks a part of the result of a call.
    pub(crate) fn check_as(&mut self, call: u64, expected: &Expected) -> Result<(), DeviceError> {
        // SAFETY: as in `fill`.
        self.checked += unsafe {
            self.checks.check(
                self.stream(),
                &self.numbers(call),
                expected,
                &self.memories().verdict,
            )?
        };
        Ok(())
    }

    /// Adds the bits of a call's result to the digest.
    pub(crate) fn digest(&self, call: u64) -> Result<(), DeviceError> {
        // SAFETY: as in `fill`.
        unsafe {
            self.checks
                .digest(self.stream(), self.result(call), &self.memories().verdict)
        }
    }

    /// Has the device count a call: the next one has other inputs.
    pub(crate) fn advance(&self) -> Result<(), DeviceError> {
        // SAFETY: the counter is this rank's, and outlives the run.
        unsafe {
            self.checks
                .advance(self.stream(), self.memories().counter.address())
        }
    }

    /// Says that what has been enqueued for checking is run so many times in all.
    pub(crate) fn expect_checked(&mut self, checked: u64) {
        self.checked = checked;
    }

    pub(crate) fn checked(&self) -> u64 {
        self.checked
    }

    /// Inputs, call, check.
    pub(crate) fn call(&mut self, call: u64) -> Result<(), DeviceError> {
        self.fill(call)?;
        self.launch(call)?;
        self.check(call)
    }

    /// Asks the rank's kernels to leave, on behalf of a rank.
    pub(crate) fn ask_to_leave(&self, by: usize) {
        // SAFETY: the word lies in pinned memory that outlives the run, and is accessed as an atomic by kernels and host alike.
        let word = unsafe { AtomicI32::from_ptr(self.memories().host.host().add(ABORT).cast()) };
        word.store(1 + by as i32, Ordering::Release);
    }

    /// Waits for all that was enqueued, and tells what became of it.
    pub(crate) fn finish(&self) -> Result<Report, DeviceError> {
        let memories = self.memories();
        let found = memories.verdict.read(self.stream())?;
        let mut cells = [0u64; 2];
        memories
            .stream
            .read(&memories.heap, 0, bytemuck::cast_slice_mut(&mut cells))?;
        Ok(Report {
            // SAFETY: pinned memory of this size, which the kernels have left.
            fault: unsafe { memories.host.host().cast::<FaultRecord>().read() },
            found,
            checked: self.checked,
            index: completed(cells[0]),
            poisoned: cells[1] != 0,
        })
    }
}
