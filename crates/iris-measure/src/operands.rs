//! The buffers of a comparison: several sets, so that a call's weights are in no cache.

use iris_heap::World;
use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, Driver, Memory, Raw, Stream};

use crate::case::Plan;
use crate::error::MeasureError;
use crate::kernels::Kernels;
use crate::meeting::together;
use crate::nccl::{Communicator, Window};
use crate::random::{Draw, Matrix};

/// Between two uses of a set, at least so much of other sets is used: more than twice the largest cache of a GPU in use, 50 MiB
/// on Hopper.
const COLD_BYTES: usize = 128 << 20;
/// But no more sets than this.
const MOST_SETS: usize = 64;
/// What addresses are a multiple of.
const ALIGN: usize = 256;

/// Where the buffers of one set lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// This rank's part of A.
    pub a: Raw,
    /// This rank's part of B.
    pub b: Raw,
    /// What the vendor's collective sends: what the product makes, or this rank's part of A.
    pub send: Raw,
    /// What the vendor's collective receives: the result, or what the product takes as A.
    pub receive: Raw,
    /// What the vendor's product makes.
    pub product: Raw,
}

/// One set's memory.
#[derive(Debug)]
struct Set {
    /// This rank's part of A, where a product comes first. Where a collective does, that is what it sends.
    a: Memory<Cuda>,
    b: Memory<Cuda>,
    send: Memory<Cuda>,
    receive: Memory<Cuda>,
    /// What the product makes, where a collective comes first.
    product: Memory<Cuda>,
}

/// All sets of one rank, filled with random numbers.
#[derive(Debug)]
pub struct Operands<'a> {
    gathers_first: bool,
    sets: Vec<Set>,
    /// What the collective sends and receives once more, set after set, registered with NCCL.
    window: Option<Window<'a>>,
    /// The bytes of a set in the window, and of what is sent.
    in_window: [usize; 2],
}

/// How many sets a case needs. The same on all ranks.
pub(crate) fn sets(plan: &Plan) -> Result<usize, MeasureError> {
    // Rank 0 has the largest part of everything.
    let bytes = Plan::new(plan.case, plan.world, 0)?.product_bytes();
    let others = COLD_BYTES.div_ceil(bytes.max(1));
    Ok((others + 1).clamp(2, MOST_SETS))
}

impl<'a> Operands<'a> {
    /// The sets that a plan needs; without a communicator only what ours take: A and B. Collective.
    pub(crate) fn new(
        world: &World,
        device: &Device<Cuda>,
        stream: &Stream<Cuda>,
        kernels: &Kernels,
        communicator: Option<&'a Communicator>,
        plan: &Plan,
        seed: u64,
    ) -> Result<Self, MeasureError> {
        let count = sets(plan)?;
        let bytes = |elements: usize| elements * plan.case.dtype.bytes();
        let gathers_first = plan.case.operation.gathers_first();
        let memory = |elements: usize| Memory::new(device, bytes(elements));
        let of_vendor = |elements: usize| match communicator {
            Some(_) => elements,
            None => 0,
        };
        let in_window = [
            (bytes(plan.send).next_multiple_of(ALIGN)
                + bytes(plan.receive).next_multiple_of(ALIGN)),
            bytes(plan.send).next_multiple_of(ALIGN),
        ];
        let sets = (0..count)
            .map(|_| {
                Ok::<_, MeasureError>(Set {
                    a: memory(if gathers_first { 0 } else { plan.a.len() })?,
                    b: memory(plan.b.len())?,
                    send: memory(match gathers_first {
                        true => plan.send,
                        false => of_vendor(plan.send),
                    })?,
                    receive: memory(of_vendor(plan.receive))?,
                    product: memory(match gathers_first {
                        true => of_vendor(plan.m * plan.n),
                        false => 0,
                    })?,
                })
            })
            .collect::<Result<_, _>>();
        let sets = together(world, "allocating operands", sets)?;
        let operands = Self {
            gathers_first,
            sets,
            window: match communicator {
                Some(communicator) => communicator.window(count * in_window[0])?,
                None => None,
            },
            in_window,
        };
        for set in 0..count {
            let case = &plan.case;
            let a = Draw::new(seed, set, Matrix::A, case.k, case.dtype);
            let b = Draw::new(seed, set, Matrix::B, case.n, case.dtype);
            let plain = operands.plain(set);
            let memory = &operands.sets[set];
            // Padding is given to collectives, too: zeros, lest it be whatever was there.
            if !memory.send.is_empty() {
                stream.fill(&memory.send, 0, memory.send.len(), 0)?;
            }
            a.fill(kernels, stream, plain.a, &plan.a)?;
            b.fill(kernels, stream, plain.b, &plan.b)?;
            if let Some(windowed) = operands.windowed(set) {
                let driver = Cuda::load()?;
                driver.bind(device.ordinal())?;
                // SAFETY: the range is the set's own in the window.
                unsafe { driver.fill(windowed.send, 0, in_window[0], stream.raw()) }?;
                if gathers_first {
                    a.fill(kernels, stream, windowed.send, &plan.a)?;
                }
            }
        }
        stream.synchronize()?;
        Ok(operands)
    }

    /// How many sets there are.
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Set `set`, on plain memory.
    ///
    /// # Panics
    /// Where there is no such set.
    pub fn plain(&self, set: usize) -> Addresses {
        let set = &self.sets[set];
        self.addresses(set, set.send.address(), set.receive.address())
    }

    /// Set `set`, with what the collective sends and receives in a registered window; none where there is no window.
    ///
    /// # Panics
    /// Where there is no such set.
    pub fn windowed(&self, set: usize) -> Option<Addresses> {
        let window = self.window.as_ref()?;
        let [both, sent] = self.in_window.map(|bytes| bytes as Raw);
        let send = window.address() + set as Raw * both;
        Some(self.addresses(&self.sets[set], send, send + sent))
    }

    fn addresses(&self, set: &Set, send: Raw, receive: Raw) -> Addresses {
        let (a, product) = if self.gathers_first {
            (send, set.product.address())
        } else {
            (set.a.address(), send)
        };
        Addresses {
            a,
            b: set.b.address(),
            send,
            receive,
            product,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, Operation, Storage};
    use iris_kernels::DType;

    #[test]
    fn there_are_enough_sets_to_leave_no_weight_in_a_cache() {
        let of = |m, n, k| {
            let case = Case {
                operation: Operation::MatmulAllReduce,
                m,
                n,
                k,
                dtype: DType::BF16,
                b: Storage::Rows,
                tf32: false,
            };
            let plan = Plan::new(case, 4, 3).unwrap();
            let bytes = Plan::new(case, 4, 0).unwrap().product_bytes();
            (sets(&plan).unwrap(), bytes)
        };
        for (m, n, k) in [
            (16, 8192, 4 * 3584),
            (8192, 8192, 4 * 8192),
            (1, 4096, 4096),
        ] {
            let (sets, bytes) = of(m, n, k);
            assert!(sets >= 2 && (sets - 1) * bytes >= COLD_BYTES, "{m} {n} {k}");
        }
        assert_eq!(of(8192, 8192, 4 * 8192).0, 2);
        assert_eq!(of(1, 8, 8).0, MOST_SETS);
    }
}
