//! A fused product and all-reduce over 4 ranks, called with a different number of rows each time, and checked.
//!
//! ```text
//! cargo run --example all_reduce                            4 ranks, threads of this process
//! mpirun -n 3 target/debug/examples/all_reduce              3 ranks, processes of mpirun (or torchrun, or srun)
//! ```

use iris::heap::{Launch, Stream, World, WorldConfig};
use iris::ops::{FusedConfig, MatmulAllReduce, MatrixMut, MatrixRef, shard};
use std::error::Error;

/// The largest number of rows, and the sizes of the whole problem. Nothing has to be divisible by anything.
const M: usize = 24;
const N: usize = 300;
const K: usize = 70;
/// The rows of each call.
const ROWS: [usize; 5] = [24, 7, 1, 24, 13];

/// Element (i, j) of the whole A and B: small integers, so that f32 sums are exact.
fn a(i: usize, j: usize) -> f32 {
    (i * 3 + j * 5) as f32 % 7.0 - 3.0
}
fn b(i: usize, j: usize) -> f32 {
    (i * 2 + j) as f32 % 5.0 - 2.0
}

/// What every rank does. It returns what it has to say.
fn rank(world: &World) -> Result<String, Box<dyn Error + Send + Sync>> {
    // A rank has some of the columns of A, and the same rows of B. Ranks may have more or less than others, or nothing.
    let depth = shard(K, world.size(), world.rank());
    let part_of_a: Vec<f32> = (0..M)
        .flat_map(|i| depth.clone().map(move |j| a(i, j)))
        .collect();
    let part_of_b: Vec<f32> = depth
        .clone()
        .flat_map(|i| (0..N).map(move |j| b(i, j)))
        .collect();
    let (a_buffer, b_buffer) = (world.buffer(part_of_a.len()), world.buffer(part_of_b.len()));
    a_buffer.write(0, &part_of_a)?;
    b_buffer.write(0, &part_of_b)?;
    // Outputs that peers store into lie in the symmetric heap. One for each call, to look at them all in the end.
    let outputs = ROWS
        .iter()
        .map(|rows| world.symmetric_buffer::<f32>(rows * N))
        .collect::<Result<Vec<_>, _>>()?;

    // Made once, by all ranks together.
    let mut op = MatmulAllReduce::<f32>::new(world, FusedConfig::new(M, N, K))?;
    let stream = Stream::new(world)?;
    let mut bound = op.bind(&stream)?;
    // Called by each rank for itself, as fast as it likes: nobody waits here.
    for (&m, c) in ROWS.iter().zip(&outputs) {
        let a = MatrixRef::new(&a_buffer, m, depth.len());
        let b = MatrixRef::new(&b_buffer, depth.len(), N);
        bound.call(m, a, b, None, MatrixMut::new(c, m, N))?;
    }
    stream.synchronize()?; // here, and here faults would surface
    drop(bound);

    for (call, (&m, c)) in ROWS.iter().zip(&outputs).enumerate() {
        for (at, sum) in c.read().into_iter().enumerate() {
            let (i, j) = (at / N, at % N);
            let expected: f32 = (0..K).map(|k| a(i, k) * b(k, j)).sum();
            if sum != expected {
                return Err(format!(
                    "call {call} of {m} rows: c[{i}, {j}] is {sum}, not {expected}"
                )
                .into());
            }
        }
    }
    let variants: Vec<String> = ROWS
        .iter()
        .filter_map(|&m| op.plan(m).map(|plan| format!("{m} rows {}", plan.variant)))
        .collect();
    let said = format!(
        "rank {} of {}: depth {depth:?}, workspace of {} bytes, {} calls right ({})",
        world.rank(),
        world.size(),
        op.workspace_bytes(),
        op.workspace().index()?,
        variants.join(", "),
    );
    // Symmetric memory is freed by all ranks together. (It would also go with the world.)
    op.free()?;
    for c in outputs {
        world.free_buffer(c)?;
    }
    Ok(said)
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let config = WorldConfig {
        heap_bytes: 16 << 20,
        ..WorldConfig::default()
    };
    if let Some(launch) = Launch::from_env()? {
        println!("{}", rank(&World::join(&launch, &config)?)?);
        return Ok(());
    }
    for said in World::threads(4, &config, |world| rank(&world))? {
        println!("{}", said?);
    }
    Ok(())
}
