//! What a rank does in one call of each operation, under the rules.
//!
//! A tile is one cell a (peer, slot); data are tokens that differ from call to call, so that a read of another call's data
//! is seen.

use crate::machine::Op;
use crate::script::Script;
use crate::world::{Gathered, World, Zeroing};

/// Every tile goes to every peer.
pub(crate) fn to_all(world: &World, rank: usize, i: usize) -> Vec<(usize, usize)> {
    let tiles = 0..world.calls[i].len();
    let peers = (0..world.ranks).filter(|&peer| peer != rank && world.depth[rank]);
    peers
        .flat_map(|peer| tiles.clone().map(move |tile| (peer, tile)))
        .collect()
}

/// Every tile goes to its owner.
pub(crate) fn to_owners(world: &World, rank: usize, i: usize) -> Vec<(usize, usize)> {
    let tiles = world.calls[i].iter().enumerate();
    tiles
        .filter(|&(_, &owner)| owner != rank && world.depth[rank])
        .map(|(tile, &owner)| (owner, tile))
        .collect()
}

/// The tiles of a rank's own rows go to every peer.
fn own_rows_to_all(world: &World, rank: usize, i: usize) -> Vec<(usize, usize)> {
    let tiles = (world.calls[i].iter().enumerate()).filter(|&(_, &owner)| owner == rank);
    tiles
        .flat_map(|(tile, _)| (0..world.ranks).map(move |peer| (peer, tile)))
        .filter(|slot| slot.0 != rank)
        .collect()
}

/// No staging is written.
pub(crate) fn to_none(_: &World, _: usize, _: usize) -> Vec<(usize, usize)> {
    Vec::new()
}

impl Script<'_> {
    /// This call's tiles, each rank beginning with another.
    fn tiles(&self, i: usize) -> Vec<(usize, usize)> {
        let owners = &self.world.calls[i];
        let rotated = (0..owners.len()).map(|t| (t + self.rank) % owners.len());
        rotated.map(|tile| (tile, owners[tile])).collect()
    }

    /// The same tiles in the order in which they are awaited. Peers produce theirs in about that order, so that a tile is
    /// awaited while later ones are not there yet.
    pub(crate) fn tiles_awaited(&self, i: usize) -> Vec<(usize, usize)> {
        self.tiles(i).into_iter().rev().collect()
    }

    pub(crate) fn contributors(&self) -> Vec<usize> {
        let peers = self.peers().into_iter();
        peers.filter(|&peer| self.world.depth[peer]).collect()
    }

    fn store_output(&mut self, home: usize, tile: usize, i: usize) {
        let token = self.token(i);
        let output = self.cells.get(home, format!("output[tile {tile}]"));
        self.push(Op::store(output, token));
    }

    /// The user reads the whole output between this call and the next.
    fn user_reads_output(&mut self, i: usize) {
        self.kernel_end(i);
        for (tile, _) in self.tiles(i) {
            let output = self.cells.get(self.rank, format!("output[tile {tile}]"));
            let what = format!("the user, after call {i}: tile {tile}");
            self.push(Op::check(output, self.token(i), what));
        }
        self.user_end(i);
    }
}

/// `matmul_all_reduce`, every rank reduces every tile; partials are pushed.
pub(crate) fn one_shot(s: &mut Script<'_>, i: usize) {
    s.begin(i);
    s.open_bank(i, to_all);
    for (peer, tile) in to_all(s.world, s.rank, i) {
        s.send(peer, tile, i);
    }
    s.meet(i);
    for (tile, _) in s.tiles_awaited(i) {
        for peer in s.contributors() {
            s.receive(peer, tile, i);
        }
    }
    s.kernel_end(i);
}

