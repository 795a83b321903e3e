//! Compiles the emulator and the kernels with the C++ compiler of the machine.

use iris_testkit::skipped;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// A way to compile a kernel: which matrix instructions, on how wide a wave, and how waves share a tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    lanes: u32,
    mma: u32,
    tile: (u32, u32),
    waves: (u32, u32),
    pub(crate) dtypes: &'static [&'static str],
}

/// The paths that the kernels have. f32 takes the plain one everywhere, with the lanes of each vendor.
pub(crate) const TARGETS: [Target; 5] = [
    Target {
        name: "plain",
        lanes: 32,
        mma: 0,
        tile: (32, 32),
        waves: (2, 1),
        dtypes: &["f32", "f16", "bf16"],
    },
    Target {
        name: "sm_80",
        lanes: 32,
        mma: 1,
        tile: (32, 32),
        waves: (1, 2),
        dtypes: &["f16", "bf16"],
    },
    Target {
        name: "gfx942",
        lanes: 64,
        mma: 2,
        tile: (32, 32),
        waves: (1, 2),
        dtypes: &["f16", "bf16"],
    },
    Target {
        name: "gfx942",
        lanes: 64,
        mma: 2,
        tile: (32, 64),
        waves: (1, 2),
        dtypes: &["f32"],
    },
    Target {
        name: "gfx950",
        lanes: 64,
        mma: 3,
        tile: (64, 32),
        waves: (2, 1),
        dtypes: &["f16", "bf16"],
    },
];

/// With tiles that crews have as well.
pub(crate) const BESIDE_CREWS: Target = Target {
    name: "sm_80",
    lanes: 32,
    mma: 1,
    tile: (64, 64),
    waves: (2, 2),
    dtypes: &["bf16"],
};

impl Target {
    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        self.lanes * self.waves.0 * self.waves.1
    }

    /// What a kernel is compiled with. `ring` is the largest signal value.
    pub(crate) fn definitions(&self, dtype: &str, ring: u64) -> [(&'static str, String); 8] {
        [
            ("IRIS_DTYPE", dtype.to_owned()),
            ("IRIS_LANES", self.lanes.to_string()),
            ("IRIS_MMA", self.mma.to_string()),
            ("IRIS_TILE_M", self.tile.0.to_string()),
            ("IRIS_TILE_N", self.tile.1.to_string()),
            ("IRIS_WAVES_M", self.waves.0.to_string()),
            ("IRIS_WAVES_N", self.waves.1.to_string()),
            ("IRIS_WORD_MAX", ring.to_string()),
        ]
    }

    /// What a case must say of the kernel it runs.
    pub(crate) fn describe(&self, op: &str, dtype: &str) -> String {
        let (m, n) = self.tile;
        format!(
            "op={op} dtype={dtype} lanes={} threads={} tile={m},{n}",
            self.lanes,
            self.threads()
        )
    }
}

fn hip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hip")
}

fn emulator_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../iris-testkit/emulator")
}

/// The C++ compiler, or `None` where there is none, which only a machine that is not a CI's may say.
pub(crate) fn compiler() -> Option<&'static str> {
    static COMPILER: OnceLock<Option<String>> = OnceLock::new();
    COMPILER
        .get_or_init(|| {
            let works = |name: &String| {
                Command::new(name)
                    .arg("--version")
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .is_ok_and(|status| status.success())
            };
            let named = std::env::var("CXX").ok();
            let found = named
                .into_iter()
                .chain(["c++", "g++", "clang++", "clang++-22"].map(String::from))
                .find(works);
            assert!(
                found.is_some() || std::env::var_os("CI").is_none(),
                "no C++ compiler, and this is a CI"
            );
            if found.is_none() {
                let why = "no C++ compiler (CXX, c++, g++ or clang++) to run the HIP kernels with";
                skipped("emulator", why);
            }
            found
        })
        .as_deref()
}

