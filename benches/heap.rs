//! What the symmetric heap costs at 2 ranks: allocation, set-up collectives, one-sided accesses.
//!
//! Ranks are threads. Each measurement makes a world, has both ranks do the same so often, and times rank 0 at it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use iris::heap::{World, WorldConfig, WorldError};
use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const RANKS: usize = 2;

/// The time that rank 0 takes for `times` turns of what `body` sets up.
fn on_both<F>(times: u64, body: impl Fn(&World) -> Result<F, WorldError> + Sync) -> Duration
where
    F: FnMut() -> Result<(), WorldError>,
{
    let config = WorldConfig {
        heap_bytes: 64 << 20,
        ..WorldConfig::default()
    };
    let rank = |world: World| {
        let mut turn = body(&world)?;
        world.barrier()?;
        let start = Instant::now();
        for _ in 0..times {
            turn()?;
        }
        let took = start.elapsed();
        world.barrier()?;
        Ok::<_, WorldError>(took)
    };
    let took = World::threads(RANKS, &config, rank).expect("a world of threads");
    let took: Result<Vec<_>, _> = took.into_iter().collect();
    took.expect("both ranks take part")[0]
}

/// Collectives: each turn is one of both ranks together.
fn collectives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("collective");
    group.bench_function("barrier", |bencher| {
        bencher.iter_custom(|times| {
            on_both(times, |world| {
                let world = world.clone();
                Ok(move || world.barrier())
            })
        });
    });
    group.bench_function("all_gather/8B", |bencher| {
        bencher.iter_custom(|times| {
            on_both(times, |world| {
                let world = world.clone();
                Ok(move || world.all_gather(1u64).map(|all| drop(black_box(all))))
            })
        });
    });
    for bytes in [4 << 10, 1 << 20] {
        let id = BenchmarkId::new("allocate_and_free", format!("{}KiB", bytes >> 10));
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|times| {
                on_both(times, |world| {
                    let world = world.clone();
                    Ok(move || world.free(world.allocate(bytes, 256)?))
                })
            });
        });
    }
    group.finish();
}

/// One-sided accesses to a peer's memory, both ranks at once.
fn one_sided(criterion: &mut Criterion) {
    for bytes in [8, 4 << 10, 1 << 20] {
        let mut group = criterion.benchmark_group("window");
        group.throughput(Throughput::Bytes(bytes as u64));
        for put in [true, false] {
            let name = if put { "put" } else { "get" };
            group.bench_function(BenchmarkId::new(name, format!("{bytes}B")), |bencher| {
                bencher.iter_custom(|times| {
                    on_both(times, |world| {
                        let window = world.window::<u64>(bytes / 8)?;
                        let peer = (world.rank() + 1) % RANKS;
                        let mut data = vec![1u64; bytes / 8];
                        Ok(move || {
                            let result = if put {
                                window.put(peer, 0, &data)
                            } else {
                                window.get(peer, 0, &mut data)
                            };
                            black_box(&mut data);
                            result.expect("within the window");
                            Ok(())
                        })
                    })
                });
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("window");
    group.bench_function("fetch_add", |bencher| {
        bencher.iter_custom(|times| {
            on_both(times, |world| {
                let window = world.window::<u64>(1)?;
                Ok(move || {
                    // Both at the word of rank 0.
                    let before = window.fetch_add(0, 0, 1, Ordering::AcqRel);
                    black_box(before.expect("within the window"));
                    Ok(())
                })
            })
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = collectives, one_sided
}
criterion_main!(benches);