/// The same, but partials stay in the writer's staging and are pulled from there.
pub(crate) fn one_shot_pull(s: &mut Script<'_>, i: usize) {
    s.begin(i);
    s.open_bank(i, to_all);
    for (tile, _) in s.tiles(i) {
        if s.world.depth[s.rank] {
            let staging = s.staging(s.rank, s.rank, tile, i);
            s.push(Op::store(staging, s.token(i)));
            for peer in s.peers() {
                s.announce(peer, tile, i);
            }
        }
    }
    s.meet(i);
    for (tile, _) in s.tiles_awaited(i) {
        for peer in s.contributors() {
            s.await_ready(peer, tile, i);
            let staging = s.staging(peer, peer, tile, i);
            let what = format!("call {i}: tile {tile} pulled from rank {peer}");
            s.push(Op::check(staging, s.token(i), what));
        }
    }
    s.kernel_end(i);
}

/// `matmul_all_reduce`, a tile's owner reduces it and stores it into every rank's output.
pub(crate) fn two_shot(s: &mut Script<'_>, i: usize) {
    two_shot_with(s, i, to_owners, |_| ());
}

/// The same, with something to do behind the gate, beside calls that use other `slots`.
pub(crate) fn two_shot_with(
    s: &mut Script<'_>,
    i: usize,
    slots: fn(&World, usize, usize) -> Vec<(usize, usize)>,
    behind_the_gate: impl Fn(&mut Script<'_>),
) {
    let reduce = |s: &mut Script<'_>, tile| {
        for peer in s.contributors() {
            s.receive(peer, tile, i);
        }
        s.store_output(s.rank, tile, i);
        for peer in s.peers() {
            s.store_output(peer, tile, i);
        }
    };
    s.begin(i);
    s.open_bank(i, slots);
    behind_the_gate(s);
    let owns = s.world.owns(s.rank, i);
    if owns && !s.rules.produce_first {
        s.meet(i);
    }
    for (tile, owner) in s.tiles(i) {
        if owner != s.rank && s.world.depth[s.rank] {
            s.send(owner, tile, i);
        } else if owner == s.rank && !s.rules.produce_first {
            reduce(s, tile);
        }
    }
    if s.rules.produce_first {
        if owns || s.rules.gathered == Gathered::All {
            s.meet(i);
        }
        for (tile, owner) in s.tiles_awaited(i) {
            if owner == s.rank {
                reduce(s, tile);
            }
        }
    }
    s.push_gathered(i);
    s.await_gathered(i);
    s.user_reads_output(i);
}

/// `matmul_reduce_scatter`: a tile's owner reduces it and keeps it.
pub(crate) fn reduce_scatter(s: &mut Script<'_>, i: usize) {
    s.begin(i);
    s.open_bank(i, to_owners);
    for (tile, owner) in s.tiles(i) {
        if owner != s.rank && s.world.depth[s.rank] {
            s.send(owner, tile, i);
        }
    }
    let owns = s.world.owns(s.rank, i);
    if owns {
        s.meet(i);
    }
    for (tile, owner) in s.tiles_awaited(i) {
        if owner == s.rank {
            for peer in s.contributors() {
                s.receive(peer, tile, i);
            }
        }
    }
    s.kernel_end(i);
}

/// `all_gather_matmul`: rows of A are pushed into every rank's staging. A tile is its owner's rows.
pub(crate) fn all_gather_matmul(s: &mut Script<'_>, i: usize) {
    s.begin(i);
    s.open_bank(i, own_rows_to_all);
    for (peer, tile) in own_rows_to_all(s.world, s.rank, i) {
        s.send(peer, tile, i);
    }
    let reads = s.world.calls[i].iter().any(|&owner| owner != s.rank);
    if reads {
        s.meet(i);
    }
    for (tile, owner) in s.tiles_awaited(i) {
        if owner != s.rank {
            s.receive(owner, tile, i);
        }
    }
    s.kernel_end(i);
}

