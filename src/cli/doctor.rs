//! `iris doctor`: what this machine has, and whether ranks work on it.
//!
//! Each check tries the thing itself rather than asking whether it should work, and says what to do where it does not.

mod devices;
mod libraries;

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use iris::heap::cuda::Cuda;
use iris::heap::hip::Hip;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::cli::args;
use crate::cli::error::whole;
use crate::cli::machine;
use crate::cli::output;
use crate::cli::probe;
use crate::cli::size::Bytes;
use devices::{AMD, Gpus, NVIDIA, Vendor};
use libraries::{Kept, Library};

/// Files that a rank needs open: its standard streams, the heap, its connection, and some for the program itself.
const FILES_NEEDED: u64 = 64;
/// What the check by a run multiplies: enough for tiles of every rank, and done in no time.
const SELF_CHECK: [&str; 9] = [
    "run",
    "matmul-all-reduce",
    "--m",
    "65",
    "--n",
    "33",
    "--k",
    "70",
    "--json",
];
/// How long a wait of that run may last.
const SELF_CHECK_BUDGET: [&str; 2] = ["--budget", "10"];

/// How long the whole of it may take: kernels may have to be compiled.
const SELF_CHECK_LIMIT: Duration = Duration::from_secs(120);

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    version: &'static str,
    machine: Machine,
    limits: Limits,
    backends: Vec<Backend>,
    gpus: Vec<Gpus>,
    libraries: Vec<Library>,
    cache: Kept,
    launcher: Option<Launcher>,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Machine {
    system: String,
    cores: usize,
    memory_bytes: usize,
    memory_available_bytes: Option<usize>,
}