/// A hash of all sources, so that what was compiled from others is not used.
fn fingerprint() -> u64 {
    static FINGERPRINT: OnceLock<u64> = OnceLock::new();
    *FINGERPRINT.get_or_init(|| {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator");
        let headers = hip().join("iris");
        let crews = headers.join("sm90");
        let mut files: Vec<_> = [hip(), headers, crews, emulator_sources(), own]
            .iter()
            .flat_map(|directory| {
                fs::read_dir(directory).expect("the sources lie beside this test")
            })
            .map(|entry| entry.expect("a directory can be listed").path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        files
            .iter()
            .flat_map(|path| fs::read(path).expect("a source can be read"))
            .fold(0xcbf2_9ce4_8422_2325, hash)
    })
}

/// One step of FNV-1a.
fn hash(state: u64, byte: u8) -> u64 {
    (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// Compiles to a file of a name that says what it is made of, unless it is there already.
fn compile(name: &str, options: &[String], sources: &[PathBuf]) -> PathBuf {
    let compiler = compiler().expect("asked for before");
    let key = options
        .iter()
        .flat_map(|option| option.bytes())
        .fold(fingerprint(), hash);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    fs::create_dir_all(&directory).expect("the target directory can be written");
    let target = directory.join(format!("{name}-{key:016x}"));
    if target.exists() {
        return target;
    }
    // Written under another name first: tests run side by side, in processes too.
    let own = directory.join(format!(
        "{name}-{key:016x}.{}.{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let output = Command::new(compiler)
        .args([
            "-std=c++17",
            "-O1",
            "-g1",
            "-Wall",
            "-Wextra",
            "-Wno-unknown-pragmas",
            "-Wno-psabi", // of how structs of 64 bytes are passed, by compilers that nobody has any more
        ])
        .args(["-DIRIS_EMULATED", "-DIRIS_CONTROLS", "-DIRIS_STALLS"])
        .arg("-I")
        .arg(hip())
        .arg("-I")
        .arg(emulator_sources())
        .args(options)
        .args(["-x", "c++"])
        .args(sources)
        .arg("-o")
        .arg(&own)
        .output()
        .expect("the compiler runs");
    assert!(
        output.status.success(),
        "{name} does not compile:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&own, &target).expect("a file can be renamed in its directory");
    target
}

/// The program that runs cases.
pub(crate) fn emulator() -> PathBuf {
    let sources: Vec<_> = [
        "main", "case", "fast", "ring", "runtime", "sm90", "fibers", "matrix",
    ]
    .iter()
    .map(|name| emulator_sources().join(name).with_extension("cpp"))
    .collect();
    // The program itself is compiled once, and runs in all tests.
    let options = ["-O3", "-rdynamic", "-pthread", "-ldl"].map(String::from);
    compile("emulator", &options, &sources)
}

/// A source, compiled to a library that the emulator loads.
fn library(name: &str, definitions: &[(&str, String)], source: PathBuf) -> PathBuf {
    let mut options: Vec<_> = [
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-fno-strict-aliasing",
        // A GPU faults at 16 bytes that are not aligned to 16; here the check traps.
        "-fsanitize=alignment,shift,bounds,integer-divide-by-zero",
        "-fsanitize-undefined-trap-on-error",
    ]
    .map(String::from)
    .into();
    options.extend(
        definitions
            .iter()
            .map(|(name, value)| format!("-D{name}={value}")),
    );
    compile(name, &options, &[source])
}

/// The text of a source of a user's own, compiled for waves of so many lanes.
pub(crate) fn own(name: &str, text: &str, lanes: u32, definitions: &[(&str, String)]) -> PathBuf {
    // Of a name that says what is in it: texts may differ in nothing else.
    let name = format!("{name}-{lanes}-{:016x}", text.bytes().fold(0, hash));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("own");
    fs::create_dir_all(&directory).expect("the target directory can be written");
    let source = directory.join(&name).with_extension("hip");
    let part = directory.join(format!("{name}.{}", std::process::id()));
    fs::write(&part, text).expect("the target directory can be written");
    fs::rename(&part, &source).expect("a file can be renamed in its directory");
    let lanes = ("IRIS_LANES", lanes.to_string());
    library(&name, &[&[lanes], definitions].concat(), source)
}

/// A kernel's source, compiled for a dtype and a target. `ring` is the largest signal value.
pub(crate) fn kernel(source: &str, target: &Target, dtype: &str, ring: u64) -> PathBuf {
    let definitions = target.definitions(dtype, ring);
    let stem = source.rsplit('/').next().unwrap_or(source);
    let name = format!("{stem}-{}-{dtype}-{ring}", target.name);
    let source = hip().join(source).with_extension("hip");
    library(&name, &definitions, source)
}

/// Runs the emulator with these arguments and lines, and returns the lines it printed.
pub(crate) fn emulate(arguments: &[&Path], lines: &[String]) -> Vec<String> {
    let (results, output) = run(arguments, lines, Stdio::inherit());
    assert!(
        output.status.success(),
        "the emulator ended with {} at case {:?}",
        output.status,
        lines.get(results.len())
    );
    results
}

/// The same, with what it says in place of a result where it ends over one.
pub(crate) fn emulate_to_the_end(arguments: &[&Path], lines: &[String]) -> Vec<String> {
    let (mut results, output) = run(arguments, lines, Stdio::piped());
    if !output.status.success() {
        results.push(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    results
}

fn run(arguments: &[&Path], lines: &[String], errors: Stdio) -> (Vec<String>, Output) {
    let mut child = Command::new(emulator())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .expect("the emulator starts");
    let mut input = child.stdin.take().expect("piped");
    let text = lines.join("\n") + "\n";
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("the emulator ends");
    // An emulator that ended early leaves its input unread; its status says so.
    drop(writer.join().expect("the writer does not panic"));
    let results = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(String::from)
        .collect();
    (results, output)
}
