//! One case, measured: the vendor's product and collectives, alone and in sequence, and what of ours is given.

use half::{bf16, f16};
use iris_heap::World;
use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, Driver, Raw, Stream};
use iris_kernels::DType;
use std::rc::Rc;

use crate::bandwidth::read_bandwidth;
use crate::case::{Case, CollectiveKind, Plan};
use crate::cublaslt::{Handle, Product};
use crate::error::MeasureError;
use crate::kernels::Kernels;
use crate::meeting::together;
use crate::nccl::Communicator;
use crate::operands::{Addresses, Operands};
use crate::sample::Samples;
use crate::timing::{Call, Clock, Effort, Enqueue, median, spread};

/// Elements of each result that are checked, on each of the sets that are.
const SAMPLES: usize = 24;
/// How often each of the vendor's algorithms is measured before one is chosen.
const TRIALS: usize = 5;

/// One rank's side of all comparisons of a run.
pub struct Rank<'a> {
    world: &'a World,
    device: Device<Cuda>,
    stream: &'a Stream<Cuda>,
    handle: Rc<Handle>,
    communicator: Communicator,
    kernels: Kernels,
    dtype: DType,
    read_bandwidth: f64,
}

impl<'a> Rank<'a> {
    /// Sets up the vendor's libraries for the device of this rank's stream, on which everything is then measured, and for elements
    /// of one type. Collective.
    ///
    /// # Errors
    /// Where a library is not there; where one refuses.
    pub fn new(
        world: &'a World,
        stream: &'a Stream<Cuda>,
        dtype: DType,
    ) -> Result<Self, MeasureError> {
        let device = stream.device();
        let handle = Handle::new(device, world.rank());
        let handle = together(world, "setting cuBLASLt up", handle)?;
        let kernels = together(world, "compiling", Kernels::new(device, dtype))?;
        let communicator = Communicator::new(device, world)?;
        let clock = Clock {
            world,
            device,
            stream,
            sets: 1,
            effort: Effort::default(),
        };
        let read_bandwidth = read_bandwidth(&kernels, &clock)?;
        Ok(Self {
            world,
            device: device.clone(),
            stream,
            handle,
            communicator,
            kernels,
            dtype,
            read_bandwidth,
        })
    }

    /// Bytes a second that the slowest device reads of its memory.
    pub fn read_bandwidth(&self) -> f64 {
        self.read_bandwidth
    }

    /// The versions of the vendor's libraries: cuBLASLt's and NCCL's.
    ///
    /// # Errors
    /// Where they do not tell.
    pub fn versions(&self) -> Result<[String; 2], MeasureError> {
        Ok([
            self.handle.version().to_string(),
            self.communicator.version()?.to_string(),
        ])
    }

    /// Ends it in order. Collective.
    ///
    /// # Errors
    /// Where something went wrong that was not noticed before.
    pub fn finish(self) -> Result<(), MeasureError> {
        self.world.barrier()?;
        self.communicator.finish()
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// The vendor's product alone.
    Product,
    /// The vendor's collective alone, on plain memory.
    Collective,
    /// The vendor's collective alone, on registered windows.
    CollectiveWindow,
    /// Both, in the order in which one needs the other, on plain memory.
    Sequence,
    /// Both, the collective on registered windows.
    SequenceWindow,
    /// Our product alone.
    OurProduct,
    /// Our collective alone.
    OurCollective,
    /// Our fused operation.
    Fused,
}

impl Item {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Product => "cuBLASLt's product",
            Self::Collective => "NCCL's collective",
            Self::CollectiveWindow => "NCCL's collective on windows",
            Self::Sequence => "cuBLASLt and NCCL in sequence",
            Self::SequenceWindow => "cuBLASLt and NCCL on windows in sequence",
            Self::OurProduct => "our product",
            Self::OurCollective => "our collective",
            Self::Fused => "the fused operation",
        }
    }
}

/// What of ours is measured. Each makes its calls on the rank's stream, and on the set of operands that it is told, which
/// [`Comparison::operands`] has.
#[derive(Default)]
pub struct Ours<'a> {
    /// The fused operation.
    pub fused: Option<&'a mut dyn Enqueue<Cuda>>,
    /// Our product alone.
    pub product: Option<&'a mut dyn Enqueue<Cuda>>,
    /// Our collective alone.
    pub collective: Option<&'a mut dyn Enqueue<Cuda>>,
}

