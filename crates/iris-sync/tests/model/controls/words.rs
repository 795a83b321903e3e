//! What words say, who says it, and how long it is believed.

use super::*;
use crate::packets::packets_or_two_shot;

/// Words that announce data are banked and awaited by equality: then a call that a rank left out in a fault is awaited
/// until the budget ends, and never taken for its successor.
#[test]
fn a_word_without_a_bank_takes_a_left_out_call_for_its_successor() {
    let world = World {
        left_out: Some((1, 1)),
        ..World::new(2, 4, &[0, 1])
    };
    for operation in [one_shot as Operation, all_gather_matmul] {
        // Without the check of m, which would find the left-out call before.
        let rules = Rules {
            entered: false,
            ..RULES()
        };
        let outcome = explore(&build(operation, &world, &rules), Memory::Sequential);
        assert!(
            outcome.deadlock.is_some(),
            "the wait must not end: {outcome:?}"
        );
        assert_eq!(outcome.wrong, None);
        let removed = Rules {
            banked_words: false,
            announced: Compare::Reached,
            ..rules
        };
        let model = build(operation, &world, &removed);
        assert_fails(
            "not banked, reached",
            &model,
            Memory::Sequential,
            Bad::WrongData,
        );
    }
}

/// A writer clears the `ready` words that the bank's previous call used and this one does not: a tile that is unused
/// for 2 MAX calls exactly finds its own word of that many calls ago, which has the same value and lies in the same bank.
#[test]
fn an_uncleared_ready_word_of_two_laps_ago_is_believed() {
    let removed = Rules {
        clear_ready: false,
        ..RULES()
    };
    let unused_for = |calls: usize, small: &[usize], large: &[usize]| {
        let mut world = World::new(2, calls + 1, small).on(7, 3);
        world.calls[0] = large.to_vec();
        world.calls[calls] = large.to_vec();
        world
    };
    for operation in [
        one_shot as Operation,
        two_shot,
        reduce_scatter,
        all_gather_matmul,
    ] {
        let world = unused_for(14, &[0], &[0, 0]);
        control(operation, &world, removed, Bad::WrongData);
        // No other distance brings value and bank back together.
        for calls in [7, 12, 13] {
            let world = unused_for(calls, &[0], &[0, 0]);
            assert_clean(
                "not 14",
                &build(operation, &world, &removed),
                Memory::Sequential,
            );
        }
    }
}

/// Every rank pushes `gathered` in every call that has owners: else a rank that owns nothing until its value comes round again finds
/// its word of a lap ago believed.
#[test]
fn gathered_by_owners_only_is_believed_a_lap_later() {
    let removed = Rules {
        gathered: Gathered::Owners,
        ..RULES()
    };
    let owned_again_after = |calls: usize| {
        let mut world = World::new(2, calls + 1, &[0]).on(7, 1);
        world.calls[0] = vec![0, 1];
        world.calls[calls] = vec![0, 1];
        world
    };
    for operation in [two_shot as Operation, matmul_all_gather] {
        control(operation, &owned_again_after(7), removed, Bad::WrongData);
        for calls in [6, 8] {
            let model = build(operation, &owned_again_after(calls), &removed);
            assert_clean("not 7", &model, Memory::Sequential);
        }
    }
}

/// Calls with owners, a lap or more apart, between calls of which none has any.
fn owners_after(laps: usize, first: u16) -> World {
    let mut world = World::new(2, 7 * laps + 1, &[0]).on(7, first);
    world.calls[0] = vec![0, 1];
    world.calls[7 * laps] = vec![0, 1];
    world
}

/// Of calls without owners, it is pushed in those of two values of each lap. Without, a lap of such calls leaves a word as it is, ...
#[test]
fn gathered_of_a_lap_without_owners_is_believed() {
    let removed = Rules {
        sweep_gathered: [0; 2],
        ..RULES()
    };
    for first in 1..=7 {
        for laps in [1, 2] {
            let world = owners_after(laps, first);
            control(packets_or_two_shot, &world, removed, Bad::WrongData);
        }
    }
}

