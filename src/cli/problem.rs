//! What is to be computed: whole matrices of one size and type, from files or drawn at random.

use iris::ops::{DType, Element};
use iris_testkit::{Number, Tensor, random};

use crate::cli::args::{How, Inputs, Sizes, Source};
use crate::cli::derive::Matrices;
use crate::cli::error::Unusable;
use crate::cli::input::Loaded;
use crate::cli::machine;
use crate::cli::size::Bytes;
use crate::cli::split::Size;

/// The size of random matrices that none is given for.
const DEFAULT_SIZE: usize = 512;

/// A problem whose files were read and found to fit together, before its type is known to the compiler.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Sizes of the whole.
    pub(crate) size: Size,
    /// The type to compute in.
    pub(crate) dtype: DType,
    /// Whether B is handed to the operation as it is stored, N x K.
    pub(crate) transpose_b: bool,
    factors: Option<[Loaded; 2]>,
    bias: Option<Loaded>,
}

impl Problem {
    /// Reads the files and looks at how they fit together.
    pub(crate) fn read(inputs: &Inputs, sizes: &Sizes, how: &How) -> Result<Self, Unusable> {
        let given = match (&inputs.a, &inputs.b) {
            (Some(a), Some(b)) => {
                for (argument, size) in [("--m", sizes.m), ("--n", sizes.n), ("--k", sizes.k)] {
                    if size.is_some() {
                        return Err(Unusable::SizeBesidesInputs { argument });
                    }
                }
                Some([a, b])
            }
            (None, None) => None,
            _ => return Err(Unusable::HalfGiven),
        };
        let factors = match given {
            Some([a, b]) => Some([Loaded::read(a)?, Loaded::read(b)?]),
            None => None,
        };
        let size = match &factors {
            Some(factors) => fit(factors, inputs.transpose_b)?,
            None => {
                let [m, n, k] = sizes.or(DEFAULT_SIZE);
                Size { m, n, k }
            }
        };
        let bias = inputs
            .bias
            .as_ref()
            .map(|bias| read_bias(bias, size.n))
            .transpose()?;
        let dtype = match (how.dtype, &factors) {
            (Some(dtype), _) => dtype,
            (None, None) => DType::F32,
            (None, Some([a, b])) if a.dtype == b.dtype => a.dtype,
            (None, Some([a, b])) => {
                return Err(Unusable::DTypesDiffer {
                    a: a.dtype.to_string(),
                    b: b.dtype.to_string(),
                });
            }
        };
        Ok(Self {
            size,
            dtype,
            transpose_b: inputs.transpose_b,
            factors,
            bias,
        })
    }

    /// A problem of random matrices, which is fit for any machine that has the memory.
    pub(crate) fn random(size: Size, dtype: DType) -> Self {
        Self {
            size,
            dtype,
            transpose_b: false,
            factors: None,
            bias: None,
        }
    }

    /// The whole matrices: those of the files, converted where they are of another type, or drawn by the seed.
    pub(crate) fn matrices<T: Element + Number>(&self, seed: u64) -> Matrices<T> {
        let Size { m, n, k } = self.size;
        let (a, b) = match &self.factors {
            Some([a, b]) => {
                let stored = b.convert::<T>();
                let b = if self.transpose_b {
                    transpose(&stored, n, k)
                } else {
                    stored
                };
                (a.convert(), b)
            }
            None => (
                random::uniform(seed, 0, 0, Tensor::A, m * k),
                random::uniform(seed, 0, 0, Tensor::B, k * n),
            ),
        };
        Matrices {
            a,
            b,
            bias: self.bias.as_ref().map(Loaded::convert),
        }
    }
}

/// The sizes of two factors that fit together.
fn fit([a, b]: &[Loaded; 2], transpose_b: bool) -> Result<Size, Unusable> {
    let ([m, k_a], [rows, columns]) = (a.matrix()?, b.matrix()?);
    let (k_b, n) = if transpose_b {
        (columns, rows)
    } else {
        (rows, columns)
    };
    if k_a != k_b {
        return Err(Unusable::Inner {
            a: a.source.to_string(),
            b: b.source.to_string(),
            m,
            k_a,
            k_b,
            n,
            hint: match (k_a == n, transpose_b) {
                (true, false) => "; with --transpose-b they would fit",
                (true, true) => "; without --transpose-b they would fit",
                (false, true) => " (transposed)",
                (false, false) => "",
            },
        });
    }
    Ok(Size { m, n, k: k_a })
}

fn read_bias(source: &Source, n: usize) -> Result<Loaded, Unusable> {
    let bias = Loaded::read(source)?;
    match bias.shape.as_slice() {
        &[len] if len == n => Ok(bias),
        &[len] => Err(Unusable::BiasLength {
            what: source.to_string(),
            given: len,
            expected: n,
        }),
        shape => Err(Unusable::Dimensions {
            what: source.to_string(),
            given: shape.len(),
            expected: 1,
        }),
    }
}

/// A row-major `rows` x `columns` matrix as its row-major transpose.
pub(crate) fn transpose<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut transposed = Vec::with_capacity(values.len());
    for column in 0..columns {
        transposed.extend((0..rows).map(|row| values[row * columns + column]));
    }
    transposed
}

/// Whether this machine has the memory that a problem takes, which is told in advance because an allocation that
/// cannot be had ends the process without a word.
pub(crate) fn check_memory(
    what: &'static str,
    size: Size,
    needed: Option<usize>,
) -> Result<(), Unusable> {
    let Size { m, n, k } = size;
    let needed = needed.ok_or(Unusable::TooLarge { m, n, k })?;
    let there = machine::memory();
    if needed > there {
        return Err(Unusable::Memory {
            what,
            m,
            n,
            k,
            needed: Bytes(needed),
            there: Bytes(there),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_is_one() {
        assert_eq!(transpose(&[1, 2, 3, 4, 5, 6], 2, 3), [1, 4, 2, 5, 3, 6]);
        assert!(transpose::<u8>(&[], 0, 3).is_empty());
    }

    #[test]
    fn random_matrices_follow_the_seed() {
        let size = Size { m: 2, n: 3, k: 4 };
        let problem = Problem::random(size, DType::F32);
        let one: Matrices<f32> = problem.matrices(1);
        assert_eq!((one.a.len(), one.b.len(), one.bias.as_ref()), (8, 12, None));
        assert_eq!(one, problem.matrices(1));
        assert_ne!(one, problem.matrices(2));
    }

    #[test]
    fn a_problem_larger_than_the_machine_is_refused() {
        let size = Size { m: 1, n: 1, k: 1 };
        assert!(check_memory("it", size, Some(1 << 20)).is_ok());
        let text = check_memory("a run", size, Some(usize::MAX))
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("a run of 1 x 1 x 1 needs about "),
            "{text}"
        );
        assert!(matches!(
            check_memory("it", size, None),
            Err(Unusable::TooLarge { .. })
        ));
    }
}
