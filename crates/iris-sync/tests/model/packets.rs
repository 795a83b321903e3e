//! Operations whose tiles travel in packets: what a rank does in a call of them.

use crate::operations::{to_all, to_none, to_owners, two_shot_with};
use crate::script::Script;
use crate::world::{Gathered, World};

/// A slot: of which peer, and which tile.
type Slot = (usize, usize);

/// Every packet that a rank ever fills.
fn all_packets(s: &Script<'_>) -> Vec<Slot> {
    let most = s.world.calls.iter().map(Vec::len).max().unwrap_or(0);
    let peers = s.peers().into_iter();
    peers
        .flat_map(|peer| (0..most).map(move |tile| (peer, tile)))
        .collect()
}

/// `matmul_all_reduce`, every rank reduces every tile, which comes in a packet. Peers are met at the end: packets of a call of
/// another m do not come, or are more than are read.
fn in_packets(s: &mut Script<'_>, i: usize, words: fn(&World, usize, usize) -> Vec<Slot>) {
    s.begin(i);
    s.open_bank(i, words);
    let filled = to_all(s.world, s.rank, i);
    s.clear_packets(i, &all_packets(s), &filled);
    for (peer, tile) in filled {
        s.send_packet(peer, tile, i);
    }
    for (tile, _) in s.tiles_awaited(i) {
        for peer in s.contributors() {
            s.receive_packet(peer, tile, i);
        }
    }
    if s.rules.gathered != Gathered::AllUnseen {
        s.meet(i);
    }
    s.sweep_gathered(i);
    s.kernel_end(i);
}

pub(crate) fn one_shot_packets(s: &mut Script<'_>, i: usize) {
    in_packets(s, i, to_none);
}

fn is_in_packets(world: &World, i: usize) -> bool {
    world.calls[i].len() == 1
}

fn words_of_two_shot(world: &World, rank: usize, i: usize) -> Vec<Slot> {
    match is_in_packets(world, i) {
        true => Vec::new(),
        false => to_owners(world, rank, i),
    }
}

/// Calls of one tile in packets, larger ones by `two_shot`, on one workspace.
pub(crate) fn packets_or_two_shot(s: &mut Script<'_>, i: usize) {
    if is_in_packets(s.world, i) {
        return in_packets(s, i, words_of_two_shot);
    }
    two_shot_with(s, i, words_of_two_shot, |s| {
        if s.rules.clear_packets_in_all {
            s.clear_packets(i, &all_packets(s), &[]);
        }
    });
}
