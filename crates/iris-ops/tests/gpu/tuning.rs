//! Tables of what was measured, on GPUs: every program and tile that a table can ask for, one after the other in one workspace; and the
//! product by itself, in a graph and not.

use crate::support::{GpuWorld, threads};
use half::bf16;
use iris_heap::cuda::Cuda;
use iris_heap::device::RankStream;
use iris_kernels::Element;
use iris_ops::device::{Launch, Product};
use iris_ops::tuning::{Machine, Tuning, TuningRow};
use iris_ops::{MatrixMut, MatrixRef, OpError, Tile, Variant};
use iris_testkit::device::{Gpus, wanted};
use iris_testkit::random::{self, Tensor};
use iris_testkit::{Exercise, Failure, Number, Op, Operand, Reference, Tolerance, compare};
use std::sync::Arc;

const N: usize = 768;
const K: usize = 512;

/// A row for calls of up to so many rows of an all-reduce.
pub(crate) fn row(
    world: &GpuWorld,
    m: usize,
    variant: Variant,
    packets: bool,
    tile: Tile,
) -> TuningRow {
    let machine = Machine::of::<bf16, i32, _>(world);
    TuningRow {
        device: machine.device,
        ranks: world.size(),
        op: "matmul_all_reduce",
        gather: None,
        dtype: bf16::DTYPE,
        compiler: machine.compiler,
        m,
        n: N,
        k: K,
        variant,
        packets,
        tile: Some(tile),
        fused: true,
        streamed: None,
        us: 1.0,
    }
}

#[test]
fn whatever_a_table_asks_for_comes_out_right() {
    let Some(gpus) = Gpus::take("tuning::whatever", 1) else {
        return;
    };
    for ranks in [1, 2, 4].into_iter().filter(|&ranks| wanted(ranks)) {
        threads(ranks, &gpus, |world| {
            let hopper = world.device().info().architecture.starts_with("sm_90");
            // Elsewhere there are wider ones alone.
            let tile = |m, n| Tile {
                m,
                n: if hopper { n } else { n.max(128) },
            };
            let table = Tuning::new([
                row(world, 4, Variant::TwoShot, false, tile(64, 64)),
                row(world, 16, Variant::OneShot, true, tile(64, 128)),
                TuningRow {
                    fused: false,
                    ..row(world, 20, Variant::OneShot, true, tile(64, 64))
                },
                row(world, 70, Variant::OneShot, false, tile(128, 64)),
                row(world, 150, Variant::TwoShot, true, tile(64, 64)),
                row(world, 200, Variant::OneShot, true, tile(128, 128)),
                TuningRow {
                    fused: false,
                    ..row(world, 300, Variant::TwoShot, false, tile(128, 128))
                },
                row(world, 500, Variant::TwoShot, false, tile(128, 256)),
            ]);
            let calls = [3, 16, 500, 64, 4, 200, 17, 1, 150, 300, 15, 70, 201, 71].repeat(4);
            let any = Tile { m: 128, n: 128 };
            let mut exercise = Exercise::new(Op::AllReduce(Variant::Auto), (N, K), any, calls);
            exercise.config.tile = None;
            exercise.config.budget = crate::support::budget();
            exercise.config = exercise.config.tuning(Arc::new(table));
            exercise.run_at_once::<bf16, i32, Cuda>(world)?;
            exercise.transposed = true;
            exercise.run_at_once::<bf16, i32, Cuda>(world)?;
            Ok(())
        });
    }
}