/// Limits of this user; none where there is no limit.
#[derive(Debug, Serialize)]
struct Limits {
    open_files: Option<u64>,
    locked_memory_bytes: Option<u64>,
    processes: Option<u64>,
    address_space_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Backend {
    name: &'static str,
    built_in: bool,
    found: bool,
    detail: String,
}

/// The launcher whose environment this process was started in.
#[derive(Debug, Serialize)]
struct Launcher {
    detail: String,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
    /// What to do where it is not ok.
    advice: Option<String>,
}

impl Check {
    fn of(name: &'static str, advice: &str, outcome: anyhow::Result<String>) -> Self {
        match outcome {
            Ok(detail) => Self {
                name,
                ok: true,
                detail,
                advice: None,
            },
            Err(error) => Self {
                name,
                ok: false,
                detail: whole(&error),
                advice: Some(advice.to_owned()),
            },
        }
    }
}

/// Looks, prints, and returns the exit status: 0 where all is well.
pub(crate) fn doctor(arguments: &args::Doctor) -> anyhow::Result<u8> {
    let gpus = vec![Gpus::find::<Cuda>(&NVIDIA), Gpus::find::<Hip>(&AMD)];
    let libraries = libraries::all();
    let cache = libraries::cache();
    let mut checks = vec![
        Check::of(
            "sealed memory (memfd)",
            "ranks share their heaps through memfd_create with sealing: a kernel of 3.17 or later, and a sandbox that lets it through",
            probe::memfd().map(|_| "works".to_owned()),
        ),
        Check::of(
            "passing descriptors (SCM_RIGHTS)",
            "ranks in processes pass the heap over a Unix-domain socket: let the sandbox allow socketpair, sendmsg and recvmsg",
            probe::pass_descriptor().map(|()| "works".to_owned()),
        ),
        Check::of(
            "open files",
            "raise the limit, for example `ulimit -n 1024`",
            open_files(),
        ),
        Check::of(
            "launcher environment",
            "start the ranks with torchrun, mpirun or srun, or unset the variables that are left of one",
            launcher().map(|found| {
                found.unwrap_or_else(|| "none: ranks are started by `--ranks`".to_owned())
            }),
        ),
        Check::of(
            "cache of kernels",
            "until then kernels are compiled anew each time: set IRIS_CACHE_DIR and IRIS_CACHE_BYTES to what can be used, or leave them out",
            cache.outcome(),
        ),
        Check::of(
            "2 ranks in threads",
            "run `iris run matmul-all-reduce --ranks 2` and see what it says",
            self_check(&["--backend", "host", "--ranks", "2"]),
        ),
        Check::of(
            "2 ranks in processes",
            "run `iris run matmul-all-reduce --ranks 2 --processes` and see what it says",
            self_check(&["--backend", "host", "--ranks", "2", "--processes"]),
        ),
    ];
    for (gpus, vendor) in gpus.iter().zip([&NVIDIA, &AMD]) {
        checks.extend(gpu_checks(gpus, vendor, &libraries));
    }
    let report = Report {
        ok: checks.iter().all(|check| check.ok),
        version: env!("CARGO_PKG_VERSION"),
        machine: machine(),
        limits: limits(),
        backends: backends(&gpus),
        gpus,
        libraries,
        cache,
        launcher: launcher().ok().flatten().map(|detail| Launcher { detail }),
        checks,
    };
    if arguments.json {
        output::json(&report)?;
    } else {
        output::text(&report.to_string())?;
    }
    Ok(u8::from(!report.ok))
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine {
            system,
            cores,
            memory_bytes,
            memory_available_bytes,
        } = &self.machine;
        write!(
            f,
            "iris {} on {system}\n  cores {cores}, memory {}",
            self.version,
            Bytes(*memory_bytes)
        )?;
        if let Some(available) = memory_available_bytes {
            write!(f, ", {} of it available", Bytes(*available))?;
        }
        let limit =
            |value: Option<u64>| value.map_or("no limit".to_owned(), |value| value.to_string());
        let bytes = |value: Option<u64>| match value.map(usize::try_from) {
            Some(Ok(value)) => Bytes(value).to_string(),
            _ => "no limit".to_owned(),
        };
        writeln!(
            f,
            "\n  limits: open files {}, processes {}, locked memory {}, address space {}",
            limit(self.limits.open_files),
            limit(self.limits.processes),
            bytes(self.limits.locked_memory_bytes),
            bytes(self.limits.address_space_bytes),
        )?;
        writeln!(f, "\nbackends")?;
        for backend in &self.backends {
            let mark = if backend.built_in && backend.found {
                "yes"
            } else {
                "no "
            };
            writeln!(f, "  {mark}  {:5} {}", backend.name, backend.detail)?;
        }
        for gpus in self.gpus.iter().filter(|gpus| !gpus.devices.is_empty()) {
            writeln!(f, "\nGPUs for {}{gpus}", gpus.backend)?;
        }
        writeln!(f, "\nlibraries and compilers for GPUs")?;
        let vendors = [("cuda", &NVIDIA), ("hip", &AMD)];
        let is_here = |backend: &str| {
            self.gpus
                .iter()
                .any(|gpus| gpus.backend == backend && !gpus.devices.is_empty())
                || vendors
                    .iter()
                    .any(|(name, vendor)| *name == backend && vendor.node().is_some())
        };
        writeln!(f, "{}", libraries::text(&self.libraries, is_here))?;
        writeln!(f, "{}", self.cache)?;
        writeln!(f, "\nchecks")?;
        for check in &self.checks {
            let mark = if check.ok { "ok  " } else { "FAIL" };
            writeln!(f, "  {mark}  {}: {}", check.name, check.detail)?;
            if let Some(advice) = &check.advice {
                writeln!(f, "        {advice}")?;
            }
        }
        let verdict = if self.ok {
            "all is well"
        } else {
            "something is not well"
        };
        write!(f, "\n{verdict}")
    }
}

fn machine() -> Machine {
    let name = rustix::system::uname();
    Machine {
        system: format!(
            "{} {} ({})",
            name.sysname().to_string_lossy(),
            name.release().to_string_lossy(),
            name.machine().to_string_lossy()
        ),
        cores: machine::cores(),
        memory_bytes: machine::memory(),
        memory_available_bytes: machine::available(),
    }
}

fn limits() -> Limits {
    let soft = |resource| getrlimit(resource).current;
    Limits {
        open_files: soft(Resource::Nofile),
        locked_memory_bytes: soft(Resource::Memlock),
        processes: soft(Resource::Nproc),
        address_space_bytes: soft(Resource::As),
    }
}

fn backends(gpus: &[Gpus]) -> Vec<Backend> {
    let mut backends = vec![Backend {
        name: "host",
        built_in: true,
        found: true,
        detail: format!(
            "runs on the processors, of which this process may use {}",
            machine::cores()
        ),
    }];
    for (gpus, (vendor, maker)) in gpus.iter().zip([(&NVIDIA, "NVIDIA"), (&AMD, "AMD")]) {
        let count = gpus.devices.len();
        backends.push(Backend {
            name: gpus.backend,
            built_in: true,
            found: count > 0,
            detail: match (count, vendor.node()) {
                (0, None) => format!("no {maker} device is here"),
                (0, Some(file)) => format!(
                    "{maker} devices are here ({file}), and none can be used: {}",
                    gpus.error.as_deref().unwrap_or("none is visible")
                ),
                (1, _) => "1 GPU".to_owned(),
                (count, _) => format!("{count} GPUs"),
            },
        });
    }
    backends
}