/// What was measured: the slowest rank's times, in microseconds a call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Times {
    times: Vec<(Item, Vec<f64>)>,
}

impl Times {
    /// The median of what was measured of an item.
    pub fn us(&self, item: Item) -> Option<f64> {
        self.of(item).map(median)
    }

    /// How far its measurements lie apart: half the distance of the quartiles, over the median.
    pub fn spread(&self, item: Item) -> Option<f64> {
        self.of(item).map(spread)
    }

    fn of(&self, item: Item) -> Option<&[f64]> {
        let mut times = self.times.iter();
        times.find_map(|(known, times)| (*known == item).then_some(times.as_slice()))
    }

    /// The least of several items' medians.
    fn least<const N: usize>(&self, items: [Item; N]) -> Option<f64> {
        items
            .into_iter()
            .filter_map(|item| self.us(item))
            .min_by(f64::total_cmp)
    }

    /// The least of the three collectives alone: what no fusion can be faster than.
    pub fn collective(&self) -> Option<f64> {
        self.least([
            Item::Collective,
            Item::CollectiveWindow,
            Item::OurCollective,
        ])
    }

    /// The better of the two sequences.
    pub fn sequence(&self) -> Option<f64> {
        self.least([Item::Sequence, Item::SequenceWindow])
    }
}

/// One rank's side of one case.
pub struct Comparison<'r, 'a> {
    rank: &'r Rank<'a>,
    plan: Plan,
    operands: Operands<'r>,
    product: Product,
    of_product: Vec<Samples>,
    of_result: Vec<Samples>,
    seed: u64,
}

/// Which memory the vendor's collective works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Plain,
    Window,
}

impl<'r, 'a> Comparison<'r, 'a> {
    /// Allocates and fills all operands of a case, whose elements are of the rank's type. Collective.
    ///
    /// # Errors
    /// Where the sizes are too large for the device, or cannot be addressed.
    ///
    /// # Panics
    /// Where the case is of another type of elements than the rank.
    pub fn new(rank: &'r Rank<'a>, case: Case, seed: u64) -> Result<Self, MeasureError> {
        assert_eq!(case.dtype, rank.dtype, "kernels were compiled for one type");
        let plan = Plan::new(case, rank.world.size(), rank.world.rank())?;
        let operands = Operands::new(
            rank.world,
            &rank.device,
            rank.stream,
            &rank.kernels,
            Some(&rank.communicator),
            &plan,
            seed,
        )?;
        // The first set and the last: what is wrong with sets in general is wrong with one of these.
        let sets = [0, operands.sets() - 1];
        Ok(Self {
            product: Product::new(&rank.handle, &plan)?,
            of_product: sets
                .map(|set| Samples::of_product(&plan, seed, set, SAMPLES))
                .into(),
            of_result: sets
                .map(|set| Samples::of_result(&plan, seed, set, SAMPLES))
                .into(),
            rank,
            plan,
            operands,
            seed,
        })
    }