/// The same, but rows are pulled from the user's A, which the user writes before each call.
pub(crate) fn all_gather_matmul_pull(s: &mut Script<'_>, i: usize) {
    let input =
        |s: &mut Script<'_>, home: usize, tile| s.cells.get(home, format!("A[tile {tile}]"));
    for (tile, owner) in s.tiles(i) {
        if owner == s.rank {
            let a = input(s, s.rank, tile);
            s.push(Op::store(a, s.token(i)));
        }
    }
    s.user_end(i);
    s.begin(i);
    s.open_bank(i, own_rows_to_all);
    for (peer, tile) in own_rows_to_all(s.world, s.rank, i) {
        s.announce(peer, tile, i);
    }
    let reads = s.world.calls[i].iter().any(|&owner| owner != s.rank);
    if reads {
        s.meet(i);
    }
    for (tile, owner) in s.tiles_awaited(i) {
        if owner != s.rank {
            s.await_ready(owner, tile, i);
            let a = input(s, owner, tile);
            let what = format!("call {i}: A of rank {owner}, pulled");
            s.push(Op::check(a, s.token(i), what));
        }
    }
    s.tell_read(i);
    if s.world.owns(s.rank, i) {
        s.exit_wait(i);
    }
    s.kernel_end(i);
}

/// `matmul_all_gather`: the rows of C that a rank computes go straight into every rank's output.
pub(crate) fn matmul_all_gather(s: &mut Script<'_>, i: usize) {
    s.begin(i);
    s.open_bank(i, to_none);
    let owns = s.world.owns(s.rank, i);
    if owns || s.rules.gathered == Gathered::All {
        s.meet(i);
    }
    for (tile, owner) in s.tiles(i) {
        if owner == s.rank {
            s.store_output(s.rank, tile, i);
            for peer in s.peers() {
                s.store_output(peer, tile, i);
            }
        }
    }
    s.push_gathered(i);
    s.await_gathered(i);
    s.user_reads_output(i);
}

/// What rank `rank` adds in call `i`: one bit, which no other addition to the same accumulator bank has.
fn addend(s: &Script<'_>, rank: usize, i: usize) -> u16 {
    let use_of_bank = if s.rules.zeroing == Zeroing::ByReader {
        i / 2
    } else {
        i
    };
    1 << (use_of_bank * s.world.ranks + rank)
}

fn sum(s: &Script<'_>, i: usize) -> u16 {
    let depth = (0..s.world.ranks).filter(|&rank| s.world.depth[rank]);
    depth.map(|rank| addend(s, rank, i)).sum()
}

