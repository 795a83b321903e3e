//! Inputs and checks on the device: the host's side of `check.hip`.

use iris_heap::device::{Device, DeviceError, Driver, Function, Memory, Module, Raw, Stream};
use iris_kernels::device::sources;
use iris_kernels::{DType, Element};
use std::time::Duration;

/// The name of the kernels' source.
pub const NAME: &str = "check.hip";
/// Threads of a block.
const THREADS: u32 = 256;
/// Parts that one launch fills at most.
const MAX_JOBS: usize = 5;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The source, to be compiled with `IRIS_DTYPE` as the kernels that are tested.
pub fn source() -> String {
    sources::amalgamate(NAME, include_str!("check.hip"))
}

/// How numbers are drawn: small integers, of which sums and products are exact in every order, in every dtype.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// What they are drawn by: each call's own.
    pub seed: u64,
    /// The address of a word in device memory that is added to the seed when a kernel runs, or 0.
    pub counter: u64,
    sparse: u64,
    magnitude: u64,
}

impl Numbers {
    /// For products that are `depth` deep: so small, and so many of them zero, that a sum beyond 256, the largest integer that bf16
    /// holds with all below it, is ten standard deviations away. Each check counts those it meets, so that they cannot pass for
    /// a fault of what is tested.
    pub fn exact(seed: u64, depth: usize) -> Self {
        let magnitude = if depth <= 15 { 4 } else { 1 };
        let mut sparse = 0;
        while depth > 15 && depth as f64 / f64::powi(4.0, sparse) > 600.0 {
            sparse += 1;
        }
        Self {
            seed,
            counter: 0,
            sparse: sparse as u64,
            magnitude,
        }
    }

    fn key(&self, tensor: u64) -> u64 {
        mix(mix(self.seed.wrapping_add(STEP)).wrapping_add(tensor.wrapping_mul(STEP)))
    }

    /// The integer of a tensor at a place, its row times the matrix' width plus its column, as the device draws it where there
    /// is no counter.
    pub fn integer(&self, tensor: u64, place: usize) -> i32 {
        let drawn = mix(self
            .key(tensor)
            .wrapping_add((place as u64).wrapping_mul(STEP)));
        if drawn & ((1 << self.sparse) - 1) != 0 {
            return 0;
        }
        let size = 1 + ((drawn >> 32) & 0x7fff_ffff) % self.magnitude;
        if drawn >> 63 == 0 {
            size as i32
        } else {
            -(size as i32)
        }
    }
}

/// The finaliser of splitmix64.
fn mix(mut word: u64) -> u64 {
    word ^= word >> 30;
    word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word ^= word >> 27;
    word = word.wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The part of a matrix, in memory.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Where its first element is, for the device.
    pub address: u64,
    /// Its rows.
    pub rows: u64,
    /// Its columns.
    pub cols: u64,
    /// Elements from one row to the next.
    pub row_stride: u64,
    /// Elements from one column to the next.
    pub col_stride: u64,
    /// Its first row's place in the whole matrix.
    pub row0: u64,
    /// Its first column's.
    pub col0: u64,
}

/// What a part is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The integers of a tensor.
    Integers(u64),
    /// What equals nothing: a result that is not written shows.
    NotANumber,
    /// Numbers between -1 and 1, of a tensor: sums of them depend on the order.
    Uniform(u64),
}

/// A part, the columns of the whole matrix, and what it is filled with.
pub type Job = (Part, usize, Content);

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawJob {
    part: Part,
    width: u64,
    content: u64,
    tensor: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct FillArgs {
    numbers: Numbers,
    blocks: u64,
    stall_ns: u64,
    jobs: u64,
    job: [RawJob; MAX_JOBS],
}

/// What a result must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// The result, or the part of it that is looked at.
    pub part: Part,
    /// Columns of the whole result.
    pub n: usize,
    /// Depth of the product.
    pub k: usize,
    /// 0 for a product; else how many matrices, of consecutive tensors from `a` on, are summed.
    pub matrices: usize,
    /// The tensor of A.
    pub a: u64,
    /// The tensor of B.
    pub b: u64,
    /// The tensor of the bias, or 0 for none.
    pub bias: u64,
    /// Elements that are looked at, one in four of them in the last 128 rows and columns; 0 for all.
    pub samples: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CheckArgs {
    numbers: Numbers,
    blocks: u64,
    stall_ns: u64,
    part: Part,
    n: u64,
    k: u64,
    matrices: u64,
    a: u64,
    b: u64,
    bias: u64,
    samples: u64,
    limit: u64,
    verdict: u64,
}

/// What checks have found so far.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Found {
    /// Elements looked at.
    pub checked: u64,
    /// Elements that are not what they must be.
    pub wrong: u64,
    /// Elements whose right value the dtype cannot hold: a mistake of the test.
    pub inexact: u64,
    /// The seed of the first wrong one's call.
    pub seed: u64,
    /// Its row in the whole result.
    pub row: u64,
    /// Its column.
    pub col: u64,
    /// What it must be: an f32's bits.
    pub expected: u64,
    /// What it is: an f32's bits.
    pub found: u64,
    /// The sum of all digests.
    pub digest: u64,
}

