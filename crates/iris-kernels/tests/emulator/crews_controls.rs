//! Negative controls of what crews of a block rely on among each other: with a line of the source taken out, some case is wrong, ends in
//! a fault, or stands still.

use crate::cases::MAX;
use crate::compile::compiler;
use crate::crews::{
    deep, few_streamed, in_pairs, late_depths, late_partners, late_parts, late_rows, run,
    run_patiently, shared_by_many, streamed,
};
use crate::kinds::{OfCrews, of_wide_waves, op_of, with};
use iris_kernels::DType;
use iris_kernels::host::{GatherDim, Program};
use iris_sync::Phase;

const ROWS: Program = Program::AllGatherMatmul(GatherDim::Rows);
const COLUMNS: Program = Program::AllGatherMatmul(GatherDim::Columns);

/// What is taken out of the kernel of a program, and put in its place.
struct Control {
    program: Program,
    tile: (usize, usize),
    rule: &'static str,
    instead: &'static str,
    cases: Vec<String>,
}

fn check(control: &Control) {
    if compiler().is_none() {
        return;
    }
    check_of(
        &OfCrews::new(control.program, control.tile, DType::BF16, MAX),
        control,
    );
}

fn check_of(kernel: &OfCrews, control: &Control) {
    let changed = kernel.compile_as(&with(kernel.text(), control.rule, control.instead));
    // Who is late differs from one run to the next.
    let fails = (0..20).any(|round| {
        let mut cases = control.cases.chunks(1).zip(100 * round..);
        cases.any(|(case, seed)| run(&changed, case, seed) != ["ok"])
    });
    assert!(
        fails,
        "{} is right without {}",
        op_of(control.program),
        control.rule
    );
}

/// All of them with the same cases.
fn check_all(program: Program, cases: &[String], controls: &[(&'static str, &'static str)]) {
    for &(rule, instead) in controls {
        check(&Control {
            program,
            tile: (64, 64),
            rule,
            instead,
            cases: cases.to_vec(),
        });
    }
}

#[test]
fn a_slab_is_waited_for_before_it_is_read_and_read_before_it_is_overwritten() {
    check_all(
        Program::MatmulAllGather,
        &deep("matmul_all_gather"),
        &[
            (
                "                await_phase(ring.empty(place.stage), place.parity ^ 1);\n                if (Op::UNPACKS",
                "                if (Op::UNPACKS",
            ),
            (
                "        await_phase(ring.full(place.stage), place.parity);\n        begin_multiplying();",
                "        begin_multiplying();",
            ),
            ("            await_multiplied<1>();\n", ""),
            (
                "    await_multiplied<0>();\n    if (speaks) {",
                "    if (speaks) {",
            ),
        ],
    );
}

/// A that comes in packets: what the movers rely on who fill the ring beside the loader.
#[test]
fn packets_of_a_are_waited_for_and_put_where_nobody_reads() {
    let mut cases = late_parts(false);
    cases.extend(deep(op_of(Program::AllGatherMatmulPackets)));
    check_all(
        Program::AllGatherMatmulPackets,
        &cases,
        &[
            ("            whole = whole && await(sent, slab);\n", ""),
            (
                "            await_phase(ring.empty(place.stage), place.parity ^ 1);\n            IRIS_UNROLL",
                "            IRIS_UNROLL",
            ),
            (
                "            fence_async_shared();\n            sync_wave();\n            if (lane_index() == 0) {",
                "            sync_wave();\n            if (lane_index() == 0) {",
            ),
            (
                "            sync_wave();\n            if (lane_index() == 0) {\n                arrive(ring.full",
                "            if (lane_index() == 0) {\n                arrive(ring.full",
            ),
            ("ring.make(Op::UNPACKS ? TEAM : 0);", "ring.make(0);"),
        ],
    );
}

