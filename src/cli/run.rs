//! `iris run`: an operation on whole matrices, verified.
//!
//! Calls run in batches. The calls of a batch are enqueued back to back, each on operands of its own, with nothing between them;
//! then all ranks' results go to rank 0, which verifies every one. Time is counted from the first call of a batch enqueued
//! to the last one done.

use std::time::{Duration, Instant};

use iris::heap::{Queue, World, WorldConfig};
use iris::ops::{DType, Element, FusedConfig, Runs, Variant};
use iris_testkit::{AnyOperation, Number, Share};
use serde::Serialize;

use crate::cli::args;
use crate::cli::backend;
use crate::cli::collect::Collector;
use crate::cli::derive::{Derivation, Matrices};
use crate::cli::error;
use crate::cli::footprint::Footprint;
use crate::cli::launch::{self, Place};
use crate::cli::operands::Operands;
use crate::cli::options::{self, Options};
use crate::cli::output::{self, Out};
use crate::cli::problem::{Problem, check_memory};
use crate::cli::progress::Progress;
use crate::cli::split::{Size, Split};
use crate::cli::tables::{self, Origin};
use crate::cli::verify::{Findings, Verifier};

/// So many calls run back to back, at most.
const BATCH: usize = 4;
/// What verifying is expected to do in a second at least, in multiplications: peers wait for it.
const VERIFIED_PER_SECOND: f64 = 5e8;

/// How long ranks may take to find each other, whatever the budget of a call.
const STARTING: Duration = Duration::from_secs(5);
/// The same where a rank may first compile its kernels.
const COMPILING: Duration = Duration::from_secs(60);

/// What a run found, in the order of its JSON.
#[derive(Debug, Clone, Serialize)]
struct Report {
    op: &'static str,
    backend: &'static str,
    variant: String,
    ranks: usize,
    m: usize,
    n: usize,
    k: usize,
    k_per_rank: usize,
    dtype: String,
    calls: u64,
    /// `null` where it is not finite.
    rel_err: f64,
    max_abs_err: f64,
    verified: bool,
    us_per_call: f64,
}

/// Runs, prints and writes; returns the exit status.
pub(crate) fn run(arguments: &args::Run) -> anyhow::Result<u8> {
    let place = Place::find(&arguments.world)?;
    let options = options::check(
        arguments.operation,
        &arguments.world,
        arguments.how.gather,
        arguments.variant,
    )?;
    let out = arguments.out.as_deref();
    let out = out.map(|file| Out::check(Origin::Out, file)).transpose()?;
    tables::check_run(&arguments.how, arguments.variant)?;
    let problem = Problem::read(&arguments.inputs, &arguments.sizes, &arguments.how)?;
    let split = Split {
        operation: arguments.operation,
        gather: options.gather,
        size: problem.size,
        world: place.ranks(),
    };
    let slots = usize::try_from(arguments.calls).map_or(BATCH, |calls| calls.min(BATCH));
    let footprint = Footprint {
        split,
        dtype: problem.dtype,
        tile: arguments.how.tile,
        slots,
        workspaces: 1,
    };
    let copies = place.processes().saturating_add(2);
    check_memory("a run", problem.size, footprint.machine(copies))?;
    let heap = options::heap(&arguments.world, problem.size, footprint.heap())?;
    if let Place::Parent { ranks } = place {
        return launch::processes(ranks, backend::may_be_on_gpus(&arguments.world));
    }
    let job = Job {
        arguments,
        options,
        split,
        slots,
        heap,
        out,
        transpose_b: problem.transpose_b,
    };
    let verified = match problem.dtype {
        DType::F32 => job.start::<f32>(&place, problem),
        DType::F16 => job.start::<half::f16>(&place, problem),
        DType::BF16 => job.start::<half::bf16>(&place, problem),
    }?;
    Ok(u8::from(!verified))
}

/// A run that was found possible.
struct Job<'a> {
    arguments: &'a args::Run,
    options: Options,
    split: Split,
    slots: usize,
    heap: usize,
    out: Option<Out>,
    transpose_b: bool,
}

/// What rank 0 has in the end.
struct Outcome<T> {
    report: Report,
    failure: Option<String>,
    /// The last call's whole result.
    whole: Vec<T>,
}

/// One rank's part of it.
struct OnRank<'a, T> {
    job: &'a Job<'a>,
    matrices: &'a Matrices<T>,
}

impl<T: Element + Number> backend::Job<T> for OnRank<'_, T> {
    type Output = (bool, Option<Outcome<T>>);

    fn run<B: Runs<T, i32>>(&self, host: &World, world: &World<B>) -> anyhow::Result<Self::Output> {
        self.job.on_rank(host, world, self.matrices)
    }
}

