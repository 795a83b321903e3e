//! A world of ranks on one arena: the programs' real code on real memory, without the layers above.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

use iris_kernels::host::{
    Accumulators, Input, Needs, Operands, Output, Program, Rank, Scratch, Shape, Staging,
};
use iris_kernels::{Element, Tile, View, ViewMut};
use iris_sync::{Fault, Layout, Mapped, Port, Probe, Rules, Signal, Waiting, Word};
use rand::{RngExt, SeedableRng};
use std::sync::Arc;

/// What a world runs.
#[derive(Clone)]
pub struct Case {
    pub program: Program,
    pub world: usize,
    /// The rows of each call.
    pub calls: Vec<usize>,
    pub n: usize,
    pub k: usize,
    pub tile: Tile,
    pub first: i64,
    pub rules: Rules,
    pub probe: Option<Arc<dyn Probe>>,
    pub seed: u64,
}

impl Case {
    pub fn new(program: Program, world: usize, calls: &[usize], n: usize, k: usize) -> Self {
        Self {
            program,
            world,
            calls: calls.to_vec(),
            n,
            k,
            tile: Tile { m: 2, n: 2 },
            first: 1,
            rules: Rules::ALL,
            probe: None,
            seed: 0,
        }
    }
}

/// Everything the ranks of a case share: one heap a rank.
pub struct Arena {
    case: Case,
    shape: Shape,
    layout: Layout,
    staging: Staging,
    accumulators: Accumulators,
    output: usize,
    /// Each rank's heap. The boxes do not move, and are only accessed through these pointers.
    heaps: Vec<*mut u64>,
    bytes: usize,
}

// SAFETY: the heaps are raw memory that the protocol shares out.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Drop for Arena {
    fn drop(&mut self) {
        for &heap in &self.heaps {
            // SAFETY: made by `Box::into_raw` of a slice of this length below; all ranks have ended.
            drop(unsafe {
                Box::from_raw(std::ptr::slice_from_raw_parts_mut(heap, self.bytes / 8))
            });
        }
    }
}

impl Arena {
    pub fn new<T: Element, W: Word>(case: Case) -> Self {
        let shape = Shape {
            n: case.n,
            k: case.k,
            tile: case.tile,
        };
        let m = case.calls.iter().copied().max().unwrap_or(1);
        let needs: Needs = case.program.needs(m, shape, case.world);
        let layout = Layout::new(case.world, needs.slots, needs.locks);
        let mut end = Mapped::<W>::bytes(layout).next_multiple_of(64);
        let staging = Staging::new(end, needs.slots, needs.slot_elements * size_of::<T>());
        end += staging.bytes(case.world).unwrap();
        let accumulators = Accumulators {
            offset: end,
            elements: needs.accumulators,
        };
        end += accumulators.bytes().unwrap();
        let output = end.next_multiple_of(64);
        let bytes = (output + m * case.n * size_of::<T>()).next_multiple_of(8);
        let heaps = (0..case.world)
            .map(|_| Box::into_raw(vec![0u64; bytes / 8].into_boxed_slice()).cast::<u64>())
            .collect();
        Self {
            case,
            shape,
            layout,
            staging,
            accumulators,
            output,
            heaps,
            bytes,
        }
    }

    /// The whole A or B of one call: small integers, so that sums are exact in every order.
    fn whole(&self, call: usize, tensor: u64, len: usize) -> Vec<f32> {
        let seed = self.case.seed ^ ((call as u64) << 8) ^ (tensor << 40);
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        (0..len)
            .map(|_| random.random_range(-3i8..=3) as f32)
            .collect()
    }

