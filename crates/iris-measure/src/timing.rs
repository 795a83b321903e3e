//! Device time of work that is enqueued, in captured graphs.
//!
//! A graph holds many calls, so that its launch costs each of them next to nothing. It is launched twice: once to keep the device
//! busy while the host enqueues the rest, so that no wait for the host is measured, and once between two events. All ranks begin
//! at a barrier.

use std::error::Error;

use iris_heap::World;
use iris_heap::device::{Device, Driver, Event, Graph, Stream};

use crate::error::MeasureError;
use crate::meeting::largest;

/// Why something that was given to be measured failed.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Something that can be enqueued again and again, also by the many in a graph.
pub trait Enqueue<D: Driver> {
    /// Enqueues it once, on set `set` of its operands.
    ///
    /// # Errors
    /// Where it cannot be enqueued.
    fn enqueue(&mut self, set: usize, stream: &Stream<D>) -> Result<(), Failure>;

    /// Captures `calls` calls, on sets 0 to `sets - 1` in turn, in place of what was captured before.
    ///
    /// # Errors
    /// Where it cannot be captured.
    fn capture(&mut self, calls: usize, sets: usize, stream: &Stream<D>) -> Result<(), Failure>;

    /// Enqueues what was captured.
    ///
    /// # Errors
    /// Where it cannot be enqueued, or nothing was captured.
    fn launch(&mut self, stream: &Stream<D>) -> Result<(), Failure>;

    /// Makes calls once more, on the operands that are timed, and looks at the results: done before and after. Collective, also where
    /// a result is wrong, since the other ranks wait for the calls.
    ///
    /// # Errors
    /// Where a result is wrong.
    fn check(&mut self, stream: &Stream<D>) -> Result<(), Failure>;
}

/// A closure that enqueues, and what was captured of it.
pub(crate) struct Call<F, D: Driver> {
    enqueue: F,
    graph: Option<Graph<D>>,
}

impl<F, D: Driver> Call<F, D> {
    /// # Safety
    /// What the closure enqueues uses memory and modules that live as long as this.
    pub(crate) unsafe fn new(enqueue: F) -> Self {
        Self {
            enqueue,
            graph: None,
        }
    }
}

impl<D: Driver, F: FnMut(usize, &Stream<D>) -> Result<(), MeasureError>> Enqueue<D> for Call<F, D> {
    fn enqueue(&mut self, set: usize, stream: &Stream<D>) -> Result<(), Failure> {
        Ok((self.enqueue)(set, stream)?)
    }

    fn capture(&mut self, calls: usize, sets: usize, stream: &Stream<D>) -> Result<(), Failure> {
        self.graph = None;
        let enqueue = &mut self.enqueue;
        let graph =
            stream.capture(|| (0..calls).try_for_each(|call| enqueue(call % sets, stream)))?;
        self.graph = Some(graph);
        Ok(())
    }

    fn launch(&mut self, stream: &Stream<D>) -> Result<(), Failure> {
        let graph = self.graph.as_ref().ok_or("nothing was captured")?;
        // SAFETY: what it was captured from lives as long as this, by the word of whoever made it; streams are waited for before
        // memory is freed.
        Ok(unsafe { graph.launch(stream) }?)
    }

    /// What this crate measures of its own accord, it checks elsewhere.
    fn check(&mut self, _: &Stream<D>) -> Result<(), Failure> {
        Ok(())
    }
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// How often each thing is measured.
    pub repeats: usize,
    /// How long a graph should run, in microseconds.
    pub graph_us: f64,
    /// The most calls of a graph, unless there are more sets of operands.
    pub most_calls: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            repeats: 30,
            graph_us: 1000.0,
            most_calls: 400,
        }
    }
}

impl Effort {
    /// The calls of a graph: enough to run as long as wanted, and as often with each of `sets` sets of operands.
    fn calls(&self, call_us: f64, sets: usize) -> usize {
        let wanted = (self.graph_us / call_us.max(0.1)).ceil() as usize;
        wanted
            .clamp(1, self.most_calls.max(1))
            .next_multiple_of(sets)
    }
}

/// Something that is measured, captured.
pub struct Captured<'a, D: Driver> {
    what: &'static str,
    item: &'a mut dyn Enqueue<D>,
    calls: usize,
    begin: Event<D>,
    end: Event<D>,
}

/// What captures and measures on one rank.
pub struct Clock<'a, D: Driver> {
    /// The ranks that measure together.
    pub world: &'a World,
    /// The device.
    pub device: &'a Device<D>,
    /// The stream that everything runs on.
    pub stream: &'a Stream<D>,
    /// How many sets of operands there are, at least 1.
    pub sets: usize,
    /// How long to measure.
    pub effort: Effort,
}

