//! Bringing every rank's result to rank 0.

use iris::heap::{Window, World};
use iris::ops::Element;

use crate::cli::split::Split;

/// Memory through which rank 0 gets what the others have.
#[derive(Debug)]
pub(crate) struct Collector<'a, T> {
    world: &'a World,
    split: Split,
    window: Window<T>,
}

impl<'a, T: Element> Collector<'a, T> {
    /// Makes the memory. Collective.
    pub(crate) fn new(world: &'a World, split: Split) -> anyhow::Result<Self> {
        Ok(Self {
            window: world.window(split.largest().c.len())?,
            world,
            split,
        })
    }

    /// Gives `result`; rank 0 gets the results of all, by rank. Collective.
    pub(crate) fn collect(&self, result: &[T]) -> anyhow::Result<Option<Vec<Vec<T>>>> {
        self.window.put(self.world.rank(), 0, result)?;
        self.world.barrier()?;
        let results = if self.world.rank() == 0 {
            let get = |rank| {
                let mut result = vec![T::NAN; self.split.of(rank).c.len()];
                self.window.get(rank, 0, &mut result).map(|()| result)
            };
            Some((0..self.world.size()).map(get).collect::<Result<_, _>>()?)
        } else {
            None
        };
        // Until rank 0 has read it, nobody may put the next one.
        self.world.barrier()?;
        Ok(results)
    }
}
