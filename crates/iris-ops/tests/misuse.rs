//! What safe code may do against all sense: it gets an error, and nothing that is another's is touched.

use iris_heap::{Buffer, Stream, World, WorldConfig};
use iris_ops::tuning::{Tuning, TuningRow};
use iris_ops::unfused::Product;
use iris_ops::{
    DType, FusedConfig, MatmulAllReduce, MatrixMut, MatrixRef, OpError, Tile, Variant, shard,
};
use iris_sync::Phase;
use iris_testkit::{ChosenStall, Failure, worlds};
use std::sync::Arc;
use std::time::Duration;

const M: usize = 4;
const N: usize = 6;
const K: usize = 8;

fn config() -> WorldConfig {
    WorldConfig {
        heap_bytes: 16 << 20,
        timeout: Duration::from_secs(20),
    }
}

/// A rank's operands: of ones, and a result that every rank can tell.
struct Operands {
    depth: usize,
    a: Buffer<f32>,
    b: Buffer<f32>,
    c: Buffer<f32>,
}

impl Operands {
    fn new(world: &World) -> Result<Self, Failure> {
        let depth = shard(K, world.size(), world.rank()).len();
        let a = world.buffer(M * depth);
        let b = world.buffer(depth * N);
        a.fill(0.5);
        b.fill(3.0);
        Ok(Self {
            depth,
            a,
            b,
            c: world.symmetric_buffer(M * N)?,
        })
    }

    fn call(&self, bound: &mut iris_ops::Bound<'_, f32>) -> Result<(), OpError> {
        let a = MatrixRef::new(&self.a, M, self.depth);
        let b = MatrixRef::new(&self.b, self.depth, N);
        bound.call(M, a, b, None, MatrixMut::new(&self.c, M, N))
    }
}

fn still_bound() -> OpError {
    OpError::StillBound {
        operation: "matmul_all_reduce",
        rank: 1,
    }
}

/// Whoever forgets what binds an operation has calls under way of which nobody knows the end: nothing is done that relies on it.
#[test]
fn an_operation_whose_binding_was_forgotten_is_neither_freed_nor_reset_nor_bound() {
    for way in ["free", "reset", "bind"] {
        worlds::threads(2, &config(), |world| {
            let operands = Operands::new(world)?;
            let mut op = MatmulAllReduce::<f32>::new(world, FusedConfig::new(M, N, K))?;
            let stream = Stream::new(world)?;
            stream.host_fn(|| std::thread::sleep(Duration::from_millis(200)));
            let mut bound = op.bind(&stream)?;
            operands.call(&mut bound)?;
            // One rank's mistake is enough.
            if world.rank() == 1 {
                std::mem::forget(bound);
            } else {
                drop(bound);
            }
            let own = world.rank() == 1;
            let result = match way {
                "free" => op.free(),
                "reset" => op.reset(),
                // Not collective, so the other rank has nothing to hear of.
                _ if own => op.bind(&Stream::new(world)?).map(drop),
                _ => Err(still_bound()),
            };
            let error = result.expect_err(way);
            if own {
                assert!(
                    matches!(error, OpError::StillBound { rank: 1, .. }),
                    "{error}"
                );
            }
            assert!(error.to_string().contains("rank 1"), "{error}");
            // What was called is right all the same, and lies nowhere else.
            let other = world.symmetric_buffer::<u32>(1 << 16)?;
            stream.synchronize()?;
            world.barrier()?;
            assert!(other.read().iter().all(|&it| it == 0));
            assert!(operands.c.read().iter().all(|&it| it == 1.5 * K as f32));
            Ok(String::new())
        })
        .unwrap();
    }
}

