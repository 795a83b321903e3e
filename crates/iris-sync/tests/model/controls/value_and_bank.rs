//! Where a call's value and bank come from.

use super::*;

/// MAX is odd, so the value's parity is not the bank: the last call of a lap and the first of the next would share one.
#[test]
fn bank_from_the_values_parity_reads_wrong_data_at_the_wrap() {
    let removed = Rules {
        bank: BankFrom::Value,
        ..RULES()
    };
    control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
    control(one_shot, &two_owners(), removed, Bad::WrongData);
    // Below the wrap the parity of the value serves as well as that of the index.
    let below = World::new(2, 7, &[0]).on(7, 1);
    assert_clean(
        "no wrap",
        &build(reduce_scatter, &below, &removed),
        Memory::Sequential,
    );
}

/// The value follows from the index in memory: from a launch argument, a graph replays the values it was captured with.
#[test]
fn value_captured_in_a_graph_reads_wrong_data() {
    for calls in [1, 2, 3] {
        let removed = Rules {
            value: ValueFrom::Capture(calls),
            ..RULES()
        };
        control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
    }
}

/// So does the bank: a captured graph of three calls uses banks 0 1 0, and again 0 1 0.
#[test]
fn bank_captured_in_a_graph_reads_wrong_data() {
    let removed = Rules {
        bank: BankFrom::Capture(3),
        ..RULES()
    };
    control(one_shot, &two_owners(), removed, Bad::WrongData);
    control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
}

/// Memory that one rank writes and another reads has two banks.
#[test]
fn one_bank_reads_wrong_data() {
    let removed = Rules {
        bank: BankFrom::One,
        ..RULES()
    };
    control(one_shot, &two_owners(), removed, Bad::WrongData);
    control(one_shot_pull, &two_owners(), removed, Bad::WrongData);
    control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
    control(all_gather_matmul, &one_owner(), removed, Bad::WrongData);
    control(
        atomic,
        &World::new(2, 6, &[0]).on(7, 1),
        removed,
        Bad::WrongData,
    );
}
