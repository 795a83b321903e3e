//! Small operations written against the protocol, call after call with no barrier, under stalls, from just below the wrap.

use crate::world::{Data, RankCall, World, mix, rows};
use iris_sync::{Announcement, Layout, Phase, Point, Probe};
use std::time::Duration;

const RANKS: usize = 3;
const TILES: usize = 4;
/// More than two laps of `i8`.
const CALLS: u64 = 340;

/// Stalls a rank now and then, at any point of a call.
struct Stalls(u64);

impl Probe for Stalls {
    fn at(&self, point: Point) {
        let phase = Phase::ALL.iter().position(|&phase| phase == point.phase);
        let draw = mix([
            self.0,
            point.rank as u64,
            point.index,
            phase.expect("a phase of a call") as u64,
            point.tile.unwrap_or(99),
        ]);
        match draw % 64 {
            0 => std::thread::sleep(Duration::from_micros(draw / 64 % 1_000)),
            1..=4 => std::thread::yield_now(),
            _ => {}
        }
    }
}

/// How many tiles call `index` has: any number, also none.
fn tiles(index: u64) -> usize {
    (mix([7, index]) % (TILES as u64 + 1)) as usize
}

/// What `rank` adds to `tile` in call `index`.
fn part(rank: usize, index: u64, tile: usize) -> u64 {
    mix([rank as u64, index, tile as u64]) >> 8
}

/// What `tile` sums up to in call `index`.
fn whole(index: u64, tile: usize) -> u64 {
    (0..RANKS).map(|rank| part(rank, index, tile)).sum()
}

/// Staging at each rank: two banks, a place for each tile of each source.
struct Staging(Vec<Data>);

impl Staging {
    fn new() -> Self {
        Self((0..RANKS).map(|_| Data::new(2 * RANKS * TILES)).collect())
    }

    fn place(bank: usize, source: usize, tile: usize) -> usize {
        (bank * RANKS + source) * TILES + tile
    }

    /// Puts this rank's part of `tile` before `peer`.
    fn push(&self, call: &RankCall<'_, i8>, rank: usize, peer: usize, tile: usize) {
        let part = part(rank, call.index(), tile);
        self.0[peer].write(Self::place(call.bank(), rank, tile), part);
        call.push_ready(peer, tile);
    }

    /// The sum of all parts of `tile` before `rank`.
    fn sum(&self, call: &RankCall<'_, i8>, rank: usize, tile: usize) -> u64 {
        (0..RANKS)
            .map(|source| {
                call.await_ready(source, tile).unwrap();
                self.0[rank].read(Self::place(call.bank(), source, tile))
            })
            .sum()
    }
}

#[test]
fn one_shot() {
    let world = World::<i8>::new(Layout::new(RANKS, TILES, 0)).starting_at(125);
    let staging = Staging::new();
    world.run(Some(&Stalls(1)), |rank, port| {
        for index in 0..CALLS {
            let used = tiles(index);
            let call = port.begin(rows(used as u64)).unwrap();
            call.gate(used > 0, |_| used).unwrap();
            for tile in 0..used {
                for peer in call.peers() {
                    staging.push(&call, rank, peer, tile);
                }
                // A rank's own part lies in its own staging, with no signal.
                staging.push(&call, rank, rank, tile);
            }
            call.meet().unwrap();
            for tile in 0..used {
                let sum = staging.sum(&call, rank, tile);
                assert_eq!(
                    sum,
                    whole(index, tile),
                    "call {index}, tile {tile}, rank {rank}"
                );
            }
            call.finish().unwrap();
        }
    });
}

#[test]
fn two_shot() {
    let world = World::<i8>::new(Layout::new(RANKS, TILES, 0)).starting_at(125);
    let staging = Staging::new();
    // Two outputs at each rank, each of which a rank uses as it likes.
    let outputs: Vec<_> = (0..RANKS).map(|_| Data::new(2 * TILES)).collect();
    world.run(Some(&Stalls(2)), |rank, port| {
        for index in 0..CALLS {
            let used = tiles(index);
            let owner = |tile: usize| tile % RANKS;
            let owned = |rank: usize| (0..used).filter(move |&tile| owner(tile) == rank);
            let output = (mix([3, rank as u64, index]) % 2) as usize * TILES;
            let announcement = Announcement {
                m: used as u64,
                output: output as u64,
                stride: 1,
            };
            let call = port.begin(announcement).unwrap();
            // `ready` words are used from the first on, so those of tiles that others own count too.
            let words = |peer: usize| owned(peer).next_back().map_or(0, |last| last + 1);
            call.gate(used > 0, words).unwrap();
            for tile in 0..used {
                staging.push(&call, rank, owner(tile), tile);
            }
            call.meet().unwrap();
            for tile in owned(rank) {
                let sum = staging.sum(&call, rank, tile);
                for (peer, output) in outputs.iter().enumerate() {
                    call.before_store(tile).unwrap();
                    let theirs = call.announcement(peer);
                    assert_eq!((theirs.m, theirs.stride), (used as u64, 1));
                    output.write(theirs.output as usize + tile, sum);
                }
            }
            call.finish_gathered(|peer| owned(peer).next().is_some())
                .unwrap();
            // The user reads its output, and spoils it, before the next call.
            for tile in 0..used {
                let seen = outputs[rank].read(output + tile);
                assert_eq!(
                    seen,
                    whole(index, tile),
                    "call {index}, tile {tile}, rank {rank}"
                );
                outputs[rank].write(output + tile, u64::MAX);
            }
        }
    });
}

#[test]
fn accumulating_under_locks() {
    let world = World::<i8>::new(Layout::new(RANKS, 0, TILES)).starting_at(125);
    let sums: Vec<_> = (0..RANKS).map(|_| Data::new(2 * TILES)).collect();
    world.run(Some(&Stalls(3)), |rank, port| {
        for index in 0..CALLS {
            let used = tiles(index);
            let owner = |tile: usize| tile % RANKS;
            let call = port.begin(rows(used as u64)).unwrap();
            call.gate(used > 0, |_| 0).unwrap();
            for tile in 0..used {
                let owner = owner(tile);
                let at = call.bank() * TILES + tile;
                let held = call.lock(owner, tile).unwrap();
                let sum = sums[owner].read(at) + part(rank, index, tile);
                sums[owner].write(at, sum);
                drop(held);
            }
            call.push_added();
            call.meet().unwrap();
            call.await_added().unwrap();
            for tile in (0..used).filter(|&tile| owner(tile) == rank) {
                let at = call.bank() * TILES + tile;
                assert_eq!(
                    sums[rank].read(at),
                    whole(index, tile),
                    "call {index}, tile {tile}"
                );
                sums[rank].write(at, 0);
            }
            call.finish().unwrap();
        }
    });
}
