//! What words say, who says it, and how long it is believed.

use super::*;

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

/// Every rank pushes `gathered` in every call: else a rank that owns nothing until its value comes round again finds its
/// word of a lap ago believed.
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

/// ... and to a peer only after it has seen that peer's `entered`: else it overwrites the word of the call before, which
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

/// Every rank says `done` in every call: where sizes vary, a gate may wait for a rank that read nothing two calls ago.
#[test]
fn done_by_readers_only_deadlocks_where_sizes_vary() {
    let removed = Rules {
        done_by_all: false,
        ..RULES()
    };
    let world = World::new(2, 5, &[]).varying(&[&[0], &[0], &[0, 1], &[0, 1], &[0, 1]]);
    control(reduce_scatter, &world, removed, Bad::Deadlock);
    control(two_shot, &world, removed, Bad::Deadlock);
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
