//! What the protocol costs on the host: values and compares, a signal's round trip, an open gate, a free lock, a barrier.

#[cfg(not(any(loom, shuttle)))]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(not(any(loom, shuttle)))]
mod signals {
    use super::support::Words;
    use criterion::{Criterion, criterion_group};
    use iris_sync::{
        Announcement, Barrier, Layout, Mapped, Patience, Port, Signal, SignalCounter, reached,
    };
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    /// The word of devices.
    type Word = i32;

    fn waiting() -> Patience {
        Patience::new(Duration::from_secs(30), 2)
    }

    fn port(words: &Words<Word>, rank: usize) -> Port<'_, Word, Mapped<'_, Word>, Patience> {
        Port::new("bench", words.view(rank), waiting())
    }

    /// Runs `body` as rank 0 and as rank 1, and times rank 0.
    fn both(body: impl Fn(usize) + Sync) -> Duration {
        std::thread::scope(|scope| {
            scope.spawn(|| body(1));
            let since = Instant::now();
            body(0);
            since.elapsed()
        })
    }

    fn values(criterion: &mut Criterion) {
        let counter = SignalCounter::<Word>::starting_at(i64::from(i32::MAX) - 3).unwrap();
        let mut index = 0;
        criterion.bench_function("value", |bencher| {
            bencher.iter(|| {
                index += 1;
                black_box(&counter).value(black_box(index))
            });
        });
        let target = Signal::<Word>::new(i64::from(i32::MAX)).unwrap();
        criterion.bench_function("reached", |bencher| {
            bencher.iter(|| reached(black_box(2), black_box(target)));
        });
    }

    /// Rank 0 pushes a tile, rank 1 awaits it and pushes one back, rank 0 awaits that; a thousand times a call.
    fn round_trip(criterion: &mut Criterion) {
        const TILES: usize = 1_000;
        let words = Words::new(Layout::new(2, TILES, 0));
        criterion.bench_function("round trip", |bencher| {
            bencher.iter_custom(|trips| {
                both(|rank| {
                    let port = port(&words, rank);
                    let mut left = usize::try_from(trips).unwrap();
                    while left > 0 {
                        let tiles = left.min(TILES);
                        left -= tiles;
                        let call = port.begin(Announcement::default()).unwrap();
                        call.gate(true, |_| tiles).unwrap();
                        for tile in 0..tiles {
                            if rank == 0 {
                                call.push_ready(1, tile);
                            }
                            call.await_ready(1 - rank, tile).unwrap();
                            if rank == 1 {
                                call.push_ready(0, tile);
                            }
                        }
                        call.finish().unwrap();
                    }
                })
            });
        });
    }

    /// A call in which nobody has anything to do, and in its third the gate, which rank 1 has opened.
    fn gate_and_lock(criterion: &mut Criterion) {
        let words = Words::new(Layout::new(2, 1, 1));
        let ports = [0, 1].map(|rank| port(&words, rank));
        let pass = |rank: usize| {
            let call = ports[rank].begin(Announcement::default()).unwrap();
            call.gate(false, |_| 0).unwrap();
            call.finish().unwrap();
        };
        criterion.bench_function("empty call, both ranks on one thread", |bencher| {
            bencher.iter(|| {
                pass(0);
                pass(1);
            });
        });
        (0..2).for_each(|_| (0..2).for_each(pass));
        let call = ports[0].begin(Announcement::default()).unwrap();
        criterion.bench_function("open gate", |bencher| {
            bencher.iter(|| call.gate(true, |_| 1));
        });
        criterion.bench_function("free lock", |bencher| {
            bencher.iter(|| drop(call.lock(1, 0)));
        });
    }

    fn barrier(criterion: &mut Criterion) {
        let words = Words::<Word>::new(Barrier::<Word, Mapped<'_, Word>, Patience>::layout(2));
        criterion.bench_function("barrier", |bencher| {
            bencher.iter_custom(|rounds| {
                both(|rank| {
                    let barrier = Barrier::new(words.view(rank), waiting());
                    for _ in 0..rounds {
                        barrier.wait().unwrap();
                    }
                })
            });
        });
    }

    criterion_group!(
        name = benches;
        config = Criterion::default().without_plots();
        targets = values, round_trip, gate_and_lock, barrier
    );

    pub(crate) fn run() {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}

fn main() {
    // Words of a model checker do not run outside of a model.
    #[cfg(not(any(loom, shuttle)))]
    signals::run();
}
