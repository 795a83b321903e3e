//! The command, from its arguments to its exit status.
//!
//! Exit status 0 means that the result was verified or the job done, 2 that the arguments cannot be used (nothing was
//! run), 1 that something failed. Results go to stdout, everything else to stderr.

mod args;
mod backend;
mod bench;
mod collect;
mod compile;
mod derive;
mod doctor;
mod error;
mod footprint;
mod header;
mod input;
mod launch;
mod machine;
mod measure;
mod operands;
mod operation;
mod options;
mod output;
mod probe;
mod problem;
mod progress;
mod run;
mod shared;
mod size;
mod split;
mod tables;
mod tune;
mod verify;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

/// Parses the arguments, does what they ask, and says how it went.
pub(crate) fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    // A panic has said its piece on stderr by now; it is a failure like others, where 101 would be a fourth status.
    let status = catch_unwind(AssertUnwindSafe(|| dispatch(arguments.command)));
    ExitCode::from(match status {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            error::report(&error);
            error::status(&error)
        }
        Err(_) => 1,
    })
}

fn dispatch(command: args::Command) -> anyhow::Result<u8> {
    match command {
        args::Command::Run(arguments) => run::run(&arguments),
        args::Command::Bench(arguments) => {
            tables::check_bench(&arguments)?;
            bench::bench(&arguments)
        }
        args::Command::Tune(arguments) => tune::tune(&arguments),
        args::Command::Compile(arguments) => compile::compile(&arguments),
        args::Command::Doctor(arguments) => doctor::doctor(&arguments),
    }
}
