//! What is dropped while calls are under way.

use crate::rig::{M, Rig, sizes};
use crate::support::{budget, threads};
use iris_heap::device::RankStream;
use iris_ops::Variant;
use iris_testkit::device::Gpus;
use std::thread::sleep;
use std::time::Duration;

const LATE: Duration = Duration::from_millis(200);

/// Rank 0 drops operation, operands and stream while its calls wait for the other ranks, which come late. They are right all the
/// same, and the world can go on.
#[test]
fn an_operation_may_be_dropped_with_its_calls_under_way() {
    let Some(gpus) = Gpus::take("drops::operation", 1) else {
        return;
    };
    threads(gpus.devices().len().max(2), &gpus, |world| {
        for variant in [Variant::OneShot, Variant::TwoShot, Variant::Atomic] {
            let config = sizes().variant(variant).budget(budget());
            let mut rig = Rig::new(world, config.clone())?;
            let stream = RankStream::new(world)?;
            let graph = rig.capture(&stream, &[M])?;
            if world.rank() != 0 {
                sleep(LATE);
            }
            rig.calls(&stream, &[M, 3])?;
            iris_ops::device::Launch::launch(&graph, &stream, &mut [&mut rig.op])?;
            let Rig { op, operands } = rig;
            drop(op);
            drop(graph);
            operands.right(world)?;
            // Freed at once, and its memory taken again by what follows.
            let c = operands.c.clone();
            drop(operands);
            world.free_buffer(c)?;
            drop(stream);
            let mut next = Rig::new(world, config)?;
            let stream = RankStream::new(world)?;
            next.calls(&stream, &[M, 1, M])?;
            // Waits for the calls, and meets the others.
            next.op.free()?;
            next.operands.right(world)?;
            world.free_buffer(next.operands.c)?;
        }
        Ok(())
    });
}

/// The output of a queued call is freed without a word: that waits for the call.
#[test]
fn an_output_may_be_freed_with_its_call_under_way() {
    let Some(gpus) = Gpus::take("drops::output", 1) else {
        return;
    };
    threads(gpus.devices().len().max(2), &gpus, |world| {
        let config = sizes().variant(Variant::TwoShot).budget(budget());
        let mut rig = Rig::new(world, config)?;
        let stream = RankStream::new(world)?;
        for _ in 0..20 {
            if world.rank() != 0 {
                sleep(Duration::from_millis(5));
            }
            rig.calls(&stream, &[M; 3])?;
            world.free_buffer(rig.operands.c)?;
            // The same place, zeroed when all have it: nobody's call of before writes it any more.
            rig.operands.c = world.symmetric_buffer(M * crate::rig::N)?;
            sleep(Duration::from_millis(1));
            assert!(rig.operands.c.download()?.iter().all(|&value| value == 0.0));
        }
        rig.free(world)
    });
}
