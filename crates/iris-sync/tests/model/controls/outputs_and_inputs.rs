//! User memory that peers write or read, and the order of work inside a call.

use super::*;

/// Nobody stores into another rank's output before having seen its `entered`: its user may still read the last call's.
#[test]
fn storing_before_entered_overwrites_what_the_user_reads() {
    let removed = Rules {
        entered: false,
        ..RULES()
    };
    control(matmul_all_gather, &two_owners(), removed, Bad::WrongData);
    let nothing_awaited = World::new(2, 3, &[0]).on(7, 1).without_depth(1);
    control(two_shot, &nothing_awaited, removed, Bad::WrongData);
    // Where the owner waits for a contribution of that rank in the same call, that is implied.
    let model = build(
        two_shot,
        &two_owners(),
        &Rules {
            gathered: Gathered::Owners,
            ..removed
        },
    );
    assert_clean("implied", &model, Memory::Sequential);
}

/// A call ends only once every owner's stores into this rank's output have arrived: else the user reads the last call's.
#[test]
fn a_call_that_does_not_await_gathered_leaves_holes_in_the_output() {
    let removed = Rules {
        await_gathered: false,
        ..RULES()
    };
    control(two_shot, &two_owners(), removed, Bad::WrongData);
    control(matmul_all_gather, &two_owners(), removed, Bad::WrongData);
}

/// Whoever lets peers pull from user memory waits until they have read it in this call: the user may overwrite it next.
#[test]
fn pulled_inputs_without_an_exit_wait_are_overwritten() {
    let removed = Rules {
        exit_wait: false,
        ..RULES()
    };
    control(
        all_gather_matmul_pull,
        &two_owners(),
        removed,
        Bad::WrongData,
    );
    control(
        all_gather_matmul_pull,
        &one_owner(),
        removed,
        Bad::WrongData,
    );
}

/// A rank produces all its tiles before it waits for one to reduce.
#[test]
fn interleaved_produce_and_wait_deadlocks() {
    let removed = Rules {
        produce_first: false,
        ..RULES()
    };
    control(two_shot, &World::new(2, 1, &[0, 1]), removed, Bad::Deadlock);
    control(
        two_shot,
        &World::new(3, 1, &[0, 1, 2]),
        removed,
        Bad::Deadlock,
    );
}
