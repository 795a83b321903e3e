//! Packets: `ready` words that have their data with them.

use super::*;
use crate::packets::{one_shot_packets, packets_or_two_shot};

/// Data and flag are one store and one load, and so need no order. As two, even with the flag stored last, whoever finds the flag
/// may find data of another call beside it.
#[test]
fn a_packet_that_is_not_whole_reads_wrong_data() {
    let removed = Rules {
        whole: false,
        ..RULES()
    };
    let world = World::new(2, 2, &[0]).on(7, 7);
    control_in(
        Memory::Relaxed,
        one_shot_packets,
        &world,
        removed,
        Bad::WrongData,
    );
    let model = build(one_shot_packets, &world, &removed);
    assert_clean("in the order of the program", &model, Memory::Sequential);
}

/// Calls in packets, of which the first and the last use more tiles than those between, two laps apart.
fn unused_for_two_laps(first: u16) -> World {
    let mut world = World::new(2, 15, &[0]).on(7, first);
    world.calls[0] = vec![0, 1];
    world.calls[14] = vec![0, 1];
    world
}

/// Packets that a call does not fill are cleared in the calls of two values of each lap. Without, those of two laps ago are believed.
#[test]
fn packets_that_are_not_cleared_are_believed_two_laps_later() {
    let removed = Rules {
        clear_packets: &[],
        ..RULES()
    };
    for first in 1..=7 {
        let world = unused_for_two_laps(first);
        control(one_shot_packets, &world, removed, Bad::WrongData);
    }
}

/// One value does not do: what a call of just this value fills is next looked at in one of the same value, which fills it anew, but
/// perhaps too late.
#[test]
fn packets_cleared_once_a_lap_are_believed_two_laps_later() {
    for value in [1, 3] {
        let removed = Rules {
            clear_packets: if value == 1 { &[1] } else { &[3] },
            ..RULES()
        };
        for first in 1..=7 {
            let world = unused_for_two_laps(first);
            if first == value {
                control(one_shot_packets, &world, removed, Bad::WrongData);
            } else {
                let model = build(one_shot_packets, &world, &removed);
                assert_clean("of another value", &model, Memory::Sequential);
            }
        }
    }
}

/// Calls without packets clear them too: they may be all that there are in two laps.
#[test]
fn packets_not_cleared_by_calls_without_are_believed_two_laps_later() {
    let removed = Rules {
        clear_packets_in_all: false,
        ..RULES()
    };
    for first in [2, 4, 6] {
        let mut world = World::new(2, 15, &[0, 1]).on(7, first);
        world.calls[0] = vec![0];
        world.calls[14] = vec![0];
        control(packets_or_two_shot, &world, removed, Bad::WrongData);
    }
}

/// The gate is that of all staging. That all meet in each call keeps ranks as close to each other: without either, a packet is
/// overwritten before it is seen.
#[test]
fn packets_without_a_gate_are_overwritten() {
    let gated = Rules {
        entered: false,
        ..RULES()
    };
    let removed = Rules {
        gate: Gate::None,
        ..gated
    };
    // Rank 1 sends nothing: so rank 0 waits for nobody.
    let world = World::new(2, 5, &[0]).on(7, 1).without_depth(1);
    let model = build(one_shot_packets, &world, &gated);
    assert_clean("with the gate", &model, Memory::Sequential);
    let model = build(one_shot_packets, &world, &removed);
    assert_fails("without", &model, Memory::Sequential, Bad::Deadlock);
}