    /// All calls of one rank. `check` is given each call's number, the right rows and what the rank got, right after the call.
    pub fn run<T: Element, W: Word>(
        &self,
        me: usize,
        waiting: impl Waiting + Copy,
        mut check: impl FnMut(usize, &[f32], &[f32]),
    ) -> Result<(), Fault> {
        let case = &self.case;
        let (program, world, shape) = (case.program, case.world, self.shape);
        let heap: Vec<*mut u8> = self.heaps.iter().map(|heap| heap.cast()).collect();
        // SAFETY: the words lie at the start of each heap, which is zeroed, large enough and outlives the ranks.
        let memory = unsafe { Mapped::<W>::new(me, self.layout, &heap) };
        let mut port = Port::new(program.operation(), memory, waiting);
        port.first = Signal::new(case.first).unwrap();
        port.rules = case.rules;
        port.probe = case.probe.as_deref();
        let rank = Rank {
            port,
            heap: &heap,
            shape,
            staging: self.staging,
            accumulators: self.accumulators,
        };
        let largest = case.calls.iter().copied().max().unwrap_or(1);
        let mut scratch: Scratch = program.scratch(T::DTYPE, largest, shape, world, me);
        for (call, &m) in case.calls.iter().enumerate() {
            let whole_a = self.whole(call, 1, m * case.k);
            let whole_b = self.whole(call, 2, case.k * case.n);
            let whole_bias = self.whole(call, 3, case.n);
            let parts = program.parts(m, shape, world, me);
            let cut = |from: &[f32],
                       width: usize,
                       rows: &std::ops::Range<usize>,
                       cols: &std::ops::Range<usize>| {
                rows.clone()
                    .flat_map(|row| cols.clone().map(move |col| (row, col)))
                    .map(|(row, col)| T::from_f32(from[row * width + col]))
                    .collect::<Vec<T>>()
            };
            let a = cut(&whole_a, case.k, &parts.a.0, &parts.a.1);
            let b = cut(&whole_b, case.n, &parts.b.0, &parts.b.1);
            let bias = cut(&whole_bias, case.n, &(0..1), &parts.c.1);
            let (rows, cols) = (parts.c.0.len(), parts.c.1.len());
            let symmetric = program.stores_to_peers();
            let mut plain = vec![T::NAN; rows * cols];
            let c = if symmetric {
                let c = heap[me].wrapping_add(self.output).cast::<T>();
                // SAFETY: the output lies inside the heap, and is this rank's until it enters the call.
                unsafe { std::slice::from_raw_parts_mut(c, rows * cols) }.fill(T::NAN);
                c
            } else {
                plain.as_mut_ptr()
            };
            let view = |data: &[T], cols: usize, rows: usize| View {
                data: data.as_ptr(),
                rows,
                cols,
                row_stride: cols,
                col_stride: 1,
            };
            let operands = Operands {
                m,
                input: Input::Product {
                    a: view(&a, parts.a.1.len(), parts.a.0.len()),
                    b: view(&b, parts.b.1.len(), parts.b.0.len()),
                },
                bias: Some(bias.as_ptr()),
                c: ViewMut {
                    data: c,
                    rows,
                    cols,
                    row_stride: cols,
                },
                output: Output {
                    offset: self.output,
                    row_stride: cols,
                    bounced: false,
                },
            };
            // SAFETY: the operands live until the call returns, all ranks run this same loop, and the arena was laid out by
            // `needs` for the largest m.
            unsafe { program.run(&rank, &operands, &mut scratch) }?;
            // SAFETY: the call has ended; the output is this rank's again.
            let got: Vec<f32> = unsafe { std::slice::from_raw_parts(c, rows * cols) }
                .iter()
                .map(|value| value.to_f32())
                .collect();
            let right: Vec<f32> = parts
                .c
                .0
                .clone()
                .flat_map(|row| parts.c.1.clone().map(move |col| (row, col)))
                .map(|(row, col)| {
                    let sum: f32 = (0..case.k)
                        .map(|k| whole_a[row * case.k + k] * whole_b[k * case.n + col])
                        .sum();
                    sum + whole_bias[col]
                })
                .collect();
            check(call, &right, &got);
        }
        Ok(())
    }
}
