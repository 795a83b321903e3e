//! The signal protocol by itself: one rank hands a tile of numbers to another, call after call, and nothing is ever zeroed in
//! between.
//!
//! Rank 0 writes into staging memory of rank 1 and signals `ready`; rank 1 waits, reads, and by beginning its next call tells
//! `entered`, which is what opens rank 0's gate of the call after that. There are two banks of staging, so rank 0 can be one call
//! ahead. The counter starts four values before the largest of its word, and wraps on the way.
//!
//! ```text
//! cargo run --example signals
//! ```

use iris::sync::primitive::{AtomicI32, AtomicU64, Ordering};
use iris::sync::{Announcement, Fault, Layout, Memory, Patience, Port, Signal};
use std::time::{Duration, Instant};

const RANKS: usize = 2;
const CALLS: u64 = 100_000;
const TILE: usize = 16;

/// Where the words of each rank are. In an operation this is symmetric memory; here, two vectors a rank.
struct Workspace {
    words: [Vec<AtomicI32>; RANKS],
    cells: [Vec<AtomicU64>; RANKS],
    /// What rank 0 hands to rank 1, in two banks. Relaxed accesses do: signals order them.
    staging: [[AtomicU64; TILE]; 2],
}

/// Two ranks, and one tile that a rank hands to another in a call; no spin locks.
const LAYOUT: Layout = Layout::new(RANKS, 1, 0);

/// One rank's view of all words.
struct View<'a> {
    rank: usize,
    workspace: &'a Workspace,
}

impl Memory<i32> for View<'_> {
    fn rank(&self) -> usize {
        self.rank
    }
    fn layout(&self) -> Layout {
        LAYOUT
    }
    fn word(&self, rank: usize, place: usize) -> &AtomicI32 {
        &self.workspace.words[rank][place]
    }
    fn cell(&self, rank: usize, place: usize) -> &AtomicU64 {
        &self.workspace.cells[rank][place]
    }
}

/// Rank 0: in each call, all numbers of the tile are the call's index.
fn send(port: &Port<'_, i32, View<'_>, Patience>) -> Result<(), Fault> {
    for _ in 0..CALLS {
        let call = port.begin(Announcement::default())?;
        // From here on this call's bank is ours: its reader has left the call before the last. One tile goes to rank 1.
        call.gate(true, |_| 1)?;
        for number in &port.memory.workspace.staging[call.bank()] {
            number.store(call.index(), Ordering::Relaxed);
        }
        call.push_ready(1, 0);
        call.finish()?;
    }
    Ok(())
}

/// Rank 1: reads the tile of each call, and tells how many of its numbers were not this call's.
fn receive(port: &Port<'_, i32, View<'_>, Patience>) -> Result<usize, Fault> {
    let mut wrong = 0;
    for _ in 0..CALLS {
        let call = port.begin(Announcement::default())?;
        call.gate(false, |_| 0)?;
        call.await_ready(0, 0)?;
        let tile = &port.memory.workspace.staging[call.bank()];
        let numbers = tile.iter().map(|number| number.load(Ordering::Relaxed));
        wrong += numbers.filter(|&number| number != call.index()).count();
        call.finish()?;
    }
    Ok(wrong)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Memory for words is zero before its first use: 0 means that nobody has signalled yet.
    let workspace = Workspace {
        words: std::array::from_fn(|_| (0..LAYOUT.words()).map(|_| AtomicI32::new(0)).collect()),
        cells: std::array::from_fn(|_| (0..LAYOUT.cells()).map(|_| AtomicU64::new(0)).collect()),
        staging: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(u64::MAX))),
    };
    let first = Signal::new(i64::from(i32::MAX) - 3).ok_or("not a signal value")?;
    let port = |rank| {
        let view = View {
            rank,
            workspace: &workspace,
        };
        let waiting = Patience::new(Duration::from_secs(30), RANKS);
        let mut port = Port::new("hand over", view, waiting);
        port.first = first;
        port
    };

    let start = Instant::now();
    let (sent, received) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&port(0)));
        let received = receive(&port(1));
        (sender.join(), received)
    });
    sent.map_err(|_| "the sender panicked")??;
    let wrong = received?;
    let each = start.elapsed() / u32::try_from(CALLS)?;

    let last = first.after(CALLS - 1);
    println!("{CALLS} calls of {TILE} numbers, {each:?} each; signals from {first} to {last}");
    if wrong > 0 {
        return Err(format!("{wrong} numbers were another call's").into());
    }
    println!("every number was that of its call");
    Ok(())
}
