//! A two-layer perceptron, tensor-parallel and sequence-parallel, as in a transformer: its tokens are split among the ranks before
//! and after, its features in between.
//!
//! ```text
//! x (its tokens, H) --all_gather_matmul--> h = relu(x W1^T + b1), (all tokens, its features)
//!                   --matmul_reduce_scatter--> y = h W2^T + b2, (its tokens, H)
//! ```
//!
//! The weights are stored `(out_features, in_features)`, as checkpoints store them, and are used as they lie. The number of
//! tokens differs from step to step, as an engine's batch does; all steps are enqueued at once, and waited for once.
//!
//! ```text
//! cargo run --example tensor_parallel_mlp
//! ```

use iris::heap::{Buffer, Stream, World, WorldConfig};
use iris::ops::{AllGatherMatmul, FusedConfig, MatmulReduceScatter, MatrixMut, MatrixRef, shard};
use iris_testkit::random::uniform;
use iris_testkit::{Operand, Reference, Tensor, Tolerance, compare};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

type Failure = Box<dyn Error + Send + Sync>;

const RANKS: usize = 3;
/// Features outside, and inside.
const OUTER: usize = 40;
const INNER: usize = 100;
/// The tokens of each step: also fewer than ranks.
const TOKENS: [usize; 6] = [32, 5, 1, 32, 17, 2];
const MOST_TOKENS: usize = 32;

/// The whole model, of which each rank takes its part.
struct Model {
    /// (INNER, OUTER)
    w1: Vec<f32>,
    b1: Vec<f32>,
    /// (OUTER, INNER)
    w2: Vec<f32>,
    b2: Vec<f32>,
}

/// The whole input of a step.
fn input(step: usize) -> Vec<f32> {
    uniform(1, 0, step as u64, Tensor::A, TOKENS[step] * OUTER)
}

/// What a rank has of a step when it is over: its features of h, all tokens; its tokens of y.
type Part = (Vec<f32>, Vec<f32>);

fn filled(world: &World, values: &[f32]) -> Result<Buffer<f32>, Failure> {
    let buffer = world.buffer(values.len());
    buffer.write(0, values)?;
    Ok(buffer)
}

fn rank(world: &World, model: &Model) -> Result<Vec<Part>, Failure> {
    let (size, rank) = (world.size(), world.rank());
    let features = shard(INNER, size, rank);
    let width = features.len();
    // Its features are rows of W1, which lie together, and columns of W2, which do not: a view of the whole serves.
    let w1 = filled(
        world,
        &model.w1[features.start * OUTER..features.end * OUTER],
    )?;
    let b1 = filled(world, &model.b1[features.clone()])?;
    let w2 = filled(world, &model.w2)?;
    let b2 = filled(world, &model.b2)?;
    let w1 = MatrixRef::new(&w1, width, OUTER).transposed();
    let w2 = MatrixRef::strided(&w2, features.start, OUTER, width, INNER, 1).transposed();

    let most = shard(MOST_TOKENS, size, 0).len();
    let x = world.buffer::<f32>(most * OUTER);
    let h = world.buffer::<f32>(MOST_TOKENS * width);
    let y = world.buffer::<f32>(most * OUTER);

    let config = |n, k| FusedConfig::new(MOST_TOKENS, n, k).bias(true);
    let mut up = AllGatherMatmul::<f32>::new(world, config(INNER, OUTER))?;
    let mut down = MatmulReduceScatter::<f32>::new(world, config(OUTER, INNER))?;
    let stream = Stream::new(world)?;
    let (mut up, mut down) = (up.bind(&stream)?, down.bind(&stream)?);

    let parts = Arc::new(Mutex::new(Vec::new()));
    for (step, &m) in TOKENS.iter().enumerate() {
        let tokens = shard(m, size, rank);
        let count = tokens.len();
        let given = input(step)[tokens.start * OUTER..tokens.end * OUTER].to_vec();
        let to = x.clone();
        stream.host_fn(move || to.write(0, &given).expect("x has room for all tokens"));

        let (x, h_out) = (
            MatrixRef::new(&x, count, OUTER),
            MatrixMut::new(&h, m, width),
        );
        up.call(m, x, w1, Some(&b1), h_out)?;

        let activated = h.clone();
        stream.host_fn(move || {
            let values: Vec<f32> = activated.read().into_iter().map(|v| v.max(0.0)).collect();
            activated.write(0, &values).expect("as many as before");
        });

        let (h_in, y_out) = (
            MatrixRef::new(&h, m, width),
            MatrixMut::new(&y, count, OUTER),
        );
        down.call(m, h_in, w2, Some(&b2), y_out)?;

        // Behind the call in the stream, and before the next: x, h and y are used again.
        let (h, y, parts) = (h.clone(), y.clone(), Arc::clone(&parts));
        stream.host_fn(move || {
            let (mut h, mut y) = (h.read(), y.read());
            h.truncate(m * width);
            y.truncate(count * OUTER);
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.push((h, y));
        });
    }
    stream.synchronize()?;
    let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut parts))
}

