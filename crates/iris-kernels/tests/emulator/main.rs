//! The HIP kernels, compiled for the CPU and run lane by lane.
//!
//! The sources in `hip/` are compiled with the emulator in place of a GPU: blocks, waves, barriers, LDS and matrix instructions, with
//! a real thread for each rank. Hopper's kernels run as well, by an emulation of its copies, its barriers that count bytes, and its matrix
//! instructions. What cannot be seen here is what x86's strong memory order hides: that an arrival without its release
//! fence, or a signal without release order, would be noticed; `.ci/kernels` looks for those in the machine code instead. Of a missing
//! `fence.proxy.async` it is seen where it is looked for: `crews_controls`.

mod cases;
mod compile;
mod controls;
mod crews;
mod crews_controls;
mod kinds;
mod own_kernel;
mod protocol;

use cases::check;

#[test]
fn one_shot() {
    check("one_shot", "one_shot");
}

#[test]
fn one_shot_packets() {
    check("one_shot_packets", "one_shot_packets");
}

#[test]
fn two_shot() {
    check("two_shot", "two_shot");
}

#[test]
fn two_shot_packets() {
    check("two_shot_packets", "two_shot_packets");
}

#[test]
fn atomic() {
    check("accumulate", "atomic");
}

#[test]
fn spinlock() {
    check("accumulate", "spinlock");
}

#[test]
fn matmul_reduce_scatter() {
    check("matmul_reduce_scatter", "matmul_reduce_scatter");
}

#[test]
fn matmul_reduce_scatter_packets() {
    let op = "matmul_reduce_scatter_packets";
    check(op, op);
}

#[test]
fn all_gather_matmul_of_rows() {
    check("all_gather_matmul", "all_gather_matmul_rows");
}

#[test]
fn all_gather_matmul_of_columns() {
    check("all_gather_matmul", "all_gather_matmul_columns");
}

#[test]
fn all_gather_matmul_packets() {
    let op = "all_gather_matmul_packets";
    check(op, op);
}

#[test]
fn matmul_all_gather() {
    check("matmul_all_gather", "matmul_all_gather");
}