impl Job<'_> {
    fn start<T: Element + Number>(&self, place: &Place, problem: Problem) -> anyhow::Result<bool> {
        let matrices = problem.matrices::<T>(self.arguments.seed);
        drop(problem);
        let config = WorldConfig {
            heap_bytes: self.heap,
            timeout: self.timeout(),
        };
        let (verified, outcome) = place
            .run(&config, |world| {
                let job = OnRank {
                    job: self,
                    matrices: &matrices,
                };
                backend::run(&job, world, &self.arguments.world, self.heap)
            })
            .map_err(|error| options::blame_heap(error, &self.arguments.world))?;
        if let Some(outcome) = outcome {
            self.finish(place, outcome)?;
        }
        Ok(verified)
    }

    /// How long ranks wait for each other outside of calls: as long as within them, but long enough to start, and as long as
    /// rank 0 may take to verify a batch.
    fn timeout(&self) -> Duration {
        let Size { m, n, k } = self.split.size;
        let work = 2.0 * m as f64 * n as f64 * k as f64 * self.slots as f64;
        let starting = match backend::may_be_on_gpus(&self.arguments.world) {
            true => COMPILING,
            false => STARTING,
        };
        self.arguments.how.budget.max(starting)
            + Duration::from_secs_f64(work / VERIFIED_PER_SECOND)
    }

    /// One rank's side: whether all was verified, and on rank 0 the outcome.
    fn on_rank<T: Element + Number, B: Runs<T, i32>>(
        &self,
        host: &World,
        world: &World<B>,
        matrices: &Matrices<T>,
    ) -> anyhow::Result<(bool, Option<Outcome<T>>)> {
        let Size { m, .. } = self.split.size;
        let asked = self.options.variant.unwrap_or(Variant::Auto);
        let op = self.split.operation.with(asked, self.split.gather);
        let config = FusedConfig {
            bias: matrices.bias.is_some(),
            tile: self.arguments.how.tile,
            tuned: !self.arguments.how.no_tuning,
            first: i64::from(self.arguments.first_call),
            budget: self.arguments.how.budget,
            ..FusedConfig::new(m, self.split.size.n, self.split.size.k)
        };
        let mut operation =
            AnyOperation::<T, i32, B>::new(op, world, config).map_err(tables::blame)?;
        let variant = operation.plan(m).map_or(Variant::Auto, |plan| plan.variant);
        let slots = (0..self.slots)
            .map(|_| Operands::new(world, self.split, self.transpose_b, matrices.bias.is_some()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let collector = Collector::new(host, self.split)?;
        let verifier = Verifier {
            matrices,
            split: self.split,
            seed: self.arguments.seed,
            calls: self.arguments.calls,
            identical: op.share() == Share::Whole && op.is_deterministic(),
            rounds_partials: op.rounds_partials(),
        };
        let stream = B::Stream::of(world)?;
        let mut progress = Progress::new(host, "calls", self.arguments.calls);
        let (mut elapsed, mut findings, mut last) = (Duration::ZERO, Findings::NONE, Vec::new());
        let mut bound = operation.bind(&stream)?;
        let mut next = 0;
        while next < self.arguments.calls {
            let batch = (next..self.arguments.calls).zip(&slots);
            for (call, slot) in batch.clone() {
                slot.fill(
                    matrices,
                    Derivation::of(self.arguments.seed, call, self.arguments.calls),
                )?;
            }
            world.barrier()?;
            let start = Instant::now();
            for (_, slot) in batch.clone() {
                slot.call(&mut bound)?;
            }
            stream.synchronize()?;
            elapsed += start.elapsed();
            for (call, slot) in batch {
                if let Some(results) = collector.collect(&slot.result()?)? {
                    findings = findings.and(verifier.check(call, &results)?);
                    last = results;
                }
                progress.step();
                next = call + 1;
            }
        }
        drop(bound);
        let slowest = world
            .all_gather(elapsed.as_secs_f64())?
            .into_iter()
            .fold(0.0, f64::max);
        let verified = world.broadcast(0, u8::from(findings.verified()))? == 1;
        let outcome = (world.rank() == 0).then(|| Outcome {
            report: self.report::<T>(B::NAME, variant, &findings, slowest),
            failure: findings.failure,
            whole: verifier.assemble(&last),
        });
        Ok((verified, outcome))
    }

    fn report<T: Element>(
        &self,
        backend: &'static str,
        variant: Variant,
        findings: &Findings,
        seconds: f64,
    ) -> Report {
        let Size { m, n, k } = self.split.size;
        Report {
            op: self.split.operation.name(),
            backend,
            variant: variant.to_string(),
            ranks: self.split.world,
            m,
            n,
            k,
            k_per_rank: self.split.k_per_rank(),
            dtype: T::DTYPE.to_string(),
            calls: self.arguments.calls,
            rel_err: findings.comparison.rel_err,
            max_abs_err: findings.comparison.max_abs_err,
            verified: findings.verified(),
            us_per_call: seconds * 1e6 / self.arguments.calls as f64,
        }
    }

    /// Rank 0 writes and prints. What was not verified is not written.
    fn finish<T: Element>(&self, place: &Place, outcome: Outcome<T>) -> anyhow::Result<()> {
        let Outcome {
            report,
            failure,
            whole,
        } = outcome;
        if let (Some(out), None) = (&self.out, &failure) {
            out.write(&whole, report.m, report.n)?;
        }
        if self.arguments.json {
            output::json(&report)?;
        } else {
            output::text(&self.describe(place, &report))?;
        }
        if let Some(failure) = failure {
            error::say(&format!("not verified: {failure}"));
        }
        Ok(())
    }

    fn describe(&self, place: &Place, report: &Report) -> String {
        let Report { m, n, k, calls, .. } = report;
        let mut text = format!(
            "{} on {} ranks ({}, {} backend), variant {}\n  C ({m} x {n}) = A ({m} x {k}) B ({k} x {n}) in {}, depth {} a rank\n",
            report.op,
            report.ranks,
            place.how(),
            report.backend,
            report.variant,
            report.dtype,
            report.k_per_rank
        );
        if report.verified {
            text += &format!(
                "  verified against f64: {} results of {calls} calls, largest error {:.2e}, relative {:.2e}\n",
                calls * report.ranks as u64,
                report.max_abs_err,
                report.rel_err
            );
        } else {
            text += "  NOT VERIFIED\n";
        }
        text += &format!("  {:.1} us per call", report.us_per_call);
        if let (Some(file), true) = (&self.arguments.out, report.verified) {
            text += &format!("\n  wrote c to {}", file.display());
        }
        text
    }
}
