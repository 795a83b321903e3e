//! What several blocks of a rank, several launches, and several streams of a device do to the protocol.

use crate::check::{assert_clean, assert_fails};
use crate::engine::{Bad, Memory};
use crate::machine::{Cells, Compare, Model, Op};
use crate::script::{Script, wait_count};
use crate::world::{Arithmetic, Rules, World};

const BOTH: [Memory; 2] = [Memory::Sequential, Memory::Relaxed];

/// How blocks arrive, and who speaks for the rank.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// Whether a block makes a release fence before it arrives.
    pub(crate) fence: bool,
    /// Whether the last block to arrive speaks, or the first block as soon as its own work is done.
    pub(crate) last_speaks: bool,
}

const ARRIVAL: Arrival = Arrival {
    fence: true,
    last_speaks: true,
};

/// `two_shot` on 2 ranks of 2 blocks, `calls` calls on a ring of 7. Rank `t mod 2` owns tile t. A block produces two tiles,
/// and reduces the one of its rank's that the other block produced, so that a rank's own partial goes through its own
/// staging from one block to the other. Whichever block arrives last says `gathered`, awaits the peer's
/// `gathered`, resets the arrival count (as part of the arrival) and advances the index.
pub(crate) fn two_blocks(calls: usize, arrival: Arrival) -> Model {
    let world = World::new(2, calls, &[0, 1, 0, 1]).on(7, 6);
    let rules = Rules::default();
    let mut model = Model::new(Cells::default(), world.ring.reached);
    for rank in 0..2 {
        for block in 0..2 {
            let mut script = Script::new(&world, &rules, rank, &mut model.cells);
            (0..calls).for_each(|i| two_blocks_call(&mut script, i, block, arrival));
            let ops = script.ops;
            model.actor(format!("rank {rank} block {block}"), rank, ops);
        }
    }
    model
}

fn two_blocks_call(s: &mut Script<'_>, i: usize, block: usize, arrival: Arrival) {
    let (rank, peer) = (s.rank, 1 - s.rank);
    if block == 0 {
        s.begin(i);
    }
    s.open_bank(i, |_, _, _| Vec::new());
    for tile in [2 * block, 2 * block + 1] {
        s.send(tile % 2, tile, i);
    }
    s.meet(i);
    let reduced = 2 * (1 - block) + rank;
    for from in [rank, peer] {
        s.receive(from, reduced, i);
    }
    for home in [rank, peer] {
        let output = s.cells.get(home, format!("output[tile {reduced}]"));
        s.push(Op::store(output, s.token(i)));
    }
    let arrived = s.cells.get(rank, "arrived");
    let arrive = s.ops.len();
    if arrival.last_speaks {
        s.push(Op::ArriveLast {
            cell: arrived,
            of: 2,
            release: arrival.fence,
            otherwise: 0,
        });
    }
    if arrival.last_speaks || block == 0 {
        s.push_gathered(i);
        s.await_gathered(i);
        let index = s.cells.get(rank, "index");
        s.push(Op::store(index, i as u16 + 1));
    }
    let end = s.ops.len() as u16;
    if let Some(Op::ArriveLast { otherwise, .. }) = s.ops.get_mut(arrive) {
        *otherwise = end;
    }
    s.kernel_end(i);
    if block == 0 {
        let index = s.cells.get(rank, "index");
        s.push(Op::check(
            index,
            i as u16 + 1,
            format!("index after call {i}"),
        ));
        for tile in 0..4 {
            let output = s.cells.get(rank, format!("output[tile {tile}]"));
            s.push(Op::check(
                output,
                s.token(i),
                format!("the user, after call {i}: tile {tile}"),
            ));
        }
    }
    s.user_end(i);
}

/// When a rank reduces its own tiles of a round.
#[derive(Clone, Copy)]
enum Own {
    /// When it has made the peer's of the round that is so many later, or all.
    Behind(usize),
    /// Before it makes the peer's of the same round: a control.
    Before,
}

