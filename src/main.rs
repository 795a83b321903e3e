//! The `iris` command: runs, measures and diagnoses the fused operations.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
