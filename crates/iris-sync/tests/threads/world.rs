//! A world of ranks whose every word and every datum is an atomic: a race shows as wrong data, and is never undefined.

use crate::support::Words;
use iris_sync::{
    Announcement, Barrier, Call, Layout, Mapped, Patience, Port, Probe, Rule, Rules, Signal,
    Waiting, Word,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Far longer than any of these tests takes, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) type RankPort<'w, W, P = Patience> = Port<'w, W, Mapped<'w, W>, P>;
pub(crate) type RankCall<'p, W, P = Patience> = Call<'p, W, Mapped<'p, W>, P>;
pub(crate) type RankBarrier<'w> = Barrier<'w, i32, Mapped<'w, i32>, Patience>;

/// Data that ranks hand to one another, loaded and stored one by one without any order: what orders them is the protocol.
pub(crate) struct Data(Vec<AtomicU64>);

impl Data {
    pub(crate) fn new(len: usize) -> Self {
        Self((0..len).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn read(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }

    pub(crate) fn write(&self, at: usize, value: u64) {
        self.0[at].store(value, Ordering::Relaxed);
    }
}

/// The words of a workspace, and those of a barrier beside it.
pub(crate) struct World<W> {
    layout: Layout,
    words: Words<W>,
    barrier: Words<i32>,
    first: Signal<W>,
    rules: Rules,
}

impl<W: Word> World<W> {
    /// A world that keeps all rules and begins at value 1.
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            words: Words::new(layout),
            barrier: Words::new(RankBarrier::layout(layout.world())),
            first: Signal::ONE,
            rules: Rules::ALL,
        }
    }

    pub(crate) fn starting_at(mut self, first: i64) -> Self {
        self.first = Signal::new(first).expect("a value of the ring");
        self
    }

    pub(crate) fn without(mut self, rules: &[Rule]) -> Self {
        // SAFETY: all that these ranks share is made of atomics, so whatever they do wrong is wrong data and no more.
        self.rules = unsafe { Rules::without(rules) };
        self
    }

    pub(crate) fn port<P: Waiting>(&self, rank: usize, waiting: P) -> RankPort<'_, W, P> {
        let mut port = Port::new("model", self.words.view(rank), waiting);
        port.first = self.first;
        port.rules = self.rules;
        port
    }

    pub(crate) fn barrier(&self, rank: usize) -> RankBarrier<'_> {
        let waiting = Patience::new(LONG, self.layout.world());
        Barrier::new(self.barrier.view(rank), waiting)
    }

    /// Runs `body` as each rank, on a thread each, watched by `probe`, and gives back what they return.
    pub(crate) fn run<'w, T: Send>(
        &'w self,
        probe: Option<&'w dyn Probe>,
        body: impl Fn(usize, RankPort<'w, W>) -> T + Sync,
    ) -> Vec<T> {
        let world = self.layout.world();
        std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..world)
                .map(|rank| {
                    let body = &body;
                    scope.spawn(move || {
                        let mut port = self.port(rank, Patience::new(LONG, world));
                        port.probe = probe;
                        body(rank, port)
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }
}

/// An announcement of a call with `m` rows.
pub(crate) fn rows(m: u64) -> Announcement {
    Announcement {
        m,
        ..Announcement::default()
    }
}

/// A well-mixed 64-bit number (the finaliser of SplitMix64), for choices that are random but the same in every run.
pub(crate) fn mix(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, |state, part| {
        let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
