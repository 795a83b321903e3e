//! Negative controls: each takes one rule away and sees what the rule is there to prevent. The same ranks, making the same
//! calls with the rule in place, are clean.

mod accumulators;
mod compare;
mod gates;
mod outputs_and_inputs;
mod packets;
mod value_and_bank;
mod words;

use crate::check::{assert_clean, assert_fails, explore};
use crate::engine::{Bad, Memory};
use crate::machine::Compare;
use crate::operations::*;
use crate::script::{Operation, build};
use crate::world::{BankFrom, Gate, Gathered, Rules, ValueFrom, World, Zeroing};

const RULES: fn() -> Rules = Rules::default;

/// `operation` in `world` is clean under the rules, and does `bad` under `removed`, both in `memory`. Unless the control is
/// about m, nobody looks at it then: what must be seen is a wrong tile, not another call's m.
fn control_in(memory: Memory, operation: Operation, world: &World, removed: Rules, bad: Bad) {
    let model = build(operation, world, &Rules::default());
    assert_clean("with the rule in place", &model, memory);
    let removed = Rules {
        check_size: removed.size_copies != Rules::default().size_copies,
        ..removed
    };
    let model = build(operation, world, &removed);
    assert_fails("with the rule removed", &model, memory, bad);
}

fn control(operation: Operation, world: &World, removed: Rules, bad: Bad) {
    control_in(Memory::Sequential, operation, world, removed, bad);
}

/// Two ranks, of which rank 0 owns the only tile; a ring of 7 that the calls run around.
fn one_owner() -> World {
    World::new(2, 9, &[0]).on(7, 1)
}

/// Two ranks that own one tile each.
fn two_owners() -> World {
    World::new(2, 9, &[0, 1]).on(7, 1)
}
