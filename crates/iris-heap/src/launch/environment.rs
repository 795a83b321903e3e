//! The environments of launchers.

use super::{Launch, LaunchError, Launcher};
use crate::MAX_RANKS;

pub(super) const IRIS_RANK: &str = "IRIS_RANK";
pub(super) const IRIS_WORLD_SIZE: &str = "IRIS_WORLD_SIZE";
pub(super) const IRIS_RENDEZVOUS: &str = "IRIS_RENDEZVOUS";

/// Step numbers from here on are not of `srun`: batch scripts, interactive shells and the like.
const SPECIAL_STEPS: u64 = 0xffff_fff0;

impl Launch {
    /// The place that the process's environment gives it; `None` where no launcher has left its variables.
    ///
    /// Where several have, the innermost counts: `IRIS_*`, then `torchrun`, then OpenMPI, then `srun`.
    ///
    /// # Errors
    /// Where variables are missing or make no sense, and where the ranks are on more than one host.
    pub fn from_env() -> Result<Option<Self>, LaunchError> {
        Self::from_lookup(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// The same for an environment that is looked up by `lookup`.
    ///
    /// # Errors
    /// Those of [`Launch::from_env`].
    pub fn from_lookup(
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, LaunchError> {
        let environment = Environment { lookup: &lookup };
        for launcher in [iris, torchrun, openmpi, srun] {
            if let Some(launch) = launcher(&environment)? {
                return Ok(Some(launch));
            }
        }
        Ok(None)
    }
}

/// An environment. A variable that is set to nothing counts as not set.
struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

type Variable = &'static str;

impl Environment<'_> {
    fn get(&self, variable: Variable) -> Option<String> {
        (self.lookup)(variable).filter(|value| !value.is_empty())
    }

    /// The first of `variables` that is set.
    fn any(&self, variables: &[Variable]) -> Option<(Variable, String)> {
        let mut variables = variables.iter();
        variables.find_map(|&variable| Some((variable, self.get(variable)?)))
    }

    fn number(&self, variable: Variable) -> Result<Option<u64>, LaunchError> {
        let Some(value) = self.get(variable) else {
            return Ok(None);
        };
        match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(invalid(variable, value, "a whole number")),
        }
    }

    /// The number in the first of `variables` that is set.
    fn any_number(&self, variables: &[Variable]) -> Result<Option<u64>, LaunchError> {
        match self.any(variables) {
            Some((variable, _)) => self.number(variable),
            None => Ok(None),
        }
    }

    /// Rank and size, which must both be set if either is.
    fn place(&self, rank: Variable, size: Variable) -> Result<Option<(usize, usize)>, LaunchError> {
        let (ranks, sizes) = (self.number(rank)?, self.number(size)?);
        let (at, of) = match (ranks, sizes) {
            (None, None) => return Ok(None),
            (Some(at), Some(of)) => (at, of),
            (Some(_), None) => return Err(missing(rank, size)),
            (None, Some(_)) => return Err(missing(size, rank)),
        };
        let of = match usize::try_from(of) {
            Ok(of) if (1..=MAX_RANKS).contains(&of) => of,
            _ => {
                let expected = format!("a number of ranks from 1 to {MAX_RANKS}");
                return Err(invalid(size, of.to_string(), &expected));
            }
        };
        match usize::try_from(at) {
            Ok(at) if at < of => Ok(Some((at, of))),
            _ => {
                let expected = format!("a rank below {size}, which is {of}");
                Err(invalid(rank, at.to_string(), &expected))
            }
        }
    }

    /// What the environment calls this host.
    fn host(&self) -> String {
        let names = ["SLURMD_NODENAME", "PMIX_HOSTNAME", "HOSTNAME"];
        match self.any(&names) {
            Some((_, name)) => name,
            None => "this one".into(),
        }
    }
}

fn missing(set: Variable, missing: Variable) -> LaunchError {
    LaunchError::Missing { set, missing }
}

fn invalid(variable: Variable, value: String, expected: &str) -> LaunchError {
    LaunchError::Invalid {
        variable,
        value,
        expected: expected.to_owned(),
    }
}

fn launch((rank, size): (usize, usize), launcher: Launcher, rendezvous: String) -> Launch {
    Launch {
        rank,
        size,
        rendezvous,
        launcher,
    }
}

fn iris(environment: &Environment<'_>) -> Result<Option<Launch>, LaunchError> {
    let place = environment.place(IRIS_RANK, IRIS_WORLD_SIZE)?;
    match (place, environment.get(IRIS_RENDEZVOUS)) {
        (None, None) => Ok(None),
        (Some(place), Some(name)) => Ok(Some(launch(place, Launcher::Iris, name))),
        (Some(_), None) => Err(missing(IRIS_RANK, IRIS_RENDEZVOUS)),
        (None, Some(_)) => Err(missing(IRIS_RENDEZVOUS, IRIS_RANK)),
    }
}

fn torchrun(environment: &Environment<'_>) -> Result<Option<Launch>, LaunchError> {
    let Some(place) = environment.place("RANK", "WORLD_SIZE")? else {
        return match environment.get("TORCHELASTIC_RUN_ID") {
            Some(_) => Err(missing("TORCHELASTIC_RUN_ID", "RANK")),
            None => Ok(None),
        };
    };
    let (rank, size) = place;
    let master = environment.get("MASTER_ADDR");
    let local_size = environment.number("LOCAL_WORLD_SIZE")?;
    let local_rank = environment.number("LOCAL_RANK")?;
    // On one host all ranks are local, and numbered as such.
    if local_size.is_some_and(|local| local != size as u64)
        || local_rank.is_some_and(|local| local != rank as u64)
    {
        let here = environment.host();
        let there = master.unwrap_or_else(|| "others".into());
        let local = local_size.map_or("some".into(), |local| local.to_string());
        return Err(LaunchError::MoreHosts {
            hosts: format!("{local} of {size} ranks on {here}; the master is {there}"),
        });
    }
    let run = environment.get("TORCHELASTIC_RUN_ID");
    let port = environment.get("MASTER_PORT");
    if run.is_none() && port.is_none() && size > 1 {
        return Err(missing("RANK", "MASTER_PORT"));
    }
    // A run that is started again has other processes, some of which may meet before the old ones have ended.
    let restart = environment.get("TORCHELASTIC_RESTART_COUNT");
    let parts = [run, master, port, restart].map(Option::unwrap_or_default);
    let name = format!("torchrun-{}", parts.join("-"));
    Ok(Some(launch(place, Launcher::Torchrun, name)))
}

fn openmpi(environment: &Environment<'_>) -> Result<Option<Launch>, LaunchError> {
    let (rank, size) = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
    let Some(place) = environment.place(rank, size)? else {
        return Ok(None);
    };
    let all = place.1;
    if let Some(local) = environment.number("OMPI_COMM_WORLD_LOCAL_SIZE")?
        && local != all as u64
    {
        let here = environment.host();
        return Err(LaunchError::MoreHosts {
            hosts: format!("{local} of {all} ranks on {here}, the others elsewhere"),
        });
    }
    let jobs = [
        "PMIX_NAMESPACE",
        "OMPI_MCA_ess_base_jobid",
        "OMPI_MCA_orte_ess_jobid",
    ];
    let Some((_, job)) = environment.any(&jobs) else {
        return Err(missing(rank, "PMIX_NAMESPACE"));
    };
    // Where it is set it is random, so that jobs whose short numbers are equal by chance are told apart.
    let key = environment.get("OMPI_MCA_orte_precondition_transports");
    let name = format!("openmpi-{job}-{}", key.unwrap_or_default());
    Ok(Some(launch(place, Launcher::OpenMpi, name)))
}

fn srun(environment: &Environment<'_>) -> Result<Option<Launch>, LaunchError> {
    // A shell of `salloc` has a job, and a batch script has even a process number, but neither is a step of `srun`.
    let step = environment.any_number(&["SLURM_STEP_ID", "SLURM_STEPID"])?;
    let Some(step) = step.filter(|&step| step < SPECIAL_STEPS) else {
        return Ok(None);
    };
    let rank = "SLURM_PROCID";
    if environment.get(rank).is_none() {
        return Ok(None);
    }
    let sizes = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"];
    let size = environment
        .any(&sizes)
        .map_or("SLURM_NTASKS", |(size, _)| size);
    let Some(place) = environment.place(rank, size)? else {
        return Ok(None);
    };
    let nodes = [
        "SLURM_STEP_NUM_NODES",
        "SLURM_NNODES",
        "SLURM_JOB_NUM_NODES",
    ];
    if let Some(nodes) = environment.any_number(&nodes)?
        && nodes > 1
    {
        let lists = [
            "SLURM_STEP_NODELIST",
            "SLURM_JOB_NODELIST",
            "SLURM_NODELIST",
        ];
        let hosts = match environment.any(&lists) {
            Some((_, list)) => list,
            None => format!("{nodes}, one of them {}", environment.host()),
        };
        return Err(LaunchError::MoreHosts { hosts });
    }
    let Some((_, job)) = environment.any(&["SLURM_JOB_ID", "SLURM_JOBID"]) else {
        return Err(missing(rank, "SLURM_JOB_ID"));
    };
    let name = format!("srun-{job}-{step}");
    Ok(Some(launch(place, Launcher::Srun, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Launch>, LaunchError> {
        Launch::from_lookup(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn launched(variables: &[(&str, &str)]) -> Launch {
        read(variables).unwrap().unwrap()
    }

    fn message(variables: &[(&str, &str)]) -> String {
        read(variables).unwrap_err().to_string()
    }

    const IRIS: [(&str, &str); 3] = [
        (IRIS_RANK, "2"),
        (IRIS_WORLD_SIZE, "4"),
        (IRIS_RENDEZVOUS, "abc"),
    ];
    const TORCHRUN: [(&str, &str); 8] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "3"),
        ("LOCAL_WORLD_SIZE", "4"),
        ("MASTER_ADDR", "node7"),
        ("MASTER_PORT", "29500"),
        ("TORCHELASTIC_RUN_ID", "run"),
        ("TORCHELASTIC_RESTART_COUNT", "0"),
    ];
    const OPENMPI: [(&str, &str); 4] = [
        ("OMPI_COMM_WORLD_RANK", "1"),
        ("OMPI_COMM_WORLD_SIZE", "3"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "3"),
        ("PMIX_NAMESPACE", "1893597185"),
    ];
    const SRUN: [(&str, &str); 6] = [
        ("SLURM_JOB_ID", "77"),
        ("SLURM_STEP_ID", "1"),
        ("SLURM_PROCID", "0"),
        ("SLURM_NTASKS", "2"),
        ("SLURM_NNODES", "1"),
        ("SLURM_JOB_NODELIST", "node1"),
    ];

    /// `base` with some variables set differently; an empty value unsets.
    fn with<'a>(
        base: &[(&'a str, &'a str)],
        changes: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        changes.iter().chain(base).copied().collect()
    }

    #[test]
    fn each_launcher_is_recognised() {
        for (variables, launcher, rank, size) in [
            (&IRIS[..], Launcher::Iris, 2, 4),
            (&TORCHRUN[..], Launcher::Torchrun, 3, 4),
            (&OPENMPI[..], Launcher::OpenMpi, 1, 3),
            (&SRUN[..], Launcher::Srun, 0, 2),
        ] {
            let launch = launched(variables);
            assert_eq!(
                (launch.launcher(), launch.rank(), launch.size()),
                (launcher, rank, size)
            );
        }
        assert!(read(&[]).unwrap().is_none());
    }

    #[test]
    fn the_innermost_launcher_counts() {
        let mut all = [&IRIS[..], &TORCHRUN, &OPENMPI, &SRUN].concat();
        for launcher in [
            Launcher::Iris,
            Launcher::Torchrun,
            Launcher::OpenMpi,
            Launcher::Srun,
        ] {
            assert_eq!(launched(&all).launcher(), launcher);
            let of = match launcher {
                Launcher::Iris => IRIS.len(),
                Launcher::Torchrun => TORCHRUN.len(),
                Launcher::OpenMpi => OPENMPI.len(),
                Launcher::Srun => break,
            };
            all.drain(..of);
        }
    }

    #[test]
    fn jobs_meet_apart() {
        for (variables, variable) in [
            (&TORCHRUN[..], "TORCHELASTIC_RESTART_COUNT"),
            (&TORCHRUN[..], "TORCHELASTIC_RUN_ID"),
            (&TORCHRUN[..], "MASTER_PORT"),
            (&OPENMPI[..], "PMIX_NAMESPACE"),
            (&SRUN[..], "SLURM_JOB_ID"),
            (&SRUN[..], "SLURM_STEP_ID"),
        ] {
            let one = launched(variables);
            let other = launched(&with(variables, &[(variable, "9")]));
            assert_ne!(one.socket_name(), other.socket_name(), "{variable}");
        }
        let other = launched(&with(&SRUN, &[("SLURM_PROCID", "1")]));
        assert_eq!(launched(&SRUN).socket_name(), other.socket_name());
    }

    #[test]
    fn a_shell_in_an_allocation_is_no_rank() {
        let shell = [("SLURM_JOB_ID", "77"), ("SLURM_NTASKS", "4")];
        assert!(read(&shell).unwrap().is_none());
        let batch = with(&SRUN, &[("SLURM_STEP_ID", "")]);
        assert!(read(&batch).unwrap().is_none());
        let interactive = with(&SRUN, &[("SLURM_STEP_ID", "4294967290")]);
        assert!(read(&interactive).unwrap().is_none());
    }

    #[test]
    fn more_than_one_host_is_an_error_that_names_them() {
        let nodes = [("SLURM_NNODES", "2"), ("SLURM_JOB_NODELIST", "node[1-2]")];
        assert_eq!(
            message(&with(&SRUN, &nodes)),
            "the ranks are on more than one host (node[1-2]); all must be on one"
        );
        let torchrun = [("LOCAL_WORLD_SIZE", "2"), ("HOSTNAME", "node8")];
        let torchrun = message(&with(&TORCHRUN, &torchrun));
        assert!(
            torchrun.contains("node7") && torchrun.contains("node8"),
            "{torchrun}"
        );
        let openmpi = [("OMPI_COMM_WORLD_LOCAL_SIZE", "1"), ("PMIX_HOSTNAME", "n3")];
        let openmpi = message(&with(&OPENMPI, &openmpi));
        assert!(openmpi.contains("1 of 3 ranks on n3"), "{openmpi}");
    }

    #[test]
    fn half_set_and_unreadable_variables_are_named() {
        assert_eq!(
            message(&with(&IRIS, &[(IRIS_RENDEZVOUS, "")])),
            "IRIS_RANK is set, and IRIS_RENDEZVOUS is not"
        );
        assert_eq!(
            message(&[(IRIS_RENDEZVOUS, "x")]),
            "IRIS_RENDEZVOUS is set, and IRIS_RANK is not"
        );
        assert_eq!(
            message(&with(&OPENMPI, &[("OMPI_COMM_WORLD_SIZE", "")])),
            "OMPI_COMM_WORLD_RANK is set, and OMPI_COMM_WORLD_SIZE is not"
        );
        assert_eq!(
            message(&with(&TORCHRUN, &[("RANK", "-1")])),
            "RANK is \"-1\", and must be a whole number"
        );
        assert_eq!(
            message(&with(&TORCHRUN, &[("RANK", "4")])),
            "RANK is \"4\", and must be a rank below WORLD_SIZE, which is 4"
        );
        assert_eq!(
            message(&with(&IRIS, &[(IRIS_WORLD_SIZE, "0")])),
            "IRIS_WORLD_SIZE is \"0\", and must be a number of ranks from 1 to 256"
        );
        assert_eq!(
            message(&with(
                &SRUN,
                &[("SLURM_NTASKS", "300"), ("SLURM_PROCID", "299")]
            )),
            "SLURM_NTASKS is \"300\", and must be a number of ranks from 1 to 256"
        );
    }
}