/// Every rank adds its partials into the accumulators of the tiles that `home_of` gives it at each rank.
fn accumulate(
    s: &mut Script<'_>,
    i: usize,
    at_home: fn(home: usize, owner: usize) -> bool,
    add: fn(&mut Script<'_>, home: usize, tile: usize, i: usize, value: u16),
) {
    s.begin(i);
    s.open_bank(i, to_none);
    for home in 0..s.world.ranks {
        for (tile, owner) in s.tiles(i) {
            if s.world.depth[s.rank] && at_home(home, owner) {
                let value = addend(s, s.rank, i);
                add(s, home, tile, i, value);
            }
        }
    }
    for peer in s.peers() {
        let added = s.banked_word(peer, "added", s.rank, i);
        s.signal(added, i);
    }
    let own: Vec<usize> = (s.tiles(i).into_iter())
        .filter(|&(_, owner)| at_home(s.rank, owner))
        .map(|(tile, _)| tile)
        .collect();
    if !own.is_empty() {
        s.meet(i);
        for peer in s.peers() {
            let added = s.banked_word(s.rank, "added", peer, i);
            s.wait_announced(added, i);
        }
    }
    for &tile in &own {
        let accumulator = accumulator(s, s.rank, tile, i);
        let what = format!("call {i}: sum of tile {tile}");
        s.push(Op::check(accumulator, sum(s, i), what));
    }
    for &tile in &own {
        let accumulator = accumulator(s, s.rank, tile, i);
        s.push(Op::store(accumulator, 0));
    }
    s.kernel_end(i);
}

fn accumulator(s: &mut Script<'_>, home: usize, tile: usize, i: usize) -> crate::machine::Cell {
    let bank = s.bank(i);
    let name = format!("accumulator[bank {bank}][tile {tile}]");
    s.cells.get(home, name)
}

fn add_atomically(s: &mut Script<'_>, home: usize, tile: usize, i: usize, value: u16) {
    let cell = accumulator(s, home, tile, i);
    s.push(Op::Add { cell, value });
}

/// `atomic`: every rank adds to every rank's accumulators, which lie in two banks and are cleared by their reader.
pub(crate) fn atomic(s: &mut Script<'_>, i: usize) {
    accumulate(s, i, |_, _| true, add_atomically);
}

/// The same where only a tile's owner has accumulators for it.
pub(crate) fn atomic_at_owner(s: &mut Script<'_>, i: usize) {
    accumulate(s, i, |home, owner| home == owner, add_atomically);
}

fn add_under_lock(s: &mut Script<'_>, home: usize, tile: usize, i: usize, value: u16) {
    let shared = accumulator(s, home, tile, i);
    let private = s.cells.get(s.rank, format!("register of rank {}", s.rank));
    let lock = s.cells.get(home, format!("lock[tile {tile}]"));
    if s.rules.locked {
        s.push(Op::lock(lock));
    }
    s.push(Op::Move {
        from: shared,
        to: private,
        plus: 0,
    });
    s.push(Op::Move {
        from: private,
        to: shared,
        plus: value,
    });
    if s.rules.locked {
        s.push(Op::Store {
            cell: lock,
            value: 0,
            release: s.rules.release,
        });
    }
}

/// `spinlock`: as `atomic`, by a read and a write under a lock, whose word is exempt from the counter.
pub(crate) fn spinlock(s: &mut Script<'_>, i: usize) {
    accumulate(s, i, |_, _| true, add_under_lock);
}

/// The same where only a tile's owner has accumulators for it.
pub(crate) fn spinlock_at_owner(s: &mut Script<'_>, i: usize) {
    accumulate(s, i, |home, owner| home == owner, add_under_lock);
}

/// `atomic` as it must not be: ranks add straight into the output, which its rank zeroes at the beginning of each call.
pub(crate) fn atomic_into_output(s: &mut Script<'_>, i: usize) {
    let output = s.cells.get(s.rank, "output");
    s.begin(i);
    s.push(Op::store(output, 0));
    if s.rules.zeroing == Zeroing::Memset {
        s.user_end(i);
    }
    s.open_bank(i, to_none);
    for home in 0..s.world.ranks {
        let cell = s.cells.get(home, "output");
        let value = addend(s, s.rank, i);
        s.push(Op::Add { cell, value });
        if home != s.rank {
            let added = s.banked_word(home, "added", s.rank, i);
            s.signal(added, i);
        }
    }
    s.meet(i);
    for peer in s.peers() {
        let added = s.banked_word(s.rank, "added", peer, i);
        s.wait_announced(added, i);
    }
    s.push(Op::check(output, sum(s, i), format!("call {i}: sum")));
    s.kernel_end(i);
}

/// The reusable device barrier: every rank pushes the epoch's value to all and waits for all. Data written before it are
/// read after it; data are written again two barriers later.
pub(crate) fn barrier(s: &mut Script<'_>, i: usize) {
    let data = |s: &mut Script<'_>, home| s.cells.get(home, format!("data[{}]", i % 2));
    let own = data(s, s.rank);
    s.push(Op::store(own, s.token(i)));
    for peer in s.peers() {
        let word = s.word(peer, "barrier", s.rank);
        s.signal(word, i);
    }
    for peer in s.peers() {
        let word = s.word(s.rank, "barrier", peer);
        let value = s.value(i);
        s.push(Op::wait(word, value, s.rules.progress));
    }
    for peer in s.peers() {
        let theirs = data(s, peer);
        let what = format!("after barrier {i}: data of rank {peer}");
        s.push(Op::check(theirs, s.token(i), what));
    }
    s.kernel_end(i);
}