/// Whether ranks work on a vendor's GPUs, where there are any.
fn gpu_checks(gpus: &Gpus, vendor: &Vendor, libraries: &[Library]) -> Vec<Check> {
    let count = gpus.devices.len();
    if count == 0 && vendor.node().is_none() {
        return Vec::new();
    }
    let backend = gpus.backend;
    let fault = |detail: String, advice: String| Check {
        name: "GPUs",
        ok: false,
        detail: format!("{backend}: {detail}"),
        advice: Some(advice),
    };
    let mut checks: Vec<_> = gpus
        .faults()
        .into_iter()
        .map(|(detail, advice)| fault(detail, advice))
        .collect();
    let compiles = gpus.devices.iter().all(|gpu| gpu.compiled_for.is_some());
    if !compiles {
        let of_backend = libraries.iter().filter(|it| it.backend == backend);
        let reasons: Vec<_> = of_backend.filter_map(|it| it.error.as_deref()).collect();
        checks.push(fault(
            "no compiler for its kernels".to_owned(),
            reasons.join("\n        "),
        ));
    }
    if checks.is_empty() && count > 0 {
        let ranks = count.min(2).to_string();
        let run = ["--backend", backend, "--ranks", &ranks];
        let advice = format!(
            "run `iris run matmul-all-reduce --backend {backend} --ranks {ranks}` and see what it says"
        );
        checks.push(Check::of(
            "ranks on GPUs, in threads",
            &advice,
            self_check(&run),
        ));
        let mut run = run.to_vec();
        run.push("--processes");
        checks.push(Check::of(
            "ranks on GPUs, in processes",
            &advice,
            self_check(&run),
        ));
    }
    checks
}

fn open_files() -> anyhow::Result<String> {
    let limit = getrlimit(Resource::Nofile).current;
    let needed = FILES_NEEDED + iris::heap::MAX_RANKS as u64;
    match limit {
        None => Ok("no limit".to_owned()),
        Some(limit) if limit >= needed => Ok(format!(
            "{limit}, enough for {} ranks",
            iris::heap::MAX_RANKS
        )),
        Some(limit) if limit >= FILES_NEEDED + 8 => Ok(format!(
            "{limit}, enough for {} ranks",
            limit - FILES_NEEDED
        )),
        Some(limit) => anyhow::bail!("{limit} are allowed"),
    }
}

/// Runs this program on some ranks, and looks at what it says of itself.
fn self_check(arguments: &[&str]) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command
        .args(SELF_CHECK)
        .args(SELF_CHECK_BUDGET)
        .args(arguments)
        .stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        // The check starts its own ranks, wherever it was started itself.
        if name.to_str().is_some_and(crate::cli::launch::is_launchers) {
            command.env_remove(name);
        }
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("running this program")?;
    let deadline = Instant::now() + SELF_CHECK_LIMIT;
    // What it prints fits into the pipes.
    while child.try_wait().context("waiting for it")?.is_none() {
        if Instant::now() > deadline {
            child.kill().context("ending it")?;
            child.wait().context("waiting for it")?;
            anyhow::bail!("it did not end within {} s", SELF_CHECK_LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().context("reading what it says")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        errors.trim()
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("its JSON")?;
    anyhow::ensure!(report["verified"] == true, "not verified: {report}");
    Ok(format!(
        "matmul_all_reduce verified, relative error {:.1e}",
        report["rel_err"].as_f64().unwrap_or(f64::NAN)
    ))
}

fn launcher() -> anyhow::Result<Option<String>> {
    crate::cli::launch::describe()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_what_failed_and_what_to_do() {
        let report = Report {
            ok: false,
            version: "1",
            machine: machine(),
            limits: limits(),
            backends: backends(&[]),
            gpus: Vec::new(),
            libraries: Vec::new(),
            cache: Kept {
                directory: None,
                error: None,
            },
            launcher: None,
            checks: vec![
                Check::of("one", "never shown", Ok("fine".into())),
                Check::of("two", "do this", Err(anyhow::anyhow!("broken"))),
            ],
        };
        let text = report.to_string();
        assert!(text.contains("  ok    one: fine\n"), "{text}");
        assert!(
            text.contains("  FAIL  two: broken\n        do this\n"),
            "{text}"
        );
        assert!(
            text.contains("  yes  host ") && text.contains("  no   cache of kernels"),
            "{text}"
        );
        assert!(
            !text.contains("never shown") && text.ends_with("something is not well"),
            "{text}"
        );
    }
}
