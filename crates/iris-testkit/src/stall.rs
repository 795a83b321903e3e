//! Ranks held up where it hurts: in the midst of their calls.

use iris_sync::{Phase, Point, Probe};
use std::time::Duration;

/// Holds chosen ranks up at chosen points.
#[derive(Debug, Clone)]
pub struct ChosenStall {
    /// The ranks held up; empty for all.
    pub ranks: Vec<usize>,
    /// The indices of the calls in which they are; empty for all.
    pub calls: Vec<u64>,
    /// The phases; empty for all.
    pub phases: Vec<Phase>,
    /// The tiles, for phases that speak of one; empty for all.
    pub tiles: Vec<u64>,
    /// For how long, each time.
    pub duration: Duration,
}

impl Probe for ChosenStall {
    fn at(&self, point: Point) {
        let chosen = (self.ranks.is_empty() || self.ranks.contains(&point.rank))
            && (self.calls.is_empty() || self.calls.contains(&point.index))
            && (self.phases.is_empty() || self.phases.contains(&point.phase))
            && (self.tiles.is_empty() || point.tile.is_some_and(|tile| self.tiles.contains(&tile)));
        if chosen {
            std::thread::sleep(self.duration);
        }
    }
}

/// Holds every rank up at points drawn by chance, the same in every run with the same seed.
#[derive(Debug, Clone, Copy)]
pub struct RandomStalls {
    /// What the points are drawn by.
    pub seed: u64,
    /// One point in so many, on average.
    pub one_in: u64,
    /// The longest stall; the lengths are drawn evenly from 0 up to it.
    pub longest: Duration,
}

impl Probe for RandomStalls {
    fn at(&self, point: Point) {
        let words = [
            self.seed,
            point.rank as u64,
            point.index,
            point.phase as u64,
            point.tile.map_or(0, |tile| tile + 1),
        ];
        let draw = words.into_iter().fold(0, |hash, word| mix(hash ^ word));
        if draw.is_multiple_of(self.one_in.max(1)) {
            let share = (mix(draw) >> 40) as f64 / (1u64 << 24) as f64;
            std::thread::sleep(self.longest.mul_f64(share));
        }
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