impl<D: Driver> Clock<'_, D> {
    /// Runs each set once, for what is set up at a first call, and captures as many calls as are needed. Collective.
    ///
    /// # Errors
    /// Where it cannot be enqueued or captured.
    pub fn capture<'i>(
        &self,
        what: &'static str,
        item: &'i mut dyn Enqueue<D>,
    ) -> Result<Captured<'i, D>, MeasureError> {
        self.world.barrier()?;
        for set in 0..self.sets {
            self.own(what, item.enqueue(set, self.stream))?;
        }
        self.stream.synchronize()?;
        self.own(what, item.capture(self.sets, self.sets, self.stream))?;
        let mut captured = Captured {
            what,
            item,
            calls: self.sets,
            begin: Event::new(self.device)?,
            end: Event::new(self.device)?,
        };
        let once = self.measure(&mut captured)?;
        // The same on all ranks: those of a collective must make as many calls.
        let slowest = largest(self.world, &[once])?[0];
        captured.calls = self.effort.calls(slowest, self.sets);
        let again = captured
            .item
            .capture(captured.calls, self.sets, self.stream);
        self.own(what, again)?;
        Ok(captured)
    }

    /// An error of what was given, or one of this crate's own.
    pub(crate) fn own<T>(
        &self,
        what: &'static str,
        result: Result<T, Failure>,
    ) -> Result<T, MeasureError> {
        result.map_err(|source| match source.downcast::<MeasureError>() {
            Ok(own) => *own,
            Err(source) => MeasureError::Given {
                rank: self.world.rank(),
                what,
                source,
            },
        })
    }

    /// Microseconds of one call on this rank. Collective.
    ///
    /// # Errors
    /// Where a call fails.
    pub fn measure(&self, captured: &mut Captured<'_, D>) -> Result<f64, MeasureError> {
        self.measure_calls(captured, 1)
    }

    /// The same over at least so many calls, the same number on all ranks: as many launches of the graph as they take, one behind the other.
    ///
    /// # Errors
    /// Where a call fails.
    pub fn measure_calls(
        &self,
        captured: &mut Captured<'_, D>,
        least: u64,
    ) -> Result<f64, MeasureError> {
        let Captured {
            what,
            item,
            calls,
            begin,
            end,
        } = captured;
        self.world.barrier()?;
        self.own(what, item.launch(self.stream))?;
        self.stream.record(begin)?;
        let launches = least.div_ceil(*calls as u64).max(1);
        for _ in 0..launches {
            self.own(what, item.launch(self.stream))?;
        }
        self.stream.record(end)?;
        self.stream.synchronize()?;
        Ok(f64::from(end.since_ms(begin)?) * 1e3 / (*calls as u64 * launches) as f64)
    }

    /// Measures all items in turn, as often as wanted: what drifts in the meantime, drifts for all. Times of the slowest rank, by
    /// item and repeat. Collective.
    ///
    /// # Errors
    /// Where a call fails.
    pub fn rounds(&self, items: &mut [Captured<'_, D>]) -> Result<Vec<Vec<f64>>, MeasureError> {
        let mut times = Vec::with_capacity(items.len() * self.effort.repeats);
        for _ in 0..self.effort.repeats {
            for item in &mut *items {
                times.push(self.measure(item)?);
            }
        }
        let slowest = largest(self.world, &times)?;
        let of_item = |item| slowest.iter().skip(item).step_by(items.len().max(1));
        Ok((0..items.len())
            .map(|item| of_item(item).copied().collect())
            .collect())
    }
}

/// The middle one, or the mean of the two middle ones; not a number where there are none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Half the distance between the quartiles, relative to the median: how far measurements lie apart.
pub fn spread(values: &[f64]) -> f64 {
    (quantile(values, 0.75) - quantile(values, 0.25)) / 2.0 / median(values)
}

/// The value below which a share of all lie, interpolated between neighbours.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = share * values.len().saturating_sub(1) as f64;
    let (below, above) = (
        values.get(place.floor() as usize),
        values.get(place.ceil() as usize),
    );
    match (below, above) {
        (Some(below), Some(above)) => below + (above - below) * place.fract(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_spread_is_that_of_the_middle_half() {
        assert_eq!(spread(&[10.0; 7]), 0.0);
        // Quartiles 9 and 11; one wild measurement does not count.
        assert_eq!(spread(&[8.0, 9.0, 10.0, 11.0, 500.0]), 0.1);
    }

    #[test]
    fn a_graph_has_enough_calls_and_uses_each_set_as_often() {
        let effort = Effort {
            repeats: 1,
            graph_us: 1000.0,
            most_calls: 100,
        };
        assert_eq!(effort.calls(100.0, 4), 12);
        assert_eq!(effort.calls(5000.0, 3), 3);
        assert_eq!(effort.calls(1.0, 7), 105);
        assert_eq!(effort.calls(0.0, 1), 100);
        for sets in 1..200 {
            assert_eq!(effort.calls(37.0, sets) % sets, 0);
        }
    }
}