impl Found {
    /// Whether as many elements as `checked` were looked at, and all were right.
    ///
    /// # Errors
    /// What was found in place of that.
    pub fn right(&self, checked: u64) -> Result<(), String> {
        let float = |bits: u64| f32::from_bits(bits as u32);
        if self.inexact != 0 {
            return Err(format!(
                "{} right results are beyond what the dtype holds exactly: the inputs are too large",
                self.inexact
            ));
        }
        if self.wrong != 0 {
            return Err(format!(
                "{} of {} elements are wrong, the first with seed {} at row {}, column {}: {} in place of {}",
                self.wrong,
                self.checked,
                self.seed,
                self.row,
                self.col,
                float(self.found),
                float(self.expected)
            ));
        }
        if self.checked != checked {
            return Err(format!(
                "{} elements were looked at, not {checked}",
                self.checked
            ));
        }
        Ok(())
    }
}

/// Memory of a device that checks report to.
#[derive(Debug)]
pub struct Verdict<D: Driver>(Memory<D>);

impl<D: Driver> Verdict<D> {
    /// In memory of `device`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn new(device: &Device<D>) -> Result<Self, DeviceError> {
        Memory::new(device, size_of::<Found>()).map(Self)
    }

    /// Forgets what was found; enqueued.
    ///
    /// # Errors
    /// Where the runtime refuses.
    pub fn clear(&self, stream: &Stream<D>) -> Result<(), DeviceError> {
        stream.fill(&self.0, 0, size_of::<Found>(), 0)
    }

    /// What was found; waits for the stream.
    ///
    /// # Errors
    /// What went wrong before.
    pub fn read(&self, stream: &Stream<D>) -> Result<Found, DeviceError> {
        let mut found = Found::default();
        stream.read(&self.0, 0, bytemuck::bytes_of_mut(&mut found))?;
        Ok(found)
    }
}

/// The kernels on one device, for one dtype.
#[derive(Debug)]
pub struct Checks<D: Driver> {
    fill: Function<D>,
    check: Function<D>,
    digest: Function<D>,
    advance: Function<D>,
    limit: u64,
    /// Blocks that a launch has at most.
    pub blocks: u32,
    /// For how long the next kernels stand still before they do anything: somebody's kernels that are late.
    pub stall: Duration,
}

impl<D: Driver> Checks<D> {
    /// From the [`source`], compiled for `dtype` and loaded on `device`.
    ///
    /// # Errors
    /// Where it is not that.
    pub fn new(device: &Device<D>, module: &Module<D>, dtype: DType) -> Result<Self, DeviceError> {
        let function = |name| module.function(name, THREADS, 0);
        Ok(Self {
            fill: function("iris_test_fill")?,
            check: function("iris_test_check")?,
            digest: function("iris_test_digest")?,
            advance: function("iris_test_advance")?,
            limit: match dtype {
                DType::F32 => 1 << 24,
                DType::F16 => 1 << 11,
                DType::BF16 => 1 << 8,
            },
            blocks: 2 * device.info().multiprocessors,
            stall: Duration::ZERO,
        })
    }

    /// Blocks for so many elements.
    fn blocks(&self, elements: u64) -> u32 {
        let wanted = elements.div_ceil(u64::from(THREADS)).max(1);
        u32::try_from(wanted).map_or(self.blocks, |wanted| wanted.min(self.blocks))
    }

    fn stall_ns(&self) -> u64 {
        self.stall.as_nanos() as u64
    }

    /// Fills parts of matrices, up to five.
    ///
    /// # Safety
    /// The parts lie in memory that this device may write, and that is alive until the kernel has run.
    ///
    /// # Errors
    /// Where the runtime refuses.
    ///
    /// # Panics
    /// With more than five parts.
    pub unsafe fn fill(
        &self,
        stream: &Stream<D>,
        numbers: &Numbers,
        jobs: &[Job],
    ) -> Result<(), DeviceError> {
        let mut args = FillArgs {
            numbers: *numbers,
            blocks: 0,
            stall_ns: self.stall_ns(),
            jobs: jobs.len() as u64,
            job: [RawJob::default(); MAX_JOBS],
        };
        assert!(jobs.len() <= MAX_JOBS, "{} parts", jobs.len());
        for (raw, &(part, width, content)) in args.job.iter_mut().zip(jobs) {
            let (content, tensor) = match content {
                Content::Integers(tensor) => (0, tensor),
                Content::NotANumber => (1, 0),
                Content::Uniform(tensor) => (2, tensor),
            };
            *raw = RawJob {
                part,
                width: width as u64,
                content,
                tensor,
            };
        }
        let largest = jobs.iter().map(|(part, ..)| part.rows * part.cols).max();
        let blocks = self.blocks(largest.unwrap_or(0));
        args.blocks = u64::from(blocks);
        // SAFETY: the kernel takes such a block; the rest is the caller's promise.
        unsafe { self.fill.launch_ordinary(stream, blocks, &args) }
    }

