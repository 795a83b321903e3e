//! Additions into shared accumulators.

use super::*;

fn world() -> World {
    World::new(2, 6, &[0]).on(7, 4)
}

/// Accumulators are zeroed by their reader, behind itself. Zeroed by the own kernel as it begins, they lose what a fast
/// peer has added already; ...
#[test]
fn zeroing_in_the_own_kernel_loses_a_fast_peers_additions() {
    assert_clean(
        "atomic",
        &build(atomic, &world(), &RULES()),
        Memory::Sequential,
    );
    let removed = Rules {
        zeroing: Zeroing::OwnKernel,
        ..RULES()
    };
    let model = build(atomic_into_output, &world(), &removed);
    assert_fails("own kernel", &model, Memory::Sequential, Bad::WrongData);
}

/// ... so they do where a memset on the own stream zeroes them.
#[test]
fn zeroing_by_memset_loses_a_fast_peers_additions() {
    assert_clean(
        "atomic",
        &build(atomic, &world(), &RULES()),
        Memory::Sequential,
    );
    let removed = Rules {
        zeroing: Zeroing::Memset,
        ..RULES()
    };
    let model = build(atomic_into_output, &world(), &removed);
    assert_fails("memset", &model, Memory::Sequential, Bad::WrongData);
}

/// The first addition to a bank comes behind the gate: whose accumulators they are has left the call in which it read and cleared
/// them.
#[test]
fn adding_before_the_gate_loses_additions() {
    for gate in [Gate::None, Gate::TwoBefore] {
        let removed = Rules { gate, ..RULES() };
        control(atomic_at_owner, &world(), removed, Bad::WrongData);
        control(spinlock_at_owner, &world(), removed, Bad::WrongData);
        // Implied where every rank awaits every other's additions in every call: those of the next follow the clearing.
        assert_clean(
            "implied",
            &build(atomic, &world(), &removed),
            Memory::Sequential,
        );
    }
}

/// What is not one atomic step needs the lock.
#[test]
fn adding_without_the_lock_loses_additions() {
    let removed = Rules {
        locked: false,
        ..RULES()
    };
    control(spinlock, &World::new(2, 2, &[0]), removed, Bad::WrongData);
}
