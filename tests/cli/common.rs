//! Running the command, and files for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// Variables by which launchers tell a process its place. Tests may themselves run under one.
const LAUNCHERS: [&str; 8] = [
    "IRIS_",
    "TORCHELASTIC_",
    "OMPI_",
    "PMIX_",
    "SLURM",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_",
];

/// The command, free of any launcher.
pub(crate) fn iris(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, _) in std::env::vars() {
        if LAUNCHERS.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    // The same everywhere, be there GPUs or not, and whatever the tests were told of them: to name a library that is not there would be to want
    // GPUs.
    command
        .env("CUDA_VISIBLE_DEVICES", "")
        .env("HIP_VISIBLE_DEVICES", "-1")
        // Nor does a table of whoever runs the tests count.
        .env("IRIS_TUNING", "");
    command
}

/// What a run of the command left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The JSON object that is all of stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// Runs the command to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    iris(arguments).output().unwrap().into()
}

/// Arguments from one text.
pub(crate) fn split(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The arguments are refused: exit status 2, nothing on stdout, and stderr says why.
#[track_caller]
pub(crate) fn refused(arguments: &[&str], because: &str) {
    let ran = run(arguments);
    assert_eq!(ran.status, Some(2), "{arguments:?}: {ran:?}");
    assert_eq!(ran.stdout, "", "{arguments:?}");
    assert!(
        ran.stderr.contains(because),
        "{arguments:?}: {}\nexpected: {because}",
        ran.stderr
    );
}

/// A directory for files, removed at the end.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `FILE:TENSOR` for a tensor of one of the files.
    pub(crate) fn source(&self, name: &str, tensor: &str) -> String {
        format!("{}:{tensor}", self.path(name).display())
    }

    /// What there is.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Writes a file of tensors.
    pub(crate) fn write(&self, name: &str, tensors: &[(&str, Dtype, &[usize], &[f32])]) {
        let encoded: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, dtype, _, values)| encode(*dtype, values))
            .collect();
        let views = tensors
            .iter()
            .zip(&encoded)
            .map(|((name, dtype, shape, _), bytes)| {
                (
                    *name,
                    TensorView::new(*dtype, shape.to_vec(), bytes).unwrap(),
                )
            });
        std::fs::write(
            self.path(name),
            safetensors::serialize(views, None).unwrap(),
        )
        .unwrap();
    }

    /// Writes a file of a header as it is given and so many bytes of data.
    pub(crate) fn write_raw(&self, name: &str, header: &str, data: usize) {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        std::fs::write(self.path(name), bytes).unwrap();
    }
}

fn encode(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let bytes = |value: &f32| match dtype {
        Dtype::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
        Dtype::F64 => f64::from(*value).to_le_bytes().to_vec(),
        Dtype::I8 => vec![*value as i8 as u8],
        _ => value.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

/// The tensor `c` of a file, which must be its only one: type, shape and values.
pub(crate) fn read_c(file: &Path) -> (Dtype, Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.names(), ["c"]);
    let c = tensors.tensor("c").unwrap();
    let pairs = || c.data().as_chunks::<2>().0.iter().copied();
    let values = match c.dtype() {
        Dtype::F16 => pairs()
            .map(|bytes| f16::from_le_bytes(bytes).to_f32())
            .collect(),
        Dtype::BF16 => pairs()
            .map(|bytes| bf16::from_le_bytes(bytes).to_f32())
            .collect(),
        _ => c
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
    };
    (c.dtype(), c.shape().to_vec(), values)
}