/// `two_shot` on 2 ranks of one block each, which reduces its own tiles as it goes, in two rounds of one tile each. Nobody tells himself
/// of his own tiles.
fn in_rounds(calls: usize, own: [Own; 2]) -> Model {
    const ROUNDS: usize = 2;
    let world = World::new(2, calls, &[0, 1, 0, 1]).on(7, 6);
    let rules = Rules::default();
    let mut model = Model::new(Cells::default(), world.ring.reached);
    for (rank, own) in own.into_iter().enumerate() {
        let mut script = Script::new(&world, &rules, rank, &mut model.cells);
        let s = &mut script;
        let peer = 1 - rank;
        for i in 0..calls {
            let reduce = |s: &mut Script<'_>, round: usize| {
                let tile = 2 * round + rank;
                s.meet(i);
                s.receive(peer, tile, i);
                for home in [rank, peer] {
                    let output = s.cells.get(home, format!("output[tile {tile}]"));
                    s.push(Op::store(output, s.token(i)));
                }
            };
            s.begin(i);
            s.open_bank(i, |_, _, _| Vec::new());
            for round in 0..ROUNDS {
                if let Own::Before = own {
                    reduce(s, round);
                }
                s.send(peer, 2 * round + peer, i);
                if let Own::Behind(lag) = own
                    && round >= lag
                {
                    reduce(s, round - lag);
                }
            }
            if let Own::Behind(lag) = own {
                for round in ROUNDS - lag..ROUNDS {
                    reduce(s, round);
                }
            }
            s.push_gathered(i);
            s.await_gathered(i);
            s.kernel_end(i);
            for tile in 0..2 * ROUNDS {
                let output = s.cells.get(rank, format!("output[tile {tile}]"));
                let reader = format!("the user, after call {i}: tile {tile}");
                s.push(Op::check(output, s.token(i), reader));
            }
            s.user_end(i);
        }
        let ops = script.ops;
        model.actor(format!("rank {rank}"), rank, ops);
    }
    model
}

/// What an own tile waits for is made before any own tile of that round or a later one, by every block. How much before, each rank may
/// choose for itself.
#[test]
fn own_tiles_are_reduced_between_peers_tiles() {
    for lags in [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]] {
        for memory in BOTH {
            assert_clean("3 calls", &in_rounds(3, lags.map(Own::Behind)), memory);
        }
    }
}

#[test]
fn own_tiles_before_peers_tiles_deadlock() {
    for memory in BOTH {
        let all = in_rounds(1, [Own::Before, Own::Before]);
        assert_fails("1 call", &all, memory, Bad::Deadlock);
    }
}

#[test]
fn two_blocks_a_rank() {
    let outcome = assert_clean("3 calls", &two_blocks(3, ARRIVAL), Memory::Sequential);
    println!(
        "2 ranks of 2 blocks, 3 calls: {} states, {:.2?}",
        outcome.states, outcome.elapsed
    );
}

#[test]
fn two_blocks_a_rank_relaxed() {
    let outcome = assert_clean("2 calls", &two_blocks(2, ARRIVAL), Memory::Relaxed);
    println!(
        "2 ranks of 2 blocks, 2 calls, relaxed: {} states, {:.2?}",
        outcome.states, outcome.elapsed
    );
}

/// Each block makes a release fence before it arrives: else what it stored may become visible after the last block has said
/// `gathered` for it.
#[test]
fn arrival_without_a_release_fence_reads_wrong_data() {
    let model = two_blocks(
        1,
        Arrival {
            fence: false,
            ..ARRIVAL
        },
    );
    assert_fails("no fence", &model, Memory::Relaxed, Bad::WrongData);
    assert_clean("nothing is reordered", &model, Memory::Sequential);
}

/// What speaks for the whole rank comes from the last block to arrive: else a sibling may still read, or not have stored.
#[test]
fn a_block_that_speaks_for_its_siblings_reads_wrong_data() {
    let model = two_blocks(
        2,
        Arrival {
            last_speaks: false,
            ..ARRIVAL
        },
    );
    assert_fails(
        "first block speaks",
        &model,
        Memory::Sequential,
        Bad::WrongData,
    );
}