    fn arguments(
        &self,
        numbers: &Numbers,
        expected: &Expected,
        elements: u64,
        verdict: &Verdict<D>,
    ) -> CheckArgs {
        CheckArgs {
            numbers: *numbers,
            blocks: u64::from(self.blocks(elements)),
            stall_ns: self.stall_ns(),
            part: expected.part,
            n: expected.n as u64,
            k: expected.k as u64,
            matrices: expected.matrices as u64,
            a: expected.a,
            b: expected.b,
            bias: expected.bias,
            samples: expected.samples as u64,
            limit: self.limit,
            verdict: verdict.0.address(),
        }
    }

    /// Compares a result with what it must be. Returns how many elements are looked at.
    ///
    /// # Safety
    /// The part lies in memory that this device may read, and that is alive until the kernel has run; so is the verdict.
    ///
    /// # Errors
    /// Where the runtime refuses.
    pub unsafe fn check(
        &self,
        stream: &Stream<D>,
        numbers: &Numbers,
        expected: &Expected,
        verdict: &Verdict<D>,
    ) -> Result<u64, DeviceError> {
        let size = expected.part.rows * expected.part.cols;
        let elements = match expected.samples as u64 {
            0 => size,
            _ if size == 0 => return Ok(0),
            samples => samples,
        };
        let args = self.arguments(numbers, expected, elements, verdict);
        // SAFETY: as in `fill`.
        unsafe {
            self.check
                .launch_ordinary(stream, args.blocks as u32, &args)?;
        }
        Ok(elements)
    }

    /// Adds to the verdict's digest a number that depends on every bit of a part, and on where each stands.
    ///
    /// # Safety
    /// As for [`Checks::check`].
    ///
    /// # Errors
    /// Where the runtime refuses.
    pub unsafe fn digest(
        &self,
        stream: &Stream<D>,
        part: Part,
        verdict: &Verdict<D>,
    ) -> Result<(), DeviceError> {
        let expected = Expected {
            part,
            n: 0,
            k: 0,
            matrices: 0,
            a: 0,
            b: 0,
            bias: 0,
            samples: 0,
        };
        let args = self.arguments(
            &Numbers::exact(0, 1),
            &expected,
            part.rows * part.cols,
            verdict,
        );
        // SAFETY: as in `fill`.
        unsafe {
            self.digest
                .launch_ordinary(stream, args.blocks as u32, &args)
        }
    }

    /// Adds 1 to a word of 64 bits.
    ///
    /// # Safety
    /// The word is this device's to write, and alive until the kernel has run.
    ///
    /// # Errors
    /// Where the runtime refuses.
    pub unsafe fn advance(&self, stream: &Stream<D>, counter: Raw) -> Result<(), DeviceError> {
        // SAFETY: as in `fill`.
        unsafe { self.advance.launch_ordinary(stream, 1, &counter) }
    }
}

/// Element `place` of a matrix of a tensor, on the host.
pub fn element<T: Element>(numbers: &Numbers, tensor: u64, place: usize) -> T {
    T::from_f32(numbers.integer(tensor, place) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_stay_exact_and_are_not_all_alike() {
        for depth in [1, 2, 15, 16, 40, 600, 3584, 28_672] {
            let numbers = Numbers::exact(depth as u64, depth);
            let (mut largest, mut zeros) = (0, 0);
            for col in 0..200 {
                let sum: i32 = (0..depth)
                    .map(|at| numbers.integer(1, at) * numbers.integer(2, at * 200 + col))
                    .sum();
                largest = largest.max(sum.abs());
                zeros += u32::from(sum == 0);
            }
            assert!(largest <= 240, "{depth}: {largest}");
            assert!(zeros < 150, "{depth}: {zeros} of 200 are zero");
        }
    }

    #[test]
    fn numbers_differ_by_seed_and_tensor_and_place() {
        let draw = |seed, tensor, first| {
            let numbers = Numbers::exact(seed, 4);
            (first..first + 64)
                .map(|place| numbers.integer(tensor, place))
                .collect::<Vec<_>>()
        };
        let all = [draw(0, 0, 0), draw(1, 0, 0), draw(0, 1, 0), draw(0, 0, 64)];
        for (at, one) in all.iter().enumerate() {
            assert!(
                one.iter()
                    .all(|number| (1..=4).contains(&number.unsigned_abs()))
            );
            assert!(all[..at].iter().all(|other| other != one));
        }
    }
}
