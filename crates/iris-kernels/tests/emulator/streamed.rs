//! How Hopper's blocks share tiles that do not come out even: the arithmetic of `hip/iris/sm90/stints.h`.

use crate::compile::{compiler, emulate, own};
use std::path::PathBuf;

const SOURCE: &str = include_str!("streamed_matmul.hip");

/// The text, compiled for tiles of 32 x 32 of which so many rows are gone through together.
fn kernel(text: &str, raster: u32) -> PathBuf {
    let definitions = [
        ("IRIS_DTYPE", "f32".to_owned()),
        ("IRIS_MMA", "0".to_owned()),
        ("IRIS_TILE_M", "32".to_owned()),
        ("IRIS_TILE_N", "32".to_owned()),
        ("IRIS_WAVES_M", "2".to_owned()),
        ("IRIS_WAVES_N", "1".to_owned()),
        ("IRIS_RASTER", raster.to_string()),
    ];
    own("streamed", text, 32, &definitions)
}

/// Few and many tiles for the blocks, deep and not; fewer slabs than blocks; and calls of all heights in turn, of which some do not stream.
fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    for (n, k) in [(33, 1000), (64, 65), (300, 130), (1, 1), (200, 64)] {
        for blocks in [8, 9, 13, 24, 40] {
            lines.push(format!(
                "op=streamed_matmul dtype=f32 lanes=32 threads=64 tile=32,32 world=1 m=250,1,64,96,33,256,40,161,250 n={n} k={k} \
                 blocks={blocks} seed={} budget_ms=60000",
                n + blocks
            ));
        }
    }
    lines
}

#[test]
fn blocks_that_share_tiles_make_all_of_each_once() {
    if compiler().is_none() {
        return;
    }
    for raster in [1, 8] {
        let lines = lines();
        for (line, result) in lines
            .iter()
            .zip(emulate(&[&kernel(SOURCE, raster)], &lines))
        {
            assert_eq!(result, "ok", "{raster}: {line}");
        }
    }
}

/// With a line in place of another, some call is wrong.
fn fails_with(rule: &str, instead: &str) {
    if compiler().is_none() {
        return;
    }
    assert_eq!(SOURCE.matches(rule).count(), 1, "{rule}");
    let changed = kernel(&SOURCE.replace(rule, instead), 8);
    let results = emulate(&[&changed], &lines());
    assert!(
        results.iter().any(|result| result.starts_with("wrong")),
        "{results:?}"
    );
}

#[test]
fn a_flag_that_is_not_lowered_is_believed_in_the_next_call() {
    fails_with(
        "store<Order::relaxed, Scope::device>(&flags[place], 0u);",
        "",
    );
}

#[test]
fn without_the_wait_a_part_is_added_before_it_is_there() {
    fails_with(
        "while (load<Order::acquire, Scope::device>(&flags[place]) == 0) {",
        "while (false) {",
    );
}
