//! The vendor's product and collectives on the GPUs of this host, one rank each, on ragged shapes: measuring checks all results.
//!
//! Where the host has no GPU, or a library is missing, the test says that it was skipped.

use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, Stream};
use iris_heap::{World, WorldConfig};
use iris_kernels::DType;
use iris_measure::{
    Case, Comparison, Effort, Item, MeasureError, Operation, Ours, Rank, Storage, nccl,
};
use iris_testkit::skipped;

const SHAPES: [(usize, usize, usize); 5] = [
    (1, 8, 8),
    (3, 64, 40),
    (333, 777, 129),
    (130, 256, 1000),
    (16, 8192, 3584),
];
const EFFORT: Effort = Effort {
    repeats: 3,
    graph_us: 100.0,
    most_calls: 20,
};

#[test]
fn the_vendors_results_are_right_before_and_after_they_are_timed() {
    let count = match Device::<Cuda>::count() {
        Ok(count @ 1..) => count,
        other => return skipped("vendor", format!("devices {other:?}")),
    };
    if !nccl::multicast_is_off() {
        return skipped("vendor", "NCCL_NVLS_ENABLE is not 0");
    }
    let config = WorldConfig {
        heap_bytes: 1 << 20,
        ..WorldConfig::default()
    };
    for dtype in DType::ALL {
        let ranks = World::threads(count, &config, |world| {
            let device = Device::open(world.rank())?;
            let stream = Stream::new(&device)?;
            let rank = Rank::new(&world, &stream, dtype)?;
            assert!(rank.read_bandwidth() > 1e10);
            for operation in Operation::ALL {
                for (m, n, k) in SHAPES {
                    for b in [Storage::Rows, Storage::Columns] {
                        let case = Case {
                            operation,
                            m,
                            n,
                            k,
                            dtype,
                            b,
                            tf32: false,
                        };
                        let mut comparison = Comparison::new(&rank, case, 7)?;
                        let times = comparison.run(Ours::default(), EFFORT)?;
                        for item in [Item::Product, Item::Collective, Item::Sequence] {
                            assert!(times.us(item).is_some_and(|us| us > 0.0), "{item:?}");
                        }
                        assert_eq!(times.us(Item::Fused), None);
                    }
                }
            }
            rank.finish()
        });
        for result in ranks.unwrap() {
            match result {
                Err(error @ (MeasureError::NoCublasLt(_) | MeasureError::NoNccl(_))) => {
                    return skipped("vendor", error);
                }
                other => other.unwrap(),
            }
        }
        println!("{dtype}");
    }
}