    /// This rank's part in the case.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The operands, for ours to be called on: their A and B.
    pub fn operands(&self) -> &Operands<'r> {
        &self.operands
    }

    /// `count` elements of this rank's result on a set of operands, to check ours by.
    pub fn samples(&self, set: usize, count: usize) -> Samples {
        Samples::of_result(&self.plan, self.seed, set, count)
    }

    /// `count` elements of this rank's product on a set of operands.
    pub fn product_samples(&self, set: usize, count: usize) -> Samples {
        Samples::of_product(&self.plan, self.seed, set, count)
    }

    /// `count` elements of the whole A, as an all-gather of all ranks' parts leaves it.
    pub fn gathered(&self, set: usize, count: usize) -> Samples {
        Samples::of_gathered(&self.plan, self.seed, set, count)
    }

    /// Enqueues the vendor's product on a set of operands, with the result, which is stored row by row, somewhere else.
    ///
    /// # Safety
    /// At `to`, a multiple of 256, is memory of this rank's device for [`Plan::m`] x [`Plan::n`] elements until it has run.
    ///
    /// # Errors
    /// Where the library refuses.
    pub unsafe fn product_into(&self, set: usize, to: Raw) -> Result<(), MeasureError> {
        let at = self.operands.plain(set);
        let a = if self.plan.case.operation.gathers_first() {
            at.receive
        } else {
            at.a
        };
        // SAFETY: the operands are those of the plan; the rest is the caller's word.
        unsafe { self.product.enqueue(a, at.b, to, self.rank.stream) }
    }

    /// Measures everything, in turn. Collective; all ranks give as much of ours.
    ///
    /// # Errors
    /// Where a result is wrong; where something fails.
    pub fn run(&mut self, ours: Ours<'_>, effort: Effort) -> Result<Times, MeasureError> {
        self.gather_all()?;
        self.choose_algorithm(effort)?;
        let Ours {
            fused,
            product,
            collective,
        } = ours;
        let places: &[Place] = match self.operands.windowed(0) {
            Some(_) => &[Place::Plain, Place::Window],
            None => &[Place::Plain],
        };
        let this = &*self;
        let clock = this.clock(effort);
        let mut vendor: Vec<(Item, Box<dyn Enqueue<Cuda> + '_>)> = vec![(
            Item::Product,
            this.call(move |set, stream| this.enqueue_product(Place::Plain, set, stream)),
        )];
        for &place in places {
            let (alone, both) = match place {
                Place::Plain => (Item::Collective, Item::Sequence),
                Place::Window => (Item::CollectiveWindow, Item::SequenceWindow),
            };
            vendor.push((
                alone,
                this.call(move |set, stream| this.enqueue_collective(place, false, set, stream)),
            ));
            vendor.push((
                both,
                this.call(move |set, stream| this.enqueue_sequence(place, set, stream)),
            ));
        }
        let mut items: Vec<(Item, &mut dyn Enqueue<Cuda>)> = Vec::new();
        for (item, enqueue) in &mut vendor {
            items.push((*item, &mut **enqueue));
        }
        for (item, enqueue) in [
            (Item::OurProduct, product),
            (Item::OurCollective, collective),
            (Item::Fused, fused),
        ] {
            if let Some(enqueue) = enqueue {
                items.push((item, enqueue));
            }
        }
        let verify = |items: &mut [(Item, &mut dyn Enqueue<Cuda>)]| {
            let vendors = this.check_vendor(places);
            together(this.rank.world, "checking the vendor's results", vendors)?;
            for (item, enqueue) in items {
                let ours = clock.own(item.name(), enqueue.check(this.rank.stream));
                together(this.rank.world, item.name(), ours)?;
            }
            Ok::<_, MeasureError>(())
        };
        verify(&mut items)?;
        let mut captured = items
            .iter_mut()
            .map(|(item, enqueue)| clock.capture(item.name(), &mut **enqueue))
            .collect::<Result<Vec<_>, _>>()?;
        let times = clock.rounds(&mut captured)?;
        drop(captured);
        verify(&mut items)?;
        // Windows may be given back when all ranks are through with them.
        this.rank.world.barrier()?;
        let items = items.iter().map(|(item, _)| *item);
        Ok(Times {
            times: items.zip(times).collect(),
        })
    }

    /// Something that enqueues on this comparison's operands.
    fn call<'s>(
        &'s self,
        enqueue: impl FnMut(usize, &Stream<Cuda>) -> Result<(), MeasureError> + 's,
    ) -> Box<dyn Enqueue<Cuda> + 's> {
        // SAFETY: all that the functions of this enqueue is this one's or its rank's, which are borrowed.
        Box::new(unsafe { Call::new(enqueue) })
    }

    fn clock(&self, effort: Effort) -> Clock<'_, Cuda> {
        Clock {
            world: self.rank.world,
            device: &self.rank.device,
            stream: self.rank.stream,
            sets: self.operands.sets(),
            effort,
        }
    }

    /// Gives all products their A, where that is gathered first: they are measured alone before any sequence is.
    fn gather_all(&self) -> Result<(), MeasureError> {
        if self.plan.case.operation.gathers_first() {
            for set in 0..self.operands.sets() {
                self.enqueue_collective(Place::Plain, false, set, self.rank.stream)?;
            }
        }
        Ok(self.rank.stream.synchronize()?)
    }

    /// Tries all algorithms that the library suggests for the product, and stays with the fastest. All ranks at once, each its own.
    fn choose_algorithm(&mut self, effort: Effort) -> Result<(), MeasureError> {
        // All ranks measure as often, though one's product may have fewer algorithms than another's.
        let own = self.product.algorithms();
        let gathered = self
            .rank
            .world
            .all_gather_bytes(&(own as u64).to_le_bytes())?;
        let most = gathered
            .iter()
            .filter_map(|bytes| Some(u64::from_le_bytes(bytes.as_slice().try_into().ok()?)))
            .max();
        let most = most.map_or(own, |most| most as usize);
        let mut best = (f64::INFINITY, 0);
        for algorithm in 0..most {
            self.product.choose(algorithm);
            let this = &*self;
            let clock = this.clock(effort);
            let mut product =
                this.call(move |set, stream| this.enqueue_product(Place::Plain, set, stream));
            let mut captured = clock.capture(Item::Product.name(), &mut *product)?;
            let times = (0..TRIALS)
                .map(|_| clock.measure(&mut captured))
                .collect::<Result<Vec<_>, _>>()?;
            let us = median(&times);
            if algorithm < own && us < best.0 {
                best = (us, algorithm);
            }
        }
        self.product.choose(best.1);
        Ok(())
    }

    fn at(&self, place: Place, set: usize) -> Addresses {
        match place {
            Place::Plain => self.operands.plain(set),
            // Only asked for where there is one.
            Place::Window => self
                .operands
                .windowed(set)
                .unwrap_or_else(|| self.operands.plain(set)),
        }
    }

    fn enqueue_product(
        &self,
        place: Place,
        set: usize,
        stream: &Stream<Cuda>,
    ) -> Result<(), MeasureError> {
        let at = self.at(place, set);
        let a = if self.plan.case.operation.gathers_first() {
            at.receive
        } else {
            at.a
        };
        // SAFETY: the operands are those of the plan, and live as long as this, which waits for the stream before it ends.
        unsafe { self.product.enqueue(a, at.b, at.product, stream) }
    }

    /// The collective; one that all ranks get the whole of can leave it where it takes its input from.
    fn enqueue_collective(
        &self,
        place: Place,
        in_place: bool,
        set: usize,
        stream: &Stream<Cuda>,
    ) -> Result<(), MeasureError> {
        let at = self.at(place, set);
        let receive = if in_place { at.send } else { at.receive };
        // SAFETY: as above; all ranks run this same code.
        unsafe {
            self.rank.communicator.enqueue(
                self.plan.collective,
                at.send,
                receive,
                self.plan.count,
                self.plan.case.dtype,
                stream,
            )
        }
    }

    /// Whether the sequence reduces in place, as its users do: there is no need for another buffer.
    fn in_place(&self) -> bool {
        self.plan.collective == CollectiveKind::AllReduce
    }

    fn enqueue_sequence(
        &self,
        place: Place,
        set: usize,
        stream: &Stream<Cuda>,
    ) -> Result<(), MeasureError> {
        if self.plan.case.operation.gathers_first() {
            self.enqueue_collective(place, false, set, stream)?;
            self.enqueue_product(place, set, stream)
        } else {
            self.enqueue_product(place, set, stream)?;
            self.enqueue_collective(place, self.in_place(), set, stream)
        }
    }

    /// Runs all that is the vendor's once more, where it is timed, and holds the results against exact ones. Collective: it goes on
    /// where a result is wrong, since the other ranks wait for it.
    fn check_vendor(&self, places: &[Place]) -> Result<(), MeasureError> {
        let stream = self.rank.stream;
        let mut wrong = Ok(());
        let mut note = |held: Result<(), MeasureError>| match held {
            Err(error @ MeasureError::Wrong { .. }) => {
                if wrong.is_ok() {
                    wrong = Err(error);
                }
                Ok(())
            }
            other => other,
        };
        let gathers_first = self.plan.case.operation.gathers_first();
        for &place in places {
            for (of_product, of_result) in self.of_product.iter().zip(&self.of_result) {
                let set = of_product.set;
                let at = self.at(place, set);
                let (alone, both) = match place {
                    Place::Plain => (Item::Collective, Item::Sequence),
                    Place::Window => (Item::CollectiveWindow, Item::SequenceWindow),
                };
                // Each time from results that are no numbers, so that none of an earlier call can pass for one of this.
                let poison = || {
                    self.poison(at.product, self.plan.m * self.plan.n)?;
                    self.poison(at.receive, self.plan.receive)
                };
                poison()?;
                if gathers_first {
                    self.enqueue_collective(place, false, set, stream)?;
                    self.enqueue_product(place, set, stream)?;
                    note(self.hold(both, of_product, at.product))?;
                    continue;
                }
                self.enqueue_product(place, set, stream)?;
                note(self.hold(Item::Product, of_product, at.product))?;
                self.enqueue_collective(place, false, set, stream)?;
                note(self.hold(alone, of_result, at.receive))?;
                poison()?;
                self.enqueue_sequence(place, set, stream)?;
                let result = if self.in_place() { at.send } else { at.receive };
                note(self.hold(both, of_result, result))?;
            }
        }
        wrong
    }

    fn poison(&self, address: Raw, elements: usize) -> Result<(), MeasureError> {
        let bytes = elements * self.plan.case.dtype.bytes();
        if bytes == 0 {
            return Ok(());
        }
        let driver = Cuda::load()?;
        driver.bind(self.rank.device.ordinal())?;
        // SAFETY: a buffer of the plan's, of this size.
        unsafe { driver.fill(address, 0xff, bytes, self.rank.stream.raw()) }?;
        Ok(())
    }

    /// Waits for the stream, and compares.
    fn hold(&self, item: Item, samples: &Samples, result: Raw) -> Result<(), MeasureError> {
        self.rank.stream.synchronize()?;
        for sample in &samples.elements {
            let actual = self.element(result, sample.at)?;
            if !sample.accepts(actual) {
                return Err(MeasureError::Wrong {
                    rank: self.plan.rank,
                    what: item.name(),
                    set: samples.set,
                    row: sample.row,
                    column: sample.column,
                    actual,
                    expected: sample.expected,
                    bound: sample.bound,
                });
            }
        }
        Ok(())
    }

    /// Element `at` of a buffer of the plan's type that begins at `address`.
    fn element(&self, address: Raw, at: usize) -> Result<f64, MeasureError> {
        let size = self.plan.case.dtype.bytes();
        let mut bytes = [0u8; 4];
        let driver = Cuda::load()?;
        driver.bind(self.rank.device.ordinal())?;
        let from = address + (at * size) as Raw;
        let stream = self.rank.stream.raw();
        // SAFETY: the element lies in the buffer; the bytes outlive the copy, which is waited for.
        unsafe {
            driver.download(bytes.as_mut_ptr(), from, size, stream)?;
            driver.synchronize_stream(stream)?;
        }
        let [low, high, ..] = bytes;
        Ok(match self.plan.case.dtype {
            DType::F32 => f64::from(f32::from_le_bytes(bytes)),
            DType::F16 => f16::from_le_bytes([low, high]).to_f64(),
            DType::BF16 => bf16::from_le_bytes([low, high]).to_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_what_was_measured_counts() {
        let mut times = Times::default();
        assert_eq!((times.collective(), times.sequence()), (None, None));
        times.times = vec![
            (Item::Collective, vec![5.0, 7.0, 6.0]),
            (Item::Sequence, vec![20.0]),
            (Item::SequenceWindow, vec![18.0, 18.0]),
        ];
        assert_eq!(times.us(Item::Collective), Some(6.0));
        assert_eq!(times.us(Item::Fused), None);
        assert_eq!(times.collective(), Some(6.0));
        assert_eq!(times.sequence(), Some(18.0));
        times.times.push((Item::OurCollective, vec![4.0]));
        assert_eq!(times.collective(), Some(4.0));
    }
}