/// `reduce_scatter` on 2 ranks of 2 blocks, `calls` calls on a ring of 7; the first `owners` ranks own tiles. A block sends a tile to
/// a peer that owns any, and reduces the one that the peer's other block has sent. Nothing is stored into outputs, so blocks make no
/// fence before they arrive; each adds its share to the index. With `ends`, a launch begins when all blocks of the one before have
/// ended, else each block when it has itself. With `early`, blocks arrive once they wait for nobody any more, before they send.
fn scattered(calls: usize, owners: usize, ends: bool, early: bool) -> Model {
    let world = World::new(2, calls, &[0, 1, 0, 1]).on(7, 6);
    let rules = Rules::default();
    let mut model = Model::new(Cells::default(), world.ring.reached);
    for rank in 0..2 {
        for block in 0..2 {
            let mut script = Script::new(&world, &rules, rank, &mut model.cells);
            (0..calls).for_each(|i| scattered_call(&mut script, i, block, owners, ends, early));
            let ops = script.ops;
            model.actor(format!("rank {rank} block {block}"), rank, ops);
        }
    }
    model
}

fn scattered_call(
    s: &mut Script<'_>,
    i: usize,
    block: usize,
    owners: usize,
    ends: bool,
    early: bool,
) {
    let peer = 1 - s.rank;
    let early = early && s.rank >= owners;
    if block == 0 {
        s.begin(i);
    }
    s.open_bank(i, |_, _, _| Vec::new());
    if early {
        arrive(s);
    }
    if peer < owners {
        s.send(peer, block, i);
    }
    if s.rank < owners {
        s.meet(i);
        s.receive(peer, 1 - block, i);
    }
    if !ends {
        return;
    }
    if !early {
        arrive(s);
    }
    let index = s.cells.get(s.rank, "index");
    s.kernel_end(i);
    let what = format!("index after call {i}");
    s.push(Op::check(index, 2 * (i as u16 + 1), what));
    s.user_end(i);
}

/// Lets a block arrive, by its share of the index.
fn arrive(s: &mut Script<'_>) {
    let cell = s.cells.get(s.rank, "index");
    s.push(Op::Arrive {
        cell,
        release: false,
    });
}

/// What blocks have for peers they tell them by signals of their own, and that the rank has left the call is told by `entered` of the
/// next one: so blocks arrive without a fence where nothing is stored into outputs.
#[test]
fn arrival_needs_no_fence_where_nothing_is_stored_into_outputs() {
    for owners in [1, 2] {
        let model = |calls| scattered(calls, owners, true, false);
        assert_clean("4 calls", &model(4), Memory::Sequential);
        assert_clean("3 calls", &model(3), Memory::Relaxed);
    }
}

/// Nor need they have sent what they send: it is the end of the kernel that orders this before the next call.
#[test]
fn blocks_may_arrive_before_they_send_what_they_speak_for_themselves() {
    let model = |calls| scattered(calls, 1, true, true);
    assert_clean("4 calls", &model(4), Memory::Sequential);
    assert_clean("3 calls", &model(3), Memory::Relaxed);
}

/// The first block says `entered` when all blocks of the call before have ended. A launch that begins earlier says it while a sibling
/// still reads what the peer then writes over.
#[test]
fn a_launch_that_says_entered_early_reads_wrong_data() {
    let model = scattered(3, 1, false, false);
    assert_fails("no end", &model, Memory::Sequential, Bad::WrongData);
}

/// Two launches of `one_shot`, one block on rank 0 and two on rank 1. Every block reads the index from memory as it begins;
/// a block that reads the previous launch's index runs the previous call again, with this launch's data.
pub(crate) fn launches(early: bool) -> Model {
    let ring = Arithmetic::ring(7);
    let mut model = Model::new(Cells::default(), ring.reached);
    for rank in 0..2 {
        for launch in 0..2_u16 {
            for block in 0..=rank {
                let ops = launched_block(&mut model.cells, ring, rank, block, launch, early);
                model.actor(
                    format!("rank {rank} launch {launch} block {block}"),
                    rank,
                    ops,
                );
            }
        }
    }
    model
}

