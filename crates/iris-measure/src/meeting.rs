//! How ranks meet while they measure.

use iris_heap::{World, WorldError};

use crate::error::MeasureError;

/// The largest that any rank gives, place by place. Collective; all give as many.
pub(crate) fn largest(world: &World, values: &[f64]) -> Result<Vec<f64>, WorldError> {
    let gathered = world.all_gather_bytes(bytemuck::cast_slice(values))?;
    let mut largest = vec![f64::NEG_INFINITY; values.len()];
    for bytes in gathered {
        for (largest, bytes) in largest.iter_mut().zip(bytes.chunks_exact(8)) {
            let value: f64 = bytemuck::pod_read_unaligned(bytes);
            // A time that is not a number must not vanish among others.
            if value.is_nan() || value > *largest {
                *largest = value;
            }
        }
    }
    Ok(largest)
}

/// `own`, where it is good on all ranks; else an error on all: this rank's, or that another one has left. Collective. What can
/// fail on one rank alone must be agreed upon before any rank waits for the others on its device.
pub(crate) fn together<T>(
    world: &World,
    during: &str,
    own: Result<T, MeasureError>,
) -> Result<T, MeasureError> {
    let gathered = world.all_gather_bytes(&[u8::from(own.is_err())])?;
    let value = own?;
    match gathered.iter().position(|failed| failed != &[0]) {
        None => Ok(value),
        Some(rank) => Err(WorldError::RankLeft {
            rank,
            during: during.to_owned(),
        }
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_rank_fails_all_do_and_one_says_why() {
        let config = iris_heap::WorldConfig {
            heap_bytes: 4096,
            ..Default::default()
        };
        let all = World::threads(3, &config, |world| {
            let good = together(&world, "first", Ok(world.rank())).unwrap();
            assert_eq!(good, world.rank());
            let own = if world.rank() == 1 {
                Err(MeasureError::MulticastOn)
            } else {
                Ok(())
            };
            together(&world, "second", own).unwrap_err()
        });
        for (rank, error) in all.unwrap().into_iter().enumerate() {
            match error {
                MeasureError::MulticastOn => assert_eq!(rank, 1),
                MeasureError::World(WorldError::RankLeft { rank: 1, during }) => {
                    assert!(rank != 1 && during == "second");
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn the_slowest_rank_counts_place_by_place() {
        let config = iris_heap::WorldConfig {
            heap_bytes: 4096,
            ..Default::default()
        };
        let all = World::threads(3, &config, |world| {
            let rank = world.rank() as f64;
            let none = if rank == 0.0 { f64::NAN } else { rank };
            largest(&world, &[rank, -rank, 5.0, none]).unwrap()
        });
        for largest in all.unwrap() {
            assert_eq!(largest[..3], [2.0, 0.0, 5.0]);
            // What is no number on one rank is none.
            assert!(largest[3].is_nan());
        }
    }
}