#[test]
fn a_finished_tile_is_there_before_it_is_taken_and_taken_before_it_is_overwritten() {
    check_all(
        Program::MatmulAllGather,
        &deep("matmul_all_gather"),
        &[
            (
                "            await_phase(ring.finished(group), parity);\n",
                "",
            ),
            (
                "            await_phase(ring.taken(group), parity);\n            parity ^= 1;",
                "parity ^= 1;",
            ),
            (
                "            await_copies_read();\n            sync_block();",
                "            sync_block();",
            ),
            (
                "            await_copies_read();\n            sync_block();",
                "            await_copies_read();",
            ),
        ],
    );
    // Blocks copy, once all have arrived, what others have left in the output.
    let bounced: Vec<_> = deep("matmul_all_gather")
        .iter()
        .map(|case| format!("{case} bounced=1"))
        .collect();
    check_all(
        Program::MatmulAllGather,
        &bounced,
        &[(
            "        await_copies();\n    }\n    return go;",
            "    }\n    return go;",
        )],
    );
}

#[test]
fn parts_of_an_own_tile_are_waited_for() {
    let late = |phase: u64| {
        vec![
            format!("world=3 m=200,200 n=260 k=300 blocks=2 stall=1,1,{phase},200"),
            format!("world=2 m=200,200 n=260 k=300 blocks=1 stall=0,1,{phase},200"),
        ]
    };
    for (rule, instead) in [
        (
            "parts_first = go && op.rank.call.is_ready_from(work.index, from);",
            "parts_first = go;",
        ),
        (
            "            go = go && op.rank.call.await_ready_from(work.index, from);\n",
            "",
        ),
        (
            "            await_phase(ring.full(place.stage), place.parity);\n            if (group == own_group)",
            "            if (group == own_group)",
        ),
    ] {
        for program in [Program::TwoShot, Program::ReduceScatter] {
            check(&Control {
                program,
                tile: (64, 64),
                rule,
                instead,
                cases: [late(Phase::Ready as u64), deep(op_of(program))].concat(),
            });
        }
    }
}

#[test]
fn stages_of_a_are_waited_for() {
    for program in [ROWS, COLUMNS] {
        check_all(
            program,
            &late_parts(program == COLUMNS),
            &[
                (
                    "depth_after(stage + whole)",
                    "depth_after(stage + 1 + whole)",
                ),
                (
                    "late < count ? row + late / span.count : rows",
                    "late < count ? row + 1 + late / span.count : rows",
                ),
                (
                    "                await_phase(ring.flight(place.stage), 0);\n",
                    "",
                ),
                (
                    "                        go = op.arrived_at(wanted, depth);",
                    "                        depth = needed;",
                ),
            ],
        );
    }
    // Of tiles of some of the rows the words of the next stage do not follow those of this one.
    check_all(
        COLUMNS,
        &late_parts(true),
        &[
            (
                "span.first + row * span.apart",
                "span.first + row * span.count",
            ),
            (
                "span.count != span.apart || span.count == 0 ? 1",
                "span.count == 0 ? 1",
            ),
        ],
    );
}

/// A loader does not look for itself where a courier has told it of this tile that all of its A is there.
#[test]
fn what_a_courier_foresees_is_there() {
    check_all(
        ROWS,
        &late_rows(),
        &[
            (
                "        if (op.has_arrived(wanted)) {\n",
                "        op.has_arrived(wanted);\n        {\n",
            ),
            (
                "told_to_block(shared.foreseen) == stint.step + 1",
                "told_to_block(shared.foreseen) != 0",
            ),
            (
                "(op.has_arrived(wanted)) {\n            fence_async(); // what arrived by stores is read by copies\n",
                "(op.has_arrived(wanted)) {\n",
            ),
            (
                "count_of(wanted), [&](u32 nth) { return named(wanted, nth); });\n    }\n\n    /// Waits",
                "count_of(wanted) / 2, [&](u32 nth) { return named(wanted, nth); });\n    }\n\n    /// Waits",
            ),
        ],
    );
}