fn launched_block(
    cells: &mut Cells,
    ring: Arithmetic,
    rank: usize,
    block: usize,
    launch: u16,
    early: bool,
) -> Vec<Op> {
    let blocks = rank as u16 + 1;
    let peer = 1 - rank;
    let mut at = |home: usize, name: String| cells.get(home, name);
    let index = at(rank, "index".into());
    let begun = |n: u16| format!("blocks begun of launch {n}");
    let ended = |n: u16| format!("blocks ended of launch {n}");
    let mut ops = Vec::new();
    if launch > 0 {
        // In stream order the previous kernel has ended; an early launch needs only that its blocks have begun.
        let before = if early {
            begun(launch - 1)
        } else {
            ended(launch - 1)
        };
        ops.push(wait_count(at(rank, before), blocks));
    }
    ops.push(Op::Arrive {
        cell: at(rank, begun(launch)),
        release: false,
    });
    let read_index = ops.len();
    ops.push(Op::Branch {
        cell: index,
        value: launch,
        otherwise: 0,
    });
    let never = at(rank, "never".into());
    let mut leaves = Vec::new();
    // The call of the index that was read: this launch's, or the previous one's.
    for stale in [0, launch.min(1)] {
        let i = launch - stale;
        if stale == 1 {
            leaves.push(ops.len());
            ops.push(Op::Branch {
                cell: never,
                value: 1,
                otherwise: 0,
            });
            let here = ops.len() as u16;
            ops[read_index] = Op::Branch {
                cell: index,
                value: launch,
                otherwise: here,
            };
        }
        let bank = iris_sync::bank(u64::from(i));
        let value = (ring.value)(1, u64::from(i));
        let staging =
            |from: usize, tile: usize| format!("staging[bank {bank}][from {from}][tile {tile}]");
        let ready =
            |from: usize, tile: usize| format!("ready[bank {bank}][from {from}][tile {tile}]");
        ops.push(Op::store(at(peer, staging(rank, block)), launch + 1));
        ops.push(Op::release(at(peer, ready(rank, block)), value));
        for tile in 0..=peer {
            ops.push(Op::wait(at(rank, ready(peer, tile)), value, Compare::Equal));
            let what = format!("launch {launch}: tile {tile} of rank {peer}");
            ops.push(Op::check(at(rank, staging(peer, tile)), launch + 1, what));
        }
        leaves.push(ops.len());
        let arrived = at(rank, "arrived".into());
        ops.push(Op::ArriveLast {
            cell: arrived,
            of: blocks,
            release: true,
            otherwise: 0,
        });
        ops.push(Op::store(index, i + 1));
        if launch == 0 {
            break;
        }
    }
    let end = ops.len() as u16;
    for leave in leaves {
        if let Op::ArriveLast { otherwise, .. } | Op::Branch { otherwise, .. } = &mut ops[leave] {
            *otherwise = end;
        }
    }
    if launch == 0 {
        ops[read_index] = Op::check(index, 0, "the first launch's index");
    }
    ops.push(Op::Arrive {
        cell: at(rank, ended(launch)),
        release: true,
    });
    ops
}

/// A following kernel does not read the index before the last block of this one has advanced it: launched early, one of its
/// blocks runs the previous call again, and stores its tile where that call's readers still read.
#[test]
fn an_index_read_by_an_early_launch_reads_wrong_data() {
    assert_clean("stream order", &launches(false), Memory::Sequential);
    assert_fails(
        "early launch",
        &launches(true),
        Memory::Sequential,
        Bad::WrongData,
    );
}

/// One call of a `one_shot` of its own, called `name`, between 2 ranks of one block.
fn exchange(cells: &mut Cells, name: &str, rank: usize, i: u16) -> Vec<Op> {
    exchange_signalling(cells, name, rank, i, i + 1)
}

