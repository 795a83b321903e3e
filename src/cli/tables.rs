//! The user's table of what was measured: what names it, and whether it can be used.

use std::fmt;

use iris::heap::cuda::Cuda;
use iris::heap::device::Device;
use iris::ops::tuning::Tuning;
use iris::ops::{OpError, Variant};

use crate::cli::args::{self, Backend, How};
use crate::cli::error::Unusable;
use crate::cli::launch;
use crate::cli::operation::Operation;

/// What names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The argument.
    Out,
    /// The variable.
    Variable,
    /// Nothing: it is where the user's table is unless somebody says otherwise.
    Cache,
}

impl Origin {
    /// What names the table that operations go by.
    pub(crate) fn of_environment() -> Self {
        match std::env::var_os("IRIS_TUNING") {
            Some(named) if !named.is_empty() => Self::Variable,
            _ => Self::Cache,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Out => "--out",
            Self::Variable => "IRIS_TUNING",
            Self::Cache => "the table in the cache's directory",
        })
    }
}

/// Whether the table that a run may go by is one, before any rank is started.
pub(crate) fn check_run(how: &How, variant: Option<Variant>) -> Result<(), Unusable> {
    if how.no_tuning || how.tile.is_some() || variant.unwrap_or_default() != Variant::Auto {
        return Ok(());
    }
    check()
}

/// The same for a bench.
pub(crate) fn check_bench(arguments: &args::Bench) -> Result<(), Unusable> {
    if arguments.results.is_some() || arguments.vendor_only {
        return Ok(());
    }
    let gpus = || {
        arguments.world.backend != Backend::Host && Device::<Cuda>::count().is_ok_and(|it| it > 0)
    };
    // On the host each variant of this one is measured, where none is asked for: nothing is left to choose.
    let each_variant = |it: &Operation| {
        *it == Operation::MatmulAllReduce && arguments.variant.is_none() && !gpus()
    };
    if arguments.operations.iter().all(each_variant) {
        return Ok(());
    }
    check_run(&arguments.how, arguments.variant)
}

/// Of ranks that were started already rank 0's table counts: the others are told of it when an operation is created, and read none.
fn check() -> Result<(), Unusable> {
    if launch::own_rank().is_some() {
        return Ok(());
    }
    let table = Tuning::of_environment();
    table.map(drop).map_err(|error| Unusable::Table {
        origin: Origin::of_environment(),
        error,
    })
}

/// Has what names the table take the blame where an operation could not be created for it.
pub(crate) fn blame(error: OpError) -> anyhow::Error {
    match error {
        OpError::Tuning(error) => Unusable::Table {
            origin: Origin::of_environment(),
            error,
        }
        .into(),
        error => error.into(),
    }
}
