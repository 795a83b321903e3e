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

/// A peer that has entered the call two before may still read it: it has left it once it has entered the next.
#[test]
fn a_gate_on_the_call_two_before_reads_wrong_data() {
    let removed = Rules {
        gate: Gate::TwoBefore,
        ..RULES()
    };
    control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
    control(all_gather_matmul, &one_owner(), removed, Bad::WrongData);
}

/// Whoever says `entered` has left the call before: else the gate of the call after opens while it still reads.
#[test]
fn entered_said_before_the_call_before_is_left_reads_wrong_data() {
    let removed = Rules {
        entered_when_left: false,
        ..RULES()
    };
    for operation in [
        reduce_scatter as Operation,
        all_gather_matmul,
        atomic_at_owner,
    ] {
        let world = World::new(2, 6, &[0]).on(7, 4);
        control(operation, &world, removed, Bad::WrongData);
    }
}

/// Calls 0 and 1 need no gate: nobody has read their banks. One would cost a wait, and do no harm, since nobody waits at it before
/// having said `entered` itself.
#[test]
fn a_gate_at_index_0_and_1_does_no_harm() {
    let rules = Rules {
        gate: Gate::FromTheStart,
        ..RULES()
    };
    for operation in [one_shot as Operation, two_shot, reduce_scatter, atomic] {
        for ranks in [2, 3] {
            for first in [1, 4, 7] {
                let world = World::new(ranks, 3, &[0, 1]).on(7, first);
                let model = build(operation, &world, &rules);
                assert_clean("a gate", &model, Memory::Sequential);
            }
        }
    }
}

/// Whether there is a gate follows from the index. From the value, one that comes round has none when it needs one; ...
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

/// ... a word that is still 0 may also mean that a peer has not even begun its first call.
#[test]
fn a_gate_that_zero_opens_reads_wrong_data() {
    let removed = Rules {
        gate: Gate::ByZeroWord,
        ..RULES()
    };
    control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
}
