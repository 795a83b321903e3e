//! Who waits at the gate, and when.

use super::*;

/// Whoever writes a bank waits until its previous readers are through.
#[test]
fn no_gate_reads_wrong_data() {
    let removed = Rules {
        gate: Gate::None,
        ..RULES()
    };
    control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
    control(all_gather_matmul, &one_owner(), removed, Bad::WrongData);
}

/// Every rank waits at the gate, also one that neither writes nor reads: else it runs ahead of the ring, and what it
/// says lies half a lap away from what its peers wait for.
#[test]
fn a_gate_for_writers_only_deadlocks() {
    let removed = Rules {
        gate: Gate::Writers,
        ..RULES()
    };
    let world = World::new(3, 9, &[0]).on(7, 1).without_depth(2);
    control(reduce_scatter, &world, removed, Bad::Deadlock);
}

/// At index 0 and 1 there is no gate: nobody ever says `done` of the calls before.
#[test]
fn a_gate_at_index_0_and_1_deadlocks() {
    let removed = Rules {
        gate: Gate::FromTheStart,
        ..RULES()
    };
    for first in [1, 4, 7] {
        let world = World::new(2, 2, &[0, 1]).on(7, first);
        control(one_shot, &world, removed, Bad::Deadlock);
    }
}

/// Whether there is a gate follows from the index. From the value, a counter that starts below the wrap has a gate too
/// early, ...
#[test]
fn a_gate_from_the_value_deadlocks_where_the_counter_starts_high() {
    let removed = Rules {
        gate: Gate::ByValue,
        ..RULES()
    };
    control(
        one_shot,
        &World::new(2, 4, &[0, 1]).on(7, 6),
        removed,
        Bad::Deadlock,
    );
}

/// ... and one that comes round has none when it needs one;
#[test]
fn a_gate_from_the_value_reads_wrong_data_after_the_wrap() {
    let removed = Rules {
        gate: Gate::ByValue,
        ..RULES()
    };
    control(
        reduce_scatter,
        &World::new(2, 11, &[0]).on(7, 1),
        removed,
        Bad::WrongData,
    );
}

/// ... a word that is still 0 may also mean that a peer has not even finished its first call.
#[test]
fn a_gate_that_zero_opens_reads_wrong_data() {
    let removed = Rules {
        gate: Gate::ByZeroWord,
        ..RULES()
    };
    control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
}