/// Holds all ranks' parts of a step against f64 references of each layer.
fn check(step: usize, parts: &[&Part], model: &Model) -> Result<f64, Failure> {
    let m = TOKENS[step];
    let mut h = vec![f32::NAN; m * INNER];
    for (rank, (part, _)) in parts.iter().enumerate() {
        let features = shard(INNER, RANKS, rank);
        for (row, values) in part.chunks(features.len().max(1)).enumerate() {
            h[row * INNER..][features.clone()].copy_from_slice(values);
        }
    }
    let y: Vec<f32> = parts.iter().flat_map(|(_, y)| y).copied().collect();

    let x = input(step);
    let first = Reference::product(
        Operand::row_major(&x, m, OUTER)?,
        Operand::row_major(&model.w1, INNER, OUTER)?.transposed(),
        Some(&model.b1),
    )?;
    // A rectifier brings no two values further apart, so an activation may be off by what its argument may.
    let tolerance = Tolerance::of::<f32>(OUTER, 0);
    let sums = first.values().iter().zip(first.magnitude());
    for (at, (&h, (&sum, &magnitude))) in h.iter().zip(sums).enumerate() {
        let error = (f64::from(h) - sum.max(0.0)).abs();
        if error.is_nan() || error > tolerance.bound(sum, magnitude) {
            return Err(format!("step {step}: h[{at}] is {h}, not {}", sum.max(0.0)).into());
        }
    }

    let second = Reference::product(
        Operand::row_major(&h, m, INNER)?,
        Operand::row_major(&model.w2, OUTER, INNER)?.transposed(),
        Some(&model.b2),
    )?;
    let compared = compare(&y, &second, &Tolerance::of::<f32>(INNER, RANKS))?;
    match compared.worst {
        Some(worst) if !compared.ok => Err(format!("step {step}: y: {worst:?}").into()),
        _ => Ok(compared.rel_err),
    }
}

fn main() -> Result<(), Failure> {
    let weights = |call, tensor, len| uniform(2, 0, call, tensor, len);
    let model = Model {
        w1: weights(1, Tensor::B, INNER * OUTER),
        b1: weights(1, Tensor::Bias, INNER),
        w2: weights(2, Tensor::B, OUTER * INNER),
        b2: weights(2, Tensor::Bias, OUTER),
    };
    let config = WorldConfig {
        heap_bytes: 16 << 20,
        ..WorldConfig::default()
    };
    let ranks = World::threads(RANKS, &config, |world| rank(&world, &model))?
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    for (step, tokens) in TOKENS.iter().enumerate() {
        let parts: Vec<&Part> = ranks.iter().map(|steps| &steps[step]).collect();
        let error = check(step, &parts, &model)?;
        println!(
            "step {step}, {tokens} tokens on {RANKS} ranks: right, relative error {error:.1e}"
        );
    }
    Ok(())
}
