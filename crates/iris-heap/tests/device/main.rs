//! The device runtime on whatever GPUs the host has: memory shared between devices and processes, kernels that signal each other,
//! graphs, streams and memory of others.
//!
//! Each test runs over each runtime. Where the host has no driver or no GPU, it says that it was skipped; the tests of `stand_in` run
//! those of HIP once more, over a runtime made for the purpose.

mod backend;
mod kernels;
mod memory;
mod programmatic;
mod stand_in;
mod streams;
mod worlds;

use std::io::Write;

macro_rules! over_each_runtime {
    ($($module:ident { $($test:ident)* })*) => {
        mod cuda {
            $($(
                #[test]
                fn $test() {
                    crate::$module::$test::<iris_heap::cuda::Cuda>();
                }
            )*)*
        }

        mod hip {
            $($(
                #[test]
                fn $test() {
                    crate::$module::$test::<iris_heap::hip::Hip>();
                }
            )*)*
        }
    };
}

/// Says on stderr, in a line that begins with `SKIPPED`, that a test was left out, and why. What a test prints is captured where it
/// passes, and this is not.
pub(crate) fn skipped(test: &str, why: impl std::fmt::Display) {
    let line = format!("SKIPPED {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

over_each_runtime! {
    memory {
        what_is_written_is_read_back
        devices_are_told_apart_and_say_what_is_free
        memory_of_others_is_used_where_it_is_what_it_is_said_to_be
        another_process_maps_shared_memory
        a_descriptor_of_something_else_is_refused
    }
    streams {
        streams_of_others_are_used_where_they_are_of_the_device
        a_graph_runs_as_often_as_it_is_launched
        a_panic_in_a_capture_ends_it
        a_panic_in_a_ranks_capture_ends_it
        a_driver_that_is_not_there_is_an_error_that_says_what_was_tried
    }
    worlds {
        the_heaps_of_all_ranks_are_seen_by_each
        ranks_do_not_share_devices_unasked
    }
    kernels {
        a_ring_of_devices_hands_data_on_by_flags_in_shared_memory
        no_kernel_is_loaded_while_another_waits
        what_does_not_fit_or_is_not_there_is_refused
    }
}