/// A product and the operation on what it has left, in turn with fused calls, with a bias, in a workspace that is used again and again.
#[test]
fn calls_that_are_not_fused_come_out_right() {
    let Some(gpus) = Gpus::take("tuning::unfused", 1) else {
        return;
    };
    for ranks in [1, 2, 3].into_iter().filter(|&ranks| wanted(ranks)) {
        for (op, name, variant) in [
            (
                Op::AllReduce(Variant::Auto),
                "matmul_all_reduce",
                Variant::TwoShot,
            ),
            (Op::ReduceScatter, "matmul_reduce_scatter", Variant::Auto),
            (Op::MatmulAllGather, "matmul_all_gather", Variant::Auto),
        ] {
            threads(ranks, &gpus, |world| {
                // Few rows of a reduce-scatter in packets, fused and not.
                let packets = op == Op::ReduceScatter;
                let of = |m, fused, packets| TuningRow {
                    op: name,
                    fused,
                    tile: None,
                    ..row(world, m, variant, packets, Tile { m: 0, n: 0 })
                };
                let table = Tuning::new([
                    of(2, false, packets),
                    of(64, true, packets),
                    of(300, false, false),
                ]);
                let calls = [300, 2, 64, 1, 200, 65, 3, 299].repeat(3);
                let any = Tile { m: 128, n: 128 };
                let mut exercise = Exercise::new(op, (N, K), any, calls);
                exercise.config.tile = None;
                exercise.config.bias = true;
                exercise.config.plain_output = true;
                exercise.config.budget = crate::support::budget();
                exercise.config = exercise.config.tuning(Arc::new(table));
                exercise.run_at_once::<bf16, i32, Cuda>(world)?;
                Ok(())
            });
        }
    }
}

/// `C = A B`, twice, the second time in a graph; B stored row by row, or as its transpose.
fn multiply<T: Element + Number>(
    world: &GpuWorld,
    [m, n, k]: [usize; 3],
    transposed: bool,
) -> Result<(), Failure> {
    let values_a = random::uniform::<T>(7, 0, 0, Tensor::A, m * k);
    let values_b = random::uniform::<T>(7, 0, 0, Tensor::B, k * n);
    let (a, b) = (world.plain_buffer(m * k)?, world.plain_buffer(k * n)?);
    let c = world.plain_buffer::<T>(m * n)?;
    a.upload(0, &values_a)?;
    b.upload(0, &values_b)?;
    let of_b = Operand::row_major(
        &values_b,
        if transposed { n } else { k },
        if transposed { k } else { n },
    )?;
    let of_b = if transposed { of_b.transposed() } else { of_b };
    let reference = Reference::product(Operand::row_major(&values_a, m, k)?, of_b, None)?;
    let stream = RankStream::new(world)?;
    let mut product = Product::<T, Cuda>::new(world, m, k, n)?;
    let call = |product: &Product<T, Cuda>| {
        let b = match transposed {
            true => MatrixRef::new(&b, n, k).transposed(),
            false => MatrixRef::new(&b, k, n),
        };
        product.call(
            &stream,
            MatrixRef::new(&a, m, k),
            b,
            MatrixMut::new(&c, m, n),
        )
    };
    for captured in [false, true] {
        c.upload(0, &vec![<T as Element>::NAN; m * n])?;
        if captured {
            let graph = stream.capture(|| call(&product))?;
            // It is not launched without what it calls.
            let without = graph.launch(&stream, &mut []);
            assert!(matches!(without, Err(OpError::Graph { missing: 1, .. })));
            graph.launch(&stream, &mut [&mut product])?;
            stream.synchronize()?;
        } else {
            call(&product)?;
            stream.synchronize()?;
        }
        let comparison = compare(&c.download()?, &reference, &Tolerance::of::<T>(k, 1))?;
        if !comparison.ok {
            return Err(format!("{m} x {n} x {k}, {transposed} {captured}: {comparison:?}").into());
        }
    }
    Ok(())
}

#[test]
fn the_product_by_itself_is_right() {
    let Some(gpus) = Gpus::take("tuning::product", 1) else {
        return;
    };
    threads(1, &gpus, |world| {
        for sizes in [
            [1, 512, 256],
            [64, 768, 1024],
            [300, 640, 512],
            [517, 1024, 768],
            // Not in steps of 16 bytes.
            [13, 17, 19],
            [130, 301, 77],
        ] {
            for transposed in [false, true] {
                multiply::<bf16>(world, sizes, transposed)?;
                multiply::<f32>(world, sizes, transposed)?;
            }
        }
        assert!(matches!(
            Product::<f32, Cuda>::new(world, 3, 0, 2),
            Err(OpError::Empty { field: "depth", .. })
        ));
        Ok(())
    });
}
