//! How words are compared, and on which rings.

use super::*;

/// A gate's word may have moved past what the gate waits for, so it is compared by *reached*.
#[test]
fn equality_at_gates_deadlocks() {
    let removed = Rules {
        progress: Compare::Equal,
        ..RULES()
    };
    for operation in [
        one_shot as Operation,
        two_shot,
        reduce_scatter,
        matmul_all_gather,
    ] {
        control(operation, &two_owners(), removed, Bad::Deadlock);
    }
}

/// *Reached* goes around the ring with the values: a plain `>=` never holds for what was written after the wrap.
#[test]
fn at_least_deadlocks_at_the_wrap() {
    let removed = Rules {
        progress: Compare::AtLeast,
        ..RULES()
    };
    for operation in [
        one_shot as Operation,
        two_shot,
        reduce_scatter,
        matmul_all_gather,
    ] {
        control(operation, &two_owners(), removed, Bad::Deadlock);
        let below = World::new(2, 7, &[0, 1]).on(7, 1);
        assert_clean(
            "no wrap",
            &build(operation, &below, &removed),
            Memory::Sequential,
        );
    }
}

/// ... and always holds for what was written before it.
#[test]
fn at_least_reads_wrong_data_at_the_wrap() {
    let removed = Rules {
        progress: Compare::AtLeast,
        ..RULES()
    };
    control(matmul_all_gather, &one_owner(), removed, Bad::WrongData);
    control(
        two_shot,
        &one_owner().without_depth(1),
        removed,
        Bad::WrongData,
    );
}

/// The ring has at least 7 values: on a smaller one the half lap is shorter than the ranks' distance.
#[test]
fn rings_of_3_and_5_deadlock() {
    for ring in [3, 5] {
        let world = World::new(2, 9, &[0]).on(ring, 1);
        let model = build(reduce_scatter, &world, &RULES());
        assert_fails("a small ring", &model, Memory::Sequential, Bad::Deadlock);
    }
    assert_clean(
        "7",
        &build(reduce_scatter, &one_owner(), &RULES()),
        Memory::Sequential,
    );
}
