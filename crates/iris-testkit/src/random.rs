//! Random inputs that are the same in every process and differ by rank, call and tensor.
//!
//! A test that gives every rank the same values, or all ones, passes when a rank reads another's tile or an
//! old call's bank. Here each (seed, rank, call, tensor) is a stream of its own of ChaCha, whose output is
//! specified and does not change with a release: the four words *are* its key, so no two streams coincide.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::number::Number;

/// Which tensor of a call a stream fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Tensor {
    /// The left factor.
    A = 1,
    /// The right factor.
    B = 2,
    /// The bias.
    Bias = 3,
    /// What is drawn besides tensors: sizes, stalls, permutations.
    Plan = 4,
}

/// A stream of random values.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of one tensor of one call on one rank.
    pub fn new(seed: u64, rank: usize, call: u64, tensor: Tensor) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key
            .chunks_exact_mut(8)
            .zip([seed, rank as u64, call, tensor as u64])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Fills with values drawn evenly from [-1, 1) in steps of 2^-23, each then rounded to the format.
    pub fn uniform<T: Number>(&mut self, values: &mut [T]) {
        const STEP: f64 = 1.0 / (1u32 << 23) as f64;
        values.fill_with(|| T::from_f64(f64::from(self.0.next_u32() >> 8) * STEP - 1.0));
    }

    /// Fills with integers drawn evenly from -4 to 4, at least one of them not 0 where there are any.
    ///
    /// Products of them, and sums of up to 2^20 products in f32, are exact, and so is the rounding of sums
    /// up to 2048 to f16 and up to 256 to bf16: what is computed from them compares by equality.
    pub fn integers<T: Number>(&mut self, values: &mut [T]) {
        values.fill_with(|| T::from_f64(self.below(9) as f64 - 4.0));
        if let Some(first) = values.first_mut()
            && first.to_f64() == 0.0
        {
            *first = T::from_f64(3.0);
        }
    }

    /// A number drawn evenly from `0..bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // Draws from the incomplete last lap of `bound` are thrown away, else small numbers were favoured.
        let whole = u64::MAX - u64::MAX % bound;
        loop {
            let draw = self.0.next_u64();
            if draw < whole {
                return draw % bound;
            }
        }
    }

    /// Whether a coin falls heads.
    pub fn coin(&mut self) -> bool {
        self.0.next_u32() & 1 == 1
    }

    /// Puts `items` into an order drawn evenly from all orders (Fisher and Yates).
    pub fn shuffle<I>(&mut self, items: &mut [I]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// `len` values drawn as [`Stream::uniform`] draws them.
pub fn uniform<T: Number>(seed: u64, rank: usize, call: u64, tensor: Tensor, len: usize) -> Vec<T> {
    let mut values = vec![T::NAN; len];
    Stream::new(seed, rank, call, tensor).uniform(&mut values);
    values
}

/// `len` values drawn as [`Stream::integers`] draws them.
pub fn integers<T: Number>(
    seed: u64,
    rank: usize,
    call: u64,
    tensor: Tensor,
    len: usize,
) -> Vec<T> {
    let mut values = vec![T::NAN; len];
    Stream::new(seed, rank, call, tensor).integers(&mut values);
    values
}

/// Fills an output with NaN before a call, so that what is left unwritten cannot pass for an earlier result.
pub fn poison<T: Number>(values: &mut [T]) {
    values.fill(T::NAN);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use half::{bf16, f16};

    use super::*;

    #[test]
    fn a_stream_is_the_same_each_time_and_none_equals_another() {
        let mut seen = HashSet::new();
        for seed in 0..3 {
            for rank in 0..3 {
                for call in 0..3 {
                    for tensor in [Tensor::A, Tensor::B, Tensor::Bias, Tensor::Plan] {
                        let draw = || uniform::<f32>(seed, rank, call, tensor, 8);
                        let bits: Vec<u32> = draw().into_iter().map(f32::to_bits).collect();
                        assert_eq!(
                            bits,
                            draw().into_iter().map(f32::to_bits).collect::<Vec<_>>()
                        );
                        assert!(
                            seen.insert(bits),
                            "seed {seed}, rank {rank}, call {call}, {tensor:?}"
                        );
                    }
                }
            }
        }
        assert_eq!(seen.len(), 108);
    }

    #[test]
    fn the_first_values_never_change() {
        // Recorded figures quote a seed; they mean something only while a seed means the same values.
        assert_eq!(
            uniform::<f32>(7, 1, 2, Tensor::B, 3),
            RECORDED,
            "the generator's stream changed"
        );
    }
    const RECORDED: [f32; 3] = [0.32728636, 0.93025625, -0.12565446];

    fn covers_the_range<T: Number>() {
        let values = uniform::<T>(1, 0, 0, Tensor::A, 20_000);
        let mean = values.iter().map(|v| v.to_f64()).sum::<f64>() / 20_000.0;
        let square = values.iter().map(|v| v.to_f64().powi(2)).sum::<f64>() / 20_000.0;
        assert!(values.iter().all(|v| (-1.0..=1.0).contains(&v.to_f64())));
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((square - 1.0 / 3.0).abs() < 0.02, "{square}");
    }

    #[test]
    fn uniform_values_cover_the_range() {
        covers_the_range::<f32>();
        covers_the_range::<f16>();
        covers_the_range::<bf16>();
    }

    #[test]
    fn integers_are_small_and_take_every_value() {
        let values = integers::<bf16>(1, 0, 0, Tensor::A, 1000);
        let seen: HashSet<i32> = values.iter().map(|v| v.to_f64() as i32).collect();
        assert_eq!(seen, (-4..=4).collect());
        for seed in 0..100 {
            assert_ne!(integers::<f32>(seed, 0, 0, Tensor::A, 1), [0.0]);
        }
    }

    #[test]
    fn below_stays_below_and_a_shuffle_keeps_what_it_shuffles() {
        let mut stream = Stream::new(3, 0, 0, Tensor::Plan);
        assert_eq!(stream.below(0), 0);
        assert_eq!(stream.below(1), 0);
        let drawn: HashSet<u64> = (0..500).map(|_| stream.below(7)).collect();
        assert_eq!(drawn, (0..7).collect());
        let mut order: Vec<u32> = (0..50).collect();
        stream.shuffle(&mut order);
        assert_ne!(order, (0..50).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn poison_leaves_nothing_that_compares_equal() {
        let mut values = [f16::ONE; 5];
        poison(&mut values);
        assert!(values.iter().all(|v| v.is_nan()));
    }
}