/// The same, signalling `signal` where its peer awaits `i + 1`.
fn exchange_signalling(cells: &mut Cells, name: &str, rank: usize, i: u16, signal: u16) -> Vec<Op> {
    let peer = 1 - rank;
    let bank = iris_sync::bank(u64::from(i));
    let mut at = |home: usize, word: &str| cells.get(home, format!("{name} {word}"));
    let mut ops = vec![Op::release(at(peer, "entered"), i + 1)];
    if i >= 2 {
        ops.push(Op::wait(at(rank, "entered"), i, Compare::AtLeast));
    }
    let (staging, ready) = (format!("staging[{bank}]"), format!("ready[{bank}]"));
    ops.push(Op::store(at(peer, &staging), i + 1));
    ops.push(Op::release(at(peer, &ready), signal));
    ops.push(Op::wait(at(rank, &ready), i + 1, Compare::Equal));
    ops.push(Op::check(
        at(rank, &staging),
        i + 1,
        format!("{name}, call {i}"),
    ));
    ops
}

fn monotone() -> fn(u16, u16) -> bool {
    Arithmetic::ring(127).reached
}

/// Two operations that may run at once on a device are ordered the same on every rank, unless their grids fit together:
/// else each may fill one device and wait for its other half, which finds no room on the other.
#[test]
fn two_operations_that_fill_the_device_deadlock_on_two_streams() {
    let mut one_stream = Model::new(Cells::default(), monotone());
    for rank in 0..2 {
        let mut ops = Vec::new();
        for i in 0..4 {
            for (k, name) in [(0, "X"), (1, "Y")] {
                ops.extend(exchange(&mut one_stream.cells, name, rank, i));
                ops.push(Op::Join(u32::from(i) * 2 + k));
            }
        }
        one_stream.actor(format!("rank {rank}"), rank, ops);
    }
    for memory in BOTH {
        assert_clean("one stream", &one_stream, memory);
    }
    let two_streams = |room_for_both: bool| {
        let mut model = Model::new(Cells::default(), monotone());
        for rank in 0..2 {
            for name in ["X", "Y"] {
                let room = if room_for_both {
                    format!("room for {name}")
                } else {
                    "room".into()
                };
                let room = model.cells.get(rank, room);
                let mut ops = Vec::new();
                for i in 0..3 {
                    ops.push(Op::lock(room));
                    ops.extend(exchange(&mut model.cells, name, rank, i));
                    ops.push(Op::store(room, 0));
                }
                model.actor(format!("rank {rank} stream {name}"), rank, ops);
            }
        }
        model
    };
    assert_clean(
        "grids that fit together",
        &two_streams(true),
        Memory::Sequential,
    );
    assert_fails(
        "two streams",
        &two_streams(false),
        Memory::Sequential,
        Bad::Deadlock,
    );
}

/// A grid whose blocks wait is no larger than what is resident at once: else a block waits for a peer's tile whose block
/// finds no room.
#[test]
fn a_grid_larger_than_what_is_resident_deadlocks() {
    let grid = |resident: usize| {
        let mut model = Model::new(Cells::default(), monotone());
        for rank in 0..2 {
            for block in 0..2 {
                let room = model.cells.get(rank, format!("room {}", block % resident));
                let mut ops = vec![Op::lock(room)];
                ops.extend(exchange(
                    &mut model.cells,
                    &format!("tile {block}"),
                    rank,
                    0,
                ));
                ops.push(Op::store(room, 0));
                model.actor(format!("rank {rank} block {block}"), rank, ops);
            }
        }
        model
    };
    assert_clean("all resident", &grid(2), Memory::Sequential);
    assert_fails("one resident", &grid(1), Memory::Sequential, Bad::Deadlock);
}

/// A copy engine's signal copies a device word that holds the call's value: a value written by the stream itself is frozen
/// in a captured graph, here one of two calls.
#[test]
fn a_copy_engines_captured_signal_deadlocks() {
    let copies = |captured: bool| {
        let mut model = Model::new(Cells::default(), monotone());
        for rank in 0..2 {
            let mut ops = Vec::new();
            for i in 0..4 {
                let signal = if captured { i % 2 + 1 } else { i + 1 };
                ops.extend(exchange_signalling(
                    &mut model.cells,
                    "copy",
                    rank,
                    i,
                    signal,
                ));
                ops.push(Op::Join(u32::from(i)));
            }
            model.actor(format!("rank {rank}"), rank, ops);
        }
        model
    };
    assert_clean("a device word", &copies(false), Memory::Sequential);
    assert_fails("captured", &copies(true), Memory::Sequential, Bad::Deadlock);
}