/// A block that begins in the midst of a tile waits for the depths of the next one, too.
#[test]
fn depths_of_a_later_stint_are_waited_for() {
    check_all(
        ROWS,
        &late_depths(),
        &[(
            "op.awaits(work, first || fast.partials != 0)",
            "op.awaits(work, first)",
        )],
    );
}

/// All that is copied at a time has come, not only what comes first of it.
#[test]
fn all_depths_that_are_copied_at_a_time_have_come() {
    let last = late_depths().pop();
    check_all(
        ROWS,
        last.as_slice(),
        &[("while (go && depth < needed)", "if (go && depth < needed)")],
    );
}

/// Lanes that look at the same word one after the other may see different things: all go by what the first has seen, else some wait where the
/// others do not come.
#[test]
fn lanes_go_by_what_the_first_one_sees() {
    if compiler().is_none() {
        return;
    }
    let kernel = OfCrews::new(ROWS, (64, 64), DType::BF16, MAX);
    for look in [
        "phase_ended_by_now(ring.finished(0), parity)",
        "told_to_block(shared.foreseen) == stint.step + 1",
    ] {
        // What other lanes see is never what they wait for.
        let together = format!("first_lane_says({look})");
        let apart = format!("(thread_index() == 0 && {look})");
        let changed = |to: &str| kernel.compile_as(&with(kernel.text(), &together, to));
        let results = run_patiently(
            &changed(&format!("first_lane_says({apart})")),
            &late_rows(),
            1,
        );
        assert!(
            results.iter().all(|result| result == "ok"),
            "{look}: {results:?}"
        );
        let results = run(&changed(&apart), &late_rows(), 1);
        assert!(
            results
                .iter()
                .any(|result| result.starts_with("emulator: threads wait")),
            "{look}, each lane for itself: {results:?}"
        );
    }
}

/// Portable kernels wait for all stages at once.
#[test]
fn all_of_a_is_waited_for() {
    if compiler().is_none() {
        return;
    }
    let first_stage_alone = ("wanted.count * stages()", "wanted.count");
    for program in [ROWS, COLUMNS] {
        let changed = of_wide_waves(program, Some(first_stage_alone));
        let cases = late_parts(program == COLUMNS);
        let results = run(&changed, &cases, 1);
        assert!(
            results.iter().any(|result| result != "ok"),
            "{}",
            op_of(program)
        );
    }
}

#[test]
fn what_others_have_made_of_a_tile_is_waited_for() {
    for (rule, instead) in [
        (
            "            while (load<Order::acquire, Scope::device>(flag) == 0) {\n                spin();\n            }\n",
            "",
        ),
        (
            "            store<Order::relaxed, Scope::device>(flag, 0u);\n",
            "",
        ),
        (
            "    sync_group(thread_index() / 128);\n    if (thread_index() % 128 == 0) {\n        store<Order::release",
            "    if (thread_index() % 128 == 0) {\n        store<Order::release",
        ),
        // Only one other block is asked; another is who has what comes next; rows of two groups are the same.
        (
            "            each(block);\n",
            "            each(block);\n            break;\n",
        ),
        (
            "            block += height();\n            ++team;\n",
            "            block += height();\n            team += 2;\n",
        ),
        (
            "u32 above = step == 0 ? 0 : u32(fast.streams.height[0]);",
            "u32 above = 0;",
        ),
    ] {
        check(&Control {
            program: ROWS,
            tile: (64, 64),
            rule,
            instead,
            cases: streamed(),
        });
    }
}

/// With two warpgroups a wave looks at 16 blocks' flags at once: one that is late is beyond these.
#[test]
fn what_more_blocks_have_made_than_are_looked_at_at_once_is_waited_for() {
    check(&Control {
        program: COLUMNS,
        tile: (128, 128),
        rule: "    } while (from < count);",
        instead: "    } while (false);",
        cases: shared_by_many(),
    });
}