/// ... and one value does not do: between two calls of just this value there is no other of it. Any two would.
#[test]
fn gathered_swept_once_a_lap_is_believed_a_lap_later() {
    for value in 1..=7 {
        let removed = Rules {
            sweep_gathered: [value; 2],
            ..RULES()
        };
        for first in 1..=7 {
            let world = owners_after(1, first);
            if value == first {
                control(packets_or_two_shot, &world, removed, Bad::WrongData);
                // Also where the word comes from a call without owners.
                let mut world = owners_after(1, first);
                world.calls[0] = vec![0];
                control(packets_or_two_shot, &world, removed, Bad::WrongData);
            } else {
                let model = build(packets_or_two_shot, &world, &removed);
                assert_clean("of another value", &model, Memory::Sequential);
            }
        }
    }
    for one in 1..=7 {
        for other in one + 1..=7 {
            let rules = Rules {
                sweep_gathered: [one, other],
                ..RULES()
            };
            for first in 1..=7 {
                for laps in [1, 2] {
                    let model = build(packets_or_two_shot, &owners_after(laps, first), &rules);
                    assert_clean("of two values", &model, Memory::Sequential);
                }
            }
        }
    }
}

/// To a peer it is pushed only after it has seen that peer's `entered`: else it overwrites the word of the call before, which
/// its peer, waiting for equality, has not seen yet.
#[test]
fn gathered_pushed_before_entered_is_seen_deadlocks() {
    let removed = Rules {
        gathered: Gathered::AllUnseen,
        ..RULES()
    };
    let world = World::new(2, 4, &[]).on(7, 1).varying(&[&[0, 1], &[0]]);
    for operation in [two_shot as Operation, matmul_all_gather] {
        control(operation, &world, removed, Bad::Deadlock);
    }
}

/// So it is in calls without owners: rank 1 has no depth, so rank 0 waits there for nobody.
#[test]
fn gathered_swept_before_entered_is_seen_deadlocks() {
    let removed = Rules {
        gathered: Gathered::AllUnseen,
        ..RULES()
    };
    for first in [7, 2] {
        let world = World::new(2, 2, &[]).on(7, first);
        let world = world.varying(&[&[0, 1], &[0]]).without_depth(1);
        control(packets_or_two_shot, &world, removed, Bad::Deadlock);
    }
}

/// The caller's m lies in one of four copies beside `entered`: with two, a reader may find the m of a call two later.
/// Three would do.
#[test]
fn two_copies_of_m_hold_that_of_a_peer_two_calls_ahead() {
    for ranks in [2, 3] {
        let world = World::new(ranks, 7, &[0]).on(7, 5);
        for copies in [1, 2] {
            let removed = Rules {
                size_copies: copies,
                ..RULES()
            };
            control(reduce_scatter, &world, removed, Bad::WrongData);
        }
        for copies in [3, 4] {
            let rules = Rules {
                size_copies: copies,
                ..RULES()
            };
            for operation in [one_shot as Operation, two_shot, reduce_scatter, atomic] {
                let model = build(operation, &world, &rules);
                assert_clean("enough copies", &model, Memory::Sequential);
            }
        }
    }
}

/// A signal is a release store. (Where peers pull the user's own A, the end of the user's kernel has made it visible.)
#[test]
fn a_signal_that_is_no_release_reads_wrong_data() {
    let removed = Rules {
        release: false,
        ..RULES()
    };
    let world = World::new(2, 2, &[0, 1]).on(7, 7);
    for operation in [
        one_shot as Operation,
        one_shot_pull,
        two_shot,
        reduce_scatter,
        all_gather_matmul,
        matmul_all_gather,
        atomic,
        barrier,
    ] {
        control_in(Memory::Relaxed, operation, &world, removed, Bad::WrongData);
    }
    let world = World::new(2, 2, &[0]).on(7, 7);
    control_in(Memory::Relaxed, spinlock, &world, removed, Bad::WrongData);
}
