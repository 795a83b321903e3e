//! A word is not believed two laps later: a `ready` word that is used, left unused, and used again when value and bank come
//! round again.

use crate::world::{Data, World, rows};
use iris_sync::{Layout, Phase, Point, Probe, Rule};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The rank that hands over tiles.
const WRITER: usize = 1;
/// The tile that is used in two calls only.
const SELDOM: usize = 1;
/// Two laps of `i8`: so many calls later, value and bank are the same.
const TWO_LAPS: u64 = 2 * 127;

/// Holds the writer back in call `again`, before it writes the tile it hands over seldom, until the reader has read that
/// tile, or has not for some while.
struct HoldBack {
    again: u64,
    patience: Duration,
    read: AtomicBool,
    read_too_early: AtomicBool,
}

impl Probe for HoldBack {
    fn at(&self, point: Point) {
        if point.index != self.again {
            return;
        }
        match (point.phase, point.tile) {
            (Phase::Read, Some(tile)) if tile == SELDOM as u64 => {
                self.read.store(true, Ordering::Release);
            }
            // The tile before it is written, and not announced yet.
            (Phase::Ready, Some(0)) => {
                let since = Instant::now();
                while since.elapsed() < self.patience && !self.read.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let read = self.read.load(Ordering::Acquire);
                self.read_too_early.store(read, Ordering::Release);
            }
            _ => {}
        }
    }
}

/// The writer hands over tile 0 in each call, and tile 1 in call 0 and in call `again`. Gives back whether the reader's wait
/// for the latter was over before its data was there, and whether all data that the reader read was right.
fn use_again(again: u64, rules: &[Rule], patience: Duration) -> (bool, bool) {
    let world = World::<i8>::new(Layout::new(2, 2, 0)).without(rules);
    let staging = Data::new(2 * 2);
    let probe = HoldBack {
        again,
        patience,
        read: AtomicBool::new(false),
        read_too_early: AtomicBool::new(false),
    };
    let right = world.run(Some(&probe), |rank, port| {
        let mut right = true;
        for index in 0..=again {
            let used = if index % again == 0 { 2 } else { 1 };
            let call = port.begin(rows(used as u64)).unwrap();
            let writes = rank == WRITER;
            call.gate(writes, |_| if writes { used } else { 0 })
                .unwrap();
            let place = |tile| call.bank() * 2 + tile;
            if writes {
                for tile in 0..used {
                    staging.write(place(tile), index + 1);
                    call.push_ready(0, tile);
                }
            } else {
                for tile in (0..used).rev() {
                    call.await_ready(WRITER, tile).unwrap();
                    right &= staging.read(place(tile)) == index + 1;
                }
            }
            call.finish().unwrap();
        }
        right
    });
    (probe.read_too_early.into_inner(), right[0])
}

#[test]
fn a_word_left_unused_for_two_laps_is_not_believed() {
    let a_while = Duration::from_millis(20);
    // Besides the two laps: one lap, with the same value in the other bank, and the calls around.
    for again in [127, 253, 254, 255, 256, 2 * TWO_LAPS] {
        assert_eq!(use_again(again, &[], a_while), (false, true), "{again}");
    }
}

#[test]
fn a_word_left_unused_for_two_laps_is_believed_unless_cleared() {
    let rules = [Rule::Clear];
    for again in [TWO_LAPS, 2 * TWO_LAPS] {
        let long = Duration::from_secs(30);
        assert_eq!(use_again(again, &rules, long), (true, false), "{again}");
    }
    // Not where value or bank is another.
    let a_while = Duration::from_millis(20);
    for again in [127, 253, 255] {
        assert_eq!(use_again(again, &rules, a_while), (false, true), "{again}");
    }
}
