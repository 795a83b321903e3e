//! The products of Llama 3 models that a tensor-parallel layer hands to each operation.

use std::num::NonZeroUsize;

use crate::cli::args::Llama;
use crate::cli::bench::points::cross;
use crate::cli::error::Unusable;
use crate::cli::operation::Operation;
use crate::cli::split::Size;

/// The most rows, where none are given: a power of 2.
const MOST_ROWS: usize = 16384;

/// What a layer of a model is made of.
struct Layer {
    /// The width of what layers hand on.
    hidden: usize,
    /// Heads of queries.
    heads: usize,
    /// Heads of keys, and as many of values.
    kv_heads: usize,
    /// The width of a head.
    head: usize,
    /// The width within the MLP.
    ffn: usize,
}

impl Llama {
    fn layer(self) -> Layer {
        let (hidden, heads, ffn) = match self {
            Self::B8 => (4096, 32, 14336),
            Self::B70 => (8192, 64, 28672),
            Self::B405 => (16384, 128, 53248),
        };
        Layer {
            hidden,
            heads,
            kv_heads: 8,
            head: 128,
            ffn,
        }
    }
}

/// N and K of the projections of a layer that an operation serves: of the whole problem, before it is split among ranks.
fn projections(operation: Operation, layer: &Layer) -> Option<[(usize, usize); 2]> {
    let &Layer {
        hidden,
        heads,
        kv_heads,
        head,
        ffn,
    } = layer;
    match operation {
        // What attention and the MLP end in, whose depth is split.
        Operation::MatmulAllReduce | Operation::MatmulReduceScatter => {
            Some([(hidden, heads * head), (hidden, ffn)])
        }
        // What they begin with, whose columns are split: queries, keys and values at once; gate and up.
        Operation::AllGatherMatmul => {
            Some([((heads + 2 * kv_heads) * head, hidden), (2 * ffn, hidden)])
        }
        Operation::MatmulAllGather => None,
    }
}

/// The sizes of an operation in models, each with so many rows, or with powers of 2 of them.
pub(super) fn sizes(
    operation: Operation,
    models: &[Llama],
    m: &[NonZeroUsize],
) -> Result<Vec<Size>, Unusable> {
    let powers = (0..=MOST_ROWS.ilog2()).filter_map(|power| NonZeroUsize::new(1 << power));
    let m = match m {
        [] => powers.collect(),
        given => given.to_vec(),
    };
    let mut sizes = Vec::new();
    for model in models {
        let projections =
            projections(operation, &model.layer()).ok_or_else(|| Unusable::NotForOperation {
                argument: "--llama".to_owned(),
                operation: operation.name(),
            })?;
        for (n, k) in projections {
            let one = |size| NonZeroUsize::new(size).into_iter().collect::<Vec<_>>();
            sizes.extend(cross(&m, &one(n), &one(k)));
        }
    }
    Ok(sizes)
}
