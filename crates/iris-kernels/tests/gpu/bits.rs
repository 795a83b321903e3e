//! Results whose bits must not depend on who was first.

use crate::harness::{Build, Case, Ranks, Stalls};
use iris_kernels::DType;
use iris_kernels::host::Program;
use iris_testkit::device::Gpus;
use std::time::Duration;

const ROWS: [usize; 5] = [200, 1, 333, 64, 130];

#[test]
fn one_shot_and_two_shot_have_the_same_bits_on_every_rank_and_in_every_run() {
    let Some(gpus) = Gpus::take("bits", 1) else {
        return;
    };
    let mut cases = Vec::new();
    for program in [
        Program::OneShot,
        Program::OneShotPackets,
        Program::TwoShot,
        Program::TwoShotPackets,
    ] {
        for dtype in DType::ALL {
            let mut case = Case::new(program, dtype, &ROWS, 257, 391);
            case.build = Build::Stalls;
            case.inexact = true;
            cases.push(case);
        }
    }
    for placement in gpus.worlds() {
        let ranks = Ranks::new(&gpus, placement, &cases);
        for case in &cases {
            let digests = |seed: u64, run: u64| {
                let mut case = case.clone();
                case.seed = seed;
                case.blocks = vec![[0, 3, 1, 17][run as usize % 4]];
                case.stalls = Stalls::Random {
                    seed: run,
                    one_in: 2,
                    longest: Duration::from_millis(2),
                };
                let reports = ranks.run(&case, |side| {
                    for call in 0..2 * ROWS.len() as u64 {
                        side.fill(call)?;
                        side.launch(call)?;
                        side.digest(call)?;
                    }
                    Ok(())
                });
                for report in &reports {
                    assert_eq!(report.index, 2 * ROWS.len() as u64, "{report:?}");
                }
                reports
                    .iter()
                    .map(|report| report.found.digest)
                    .collect::<Vec<_>>()
            };
            let first = digests(1, 0);
            assert!(
                first.iter().all(|digest| *digest == first[0]),
                "ranks differ: {first:x?}\n{case:?}"
            );
            for run in 1..5 {
                assert_eq!(digests(1, run), first, "runs differ: {case:?}");
            }
            // Of other inputs there is another one: it speaks of the result at all.
            assert_ne!(digests(2, 0), first, "{case:?}");
        }
    }
}