/// A product of no depth has the call's shape, whatever shape a matrix without elements was given in.
#[test]
fn an_empty_matrix_of_another_shape_makes_no_larger_product() {
    let row = TuningRow {
        device: "host".to_owned(),
        ranks: 2,
        op: "matmul_all_reduce",
        gather: None,
        dtype: DType::F32,
        compiler: "any".to_owned(),
        m: M,
        n: N,
        k: 1,
        variant: Variant::TwoShot,
        packets: false,
        tile: None,
        fused: false,
        streamed: None,
        us: 1.0,
    };
    let table = Arc::new(Tuning::new([row]));
    worlds::threads(2, &config(), |world| {
        let depth = shard(1, 2, world.rank()).len();
        let c = world.symmetric_buffer::<f32>(M * N)?;
        let asked = FusedConfig::new(M, N, 1).tuning(Arc::clone(&table));
        let mut op = MatmulAllReduce::<f32>::new(world, asked)?;
        assert!(op.plan(M).is_some_and(|plan| !plan.fused));
        let other = world.symmetric_buffer::<f32>(1 << 20)?;
        other.fill(7.0);
        let (a, b) = (
            world.buffer::<f32>(M * depth),
            world.buffer::<f32>(depth * N),
        );
        a.fill(2.0);
        b.fill(4.0);
        let stream = Stream::new(world)?;
        let mut bound = op.bind(&stream)?;
        let (rows, cols) = if depth == 0 { (1000, 1000) } else { (M, N) };
        let a = MatrixRef::new(&a, rows, depth);
        let b = MatrixRef::new(&b, depth, cols);
        bound.call(M, a, b, None, MatrixMut::new(&c, M, N))?;
        drop(bound);
        stream.synchronize()?;
        assert!(other.read().iter().all(|&it| it == 7.0));
        assert!(c.read().iter().all(|&it| it == 8.0));
        Ok(String::new())
    })
    .unwrap();
}

#[test]
fn sizes_that_nothing_can_have_are_an_error() {
    for (rows, depth, cols) in [
        (4, usize::MAX / 2 + 1, 1),
        (1 << 62, 1, 4),
        (1 << 33, 1, 1 << 33),
    ] {
        let made = Product::<f32>::new(rows, depth, cols);
        assert!(
            matches!(made, Err(OpError::TooLarge { .. })),
            "{rows} {depth} {cols}"
        );
    }
    worlds::threads(2, &config(), |world| {
        for variant in [Variant::Spinlock, Variant::OneShot, Variant::TwoShot] {
            let side = 1 << 31;
            let asked = FusedConfig::new(side, side, 1).variant(variant);
            let made = MatmulAllReduce::<f32>::new(world, asked.tile(Tile { m: 1, n: 1 }));
            assert!(matches!(made, Err(OpError::TooLarge { .. })), "{variant:?}");
        }
        Ok(String::new())
    })
    .unwrap();
}

/// A rank that comes to store a tile when a peer has left the call stores it nowhere: the peer may use its output again.
#[test]
fn nothing_is_stored_for_a_peer_that_has_left() {
    let stall = ChosenStall {
        ranks: vec![0],
        calls: vec![],
        phases: vec![Phase::Store],
        tiles: vec![],
        duration: Duration::from_millis(1500),
    };
    let stall = Arc::new(stall);
    worlds::threads(2, &config(), |world| {
        let operands = Operands::new(world)?;
        let asked = FusedConfig::new(M, N, K)
            .variant(Variant::TwoShot)
            .tile(Tile { m: 2, n: N })
            .budget(Duration::from_millis(300))
            .probe(Arc::clone(&stall) as _);
        let mut op = MatmulAllReduce::<f32>::new(world, asked)?;
        let stream = Stream::new(world)?;
        let mut bound = op.bind(&stream)?;
        operands.call(&mut bound)?;
        drop(bound);
        let faulted = stream.synchronize();
        assert!(faulted.is_err());
        operands.c.fill(7.0);
        world.barrier()?;
        assert!(operands.c.read().iter().all(|&it| it == 7.0));
        op.reset()?;
        Ok(String::new())
    })
    .unwrap();
}