#[test]
fn what_others_have_made_of_a_tile_comes_behind_its_slabs() {
    let packets = Program::AllGatherMatmulPackets;
    for (program, rule, instead) in [
        (
            ROWS,
            "        await_phase(ring.full(place.stage), place.parity);\n        if (wave >= first",
            "        if (wave >= first",
        ),
        // What there is to do is told with the first slab.
        (
            ROWS,
            "            await_phase(ring.full(place.stage), place.parity);\n            duty =",
            "            duty =",
        ),
        // Waves that have rows hand them over.
        (
            ROWS,
            "u32 waves = (rows + 15) / 16;",
            "u32 waves = rows / 16;",
        ),
        (
            packets,
            "u32 waves = (rows + 15) / 16;",
            "u32 waves = rows / 16;",
        ),
        // Movers take their part in it.
        (
            packets,
            "u32 behind = course.does_stream() ? duty_of(course, work.block.rows).stages() : 0;",
            "u32 behind = 0;",
        ),
    ] {
        check(&Control {
            program,
            tile: (64, 64),
            rule,
            instead,
            cases: match program {
                Program::AllGatherMatmulPackets => few_streamed(),
                _ => streamed(),
            },
        });
    }
}

/// A crew that may not go on does all the same what others of its block wait for: else they stand still for ever.
#[test]
fn crews_that_may_not_go_on_keep_others_going() {
    if compiler().is_none() {
        return;
    }
    let loads = "            for (u32 slab = stint.first, end; slab < stint.end; slab = end) {";
    let takes = "            commit_copies();\n            await_copies_read();";
    let alone = |program| OfCrews::new(program, (64, 64), DType::BF16, MAX);
    for (program, kernel, rows, before) in [
        (ROWS, alone(ROWS), 200, loads),
        // A partner waits for what comes of these slabs.
        (ROWS, OfCrews::paired(ROWS, (64, 64)), 64, loads),
        (
            Program::MatmulAllGather,
            alone(Program::MatmulAllGather),
            200,
            takes,
        ),
    ] {
        let dead = [format!(
            "world=2 m={rows},{rows} n=260 k=300 blocks=2 dead=1,1"
        )];
        let results = run(&kernel.compile(), &dead, 1);
        assert!(
            matches!(&results[..], [result] if result.starts_with("fault call 1")),
            "{results:?}"
        );
        let leaves = format!("if (!go) {{ return go; }}\n{before}");
        let changed = kernel.compile_as(&with(kernel.text(), before, &leaves));
        let stands_still = |round| {
            let results = run(&changed, &dead, round);
            results
                .iter()
                .any(|result| result.starts_with("emulator: threads wait"))
        };
        assert!(
            (0..20).any(stands_still),
            "{} without a crew",
            op_of(program)
        );
    }
}

/// Nor does the block arrive, so that the index stays.
#[test]
fn a_block_of_which_a_crew_may_not_go_on_does_not_arrive() {
    if compiler().is_none() {
        return;
    }
    let dead = ["world=2 m=200,200 n=260 k=300 blocks=2 dead=1,1".to_owned()];
    let early = "                if (shared.failed == 0) {\n                    op.finish();";
    let late = "        if (shared.failed == 0) {\n            op.finish();";
    for (program, rule) in [
        (ROWS, early),
        (Program::ReduceScatter, early),
        (Program::OneShot, late),
    ] {
        let kernel = OfCrews::new(program, (64, 64), DType::BF16, MAX);
        let results = run(&kernel.compile(), &dead, 1);
        assert!(
            matches!(&results[..], [result] if result.starts_with("fault call 1")),
            "{}: {results:?}",
            op_of(program)
        );
        let arrives = rule.replace("if (shared.failed == 0) {", "{");
        let changed = kernel.compile_as(&with(kernel.text(), rule, &arrives));
        let results = run(&changed, &dead, 1);
        assert!(
            matches!(&results[..], [result] if result.contains("the index is advanced")),
            "{}: {results:?}",
            op_of(program)
        );
    }
}

#[test]
fn the_index_is_advanced_when_all_blocks_have_read_it() {
    // A block of rank 0 begins late, and the others of its rank need nothing of it.
    for program in [Program::ReduceScatter, Program::OneShotPackets] {
        check(&Control {
            program,
            tile: (64, 64),
            rule: "block_index() == 0 ? ALL_SHARES - (args.blocks - 1) : 1",
            instead: "block_index() == 0 ? ALL_SHARES : 0",
            cases: vec!["world=2 m=60,60,60 n=260 k=300 blocks=4 slow=0,1,3,300".to_owned()],
        });
    }
}

#[test]
fn a_fence_stands_between_what_was_stored_and_the_copies_that_read_it() {
    for (program, rule, instead) in [
        (
            ROWS,
            "                    fence_async(); // what arrived by stores is read by copies\n",
            "",
        ),
        (
            Program::ReduceScatter,
            "            fence_async();\n            sync_wave();\n",
            "            sync_wave();\n",
        ),
        (
            Program::MatmulAllGather,
            "            fence_async_shared();\n            arrive(ring.finished(group));\n",
            "            arrive(ring.finished(group));\n",
        ),
    ] {
        check(&Control {
            program,
            tile: (64, 64),
            rule,
            instead,
            cases: deep(op_of(program)),
        });
    }
}

#[test]
fn a_tile_is_whole_before_it_leaves_in_packets() {
    for (rule, instead) in [
        (
            "            go = go && shared.failed == 0;\n            sync_block();\n",
            "            go = go && shared.failed == 0;\n",
        ),
        (
            "            }\n            sync_block();\n        } else {",
            "            }\n        } else {",
        ),
    ] {
        check(&Control {
            program: Program::OneShotPackets,
            // Of two warpgroups: one alone waits for itself as it multiplies.
            tile: (128, 64),
            rule,
            instead,
            cases: deep("one_shot_packets"),
        });
    }
}

#[test]
fn what_a_partner_gives_is_waited_for_and_given_where_nobody_reads() {
    if compiler().is_none() {
        return;
    }
    for (rule, instead) in [
        // The partner's barriers are made, what was given before is read, and the block is still there.
        ("    await_pair();\n    Exchange", "    Exchange"),
        ("        await_taken();\n        u32 to", "        u32 to"),
        ("    exchange.await_taken();\n", ""),
        // What is given has come, and all have read it before more may come.
        ("        await_given(ring.given(group), rounds % 2);\n", ""),
        (
            "        sync_group(group);\n        if (thread_index() % 128 == 0) {\n            arrive_across",
            "        if (thread_index() % 128 == 0) {\n            arrive_across",
        ),
        // Each has its half of the depth, of both tiles.
        (
            "Stint{step, half, slabs}",
            "Stint{step, slabs - half, slabs}",
        ),
        ("second ? low : high", "second ? high : low"),
        (
            "step / PAIR * PAIR < u32(op.steps())",
            "step < u32(op.steps())",
        ),
    ] {
        check_of(
            &OfCrews::paired(ROWS, (64, 64)),
            &Control {
                program: ROWS,
                tile: (64, 64),
                rule,
                instead,
                cases: in_pairs(64).into_iter().chain(late_partners()).collect(),
            },
        );
    }
}

#[test]
fn a_launch_that_may_begin_early_waits_for_the_one_before() {
    let crews = (
        "    await_launch_before();\n    sync_all();",
        "    sync_all();",
    );
    let senders = ("    await_launch_before();\n    op.rank", "    op.rank");
    for (program, (rule, instead)) in [
        (Program::MatmulAllGather, crews),
        (Program::OneShotPackets, crews),
        (ROWS, crews),
        (ROWS, senders),
    ] {
        check_all(program, &deep(op_of(program)), &[(rule, instead)]);
    }
}
