//! `iris compile`, by a compiler that is a script, and by the real ones that are there.

use std::path::{Path, PathBuf};
use std::process::Command;

use iris::kernels::DType;
use iris::kernels::device::TILE;
use iris::kernels::device::compile::{Architecture, Cache, CacheUse, Request, find};
use iris::kernels::device::fast::{Crews, is_fast};
use iris::kernels::host::Program;
use iris_testkit::skipped;
use serde_json::Value;

use crate::common::{Files, Ran, iris, split};

const KEYS: [&str; 11] = [
    "kernel",
    "dtype",
    "arch",
    "compiler",
    "bytes",
    "registers",
    "scratch_bytes",
    "file",
    "cached",
    "notes",
    "ms",
];
const SOURCES: [&str; 11] = [
    "accumulate",
    "all_gather_matmul",
    "all_gather_matmul_packets",
    "matmul",
    "matmul_all_gather",
    "matmul_reduce_scatter",
    "matmul_reduce_scatter_packets",
    "one_shot",
    "one_shot_packets",
    "two_shot",
    "two_shot_packets",
];

/// The command with a cache of its own, and no compilers but those that are given here.
fn compile(files: &Files, arguments: &[&str]) -> Command {
    let mut command = iris(&["compile"]);
    command
        .args(arguments)
        .env("IRIS_CACHE_DIR", files.path("cache"))
        .env("COMPILED", files.path("compiled"))
        .env("IRIS_NVRTC_LIBRARY", "/none/libnvrtc.so")
        .env("IRIS_HIPRTC_LIBRARY", "/none/libhiprtc.so")
        .env("IRIS_NVCC", "/none/nvcc")
        .env("IRIS_CLANG", "/none/clang");
    command
}

fn run(command: &mut Command) -> Ran {
    command.output().unwrap().into()
}

/// A script that stands for a compiler. They are files of the sources, as a program that was just written cannot be run while another
/// thread of this process is starting a child, which has the file open for a moment.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli/compilers")
        .join(name)
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

fn compilations(files: &Files) -> usize {
    std::fs::read_to_string(files.path("compiled")).map_or(0, |text| text.lines().count())
}

fn images(files: &Files) -> usize {
    std::fs::read_dir(files.path("cache/kernels")).map_or(0, Iterator::count)
}

#[track_caller]
fn refused(arguments: &[&str], because: &[&str]) {
    let files = Files::new();
    let ran = run(compile(&files, arguments).env("IRIS_CLANG", script("clang")));
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
    for because in because {
        assert!(ran.stderr.contains(because), "{because}: {}", ran.stderr);
    }
    assert_eq!((compilations(&files), images(&files)), (0, 0));
}

#[test]
fn arguments_that_cannot_be_used() {
    refused(&[], &["--arch"]);
    for bad in ["h100", "sm90", "gfx", "", "gfx942 -O0"] {
        refused(
            &["--arch", bad],
            &["gfx90a, gfx942, gfx950, sm_80, sm_90a", &format!("`{bad}`")],
        );
    }
    refused(&split("--arch gfx942 --dtype f64"), &["f64"]);
    refused(&split("--arch gfx942 --op matmul"), &["matmul-all-reduce"]);
    refused(&split("--arch gfx942 --define A"), &["--source"]);
    refused(
        &split("--arch gfx942 --op matmul-all-reduce --source x.hip"),
        &["--source"],
    );
    refused(
        &split("--arch gfx942 --source /none/x.hip"),
        &["/none/x.hip", "No such file"],
    );
    refused(
        &split("--arch gfx942 --source /dev --define 1A=2"),
        &["/dev"],
    );
    refused(
        &split("--arch gfx942 --out /dev/null/x"),
        &["--out /dev/null/x", "Not a directory"],
    );
    refused(
        &split("--arch gfx942 --out /dev/null"),
        &["--out /dev/null"],
    );
    let files = Files::new();
    std::fs::write(files.path("x.hip"), "").unwrap();
    let source = files.path("x.hip").display().to_string();
    for bad in ["1A=2", "A-B", "=1", "", "A B"] {
        refused(
            &["--arch", "gfx942", "--source", &source, "--define", bad],
            &["NAME=VALUE"],
        );
    }
}

/// Neither are 3000 lines of a compiler's said of them, nor is nothing done and nothing said.
#[test]
fn tiles_that_kernels_do_not_have() {
    let wide = "whose sides must be multiples of 32x128 and at most 128x256";
    let of_f32 = "of f32 those whose sides must be multiples of 32x128 and at most 128x128";
    for tile in ["1x1", "32x64", "256x128", "64x64", "128x384"] {
        for arch in ["gfx942", "sm_80"] {
            let arguments = format!("--arch {arch} --tile 64x128 --tile {tile}");
            let says = format!("--tile {tile}: kernels for {arch} have no such tile, but ");
            refused(
                &split(&arguments),
                &[&says, of_f32, &format!("of bf16 those {wide}\n")],
            );
        }
    }
    for arguments in [
        "--arch gfx942 --tile 64x64 --dtype f32",
        "--arch gfx942 --tile 128x256 --dtype f32",
        "--arch sm_90a --tile 64x64 --dtype f32",
    ] {
        refused(&split(arguments), &["have no such tile", of_f32]);
    }
    let hopper = split("--arch sm_90a --tile 64x96 --dtype f16");
    refused(&hopper, &[&format!("{wide}, or 64x64, or 64x128")]);
    // What is not done leaves no directory.
    let files = Files::new();
    let out = files.path("out").display().to_string();
    let arguments = ["--arch", "gfx942", "--tile", "1x1", "--out", &out];
    let ran = run(&mut compile(&files, &arguments));
    assert_eq!((ran.status, files.names().len()), (Some(2), 0), "{ran:?}");
    // One that some types have is compiled of those.
    let arguments = split("--arch gfx942 --op matmul-all-gather --tile 64x256 --json");
    let ran = run(compile(&files, &arguments).env("IRIS_CLANG", script("clang")));
    let compiled = ran.json()["compiled"].as_array().unwrap().len();
    assert_eq!((ran.status, compiled), (Some(0), 2 * 2), "{ran:?}");
}

#[test]
fn without_a_cache_there_must_be_a_directory() {
    let files = Files::new();
    let ran = run(compile(&files, &["--arch", "gfx942"])
        .env("IRIS_CLANG", script("clang"))
        .env("IRIS_CACHE_DIR", ""));
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    assert!(ran.stderr.contains("give --out"), "{}", ran.stderr);
}

/// What is named and not there is an error, whatever else is there: here an nvcc where programs are searched for.
#[test]
fn without_the_compiler_it_says_what_to_install() {
    let files = Files::new();
    let path = format!("{}:{}", script("").display(), path());
    for (arch, named, hints) in [
        (
            "sm_90a",
            "IRIS_NVRTC_LIBRARY",
            ["/none/libnvrtc.so: ", "pip install nvidia-cuda-nvrtc"],
        ),
        ("sm_90a", "IRIS_NVCC", ["/none/nvcc (", "CUDA toolkit"]),
        (
            "gfx942",
            "IRIS_HIPRTC_LIBRARY",
            ["/none/libhiprtc.so", "ROCm"],
        ),
        ("gfx942", "IRIS_CLANG", ["/none/clang (", "clang-22 lld-22"]),
    ] {
        let mut command = compile(&files, &["--arch", arch]);
        for variable in [
            "IRIS_NVRTC_LIBRARY",
            "IRIS_NVCC",
            "IRIS_HIPRTC_LIBRARY",
            "IRIS_CLANG",
        ] {
            if variable != named {
                command.env_remove(variable);
            }
        }
        let ran = run(command.env("PATH", &path));
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.contains(&format!("no compiler for {arch}: ")));
        for hint in hints.into_iter().chain([named]) {
            assert!(ran.stderr.contains(hint), "{hint}: {}", ran.stderr);
        }
    }
}

#[test]
fn an_architecture_that_no_compiler_knows() {
    // Nothing is compiled for those that it does know.
    let files = Files::new();
    let ran =
        run(compile(&files, &split("--arch gfx942 --arch gfx90a"))
            .env("IRIS_CLANG", script("clang")));
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""));
    let known = "does not know gfx90a: it knows gfx942, gfx950;";
    assert!(ran.stderr.contains(known), "{}", ran.stderr);
    assert_eq!(compilations(&files), 0);
}

#[test]
fn a_directory_gets_a_file_for_each_source_dtype_and_architecture() {
    let files = Files::new();
    let out = files.path("a/b").display().to_string();
    let arguments = [
        "--arch", "gfx942", "--arch", "gfx950", "--arch", "gfx942", "--out", &out,
    ];
    let ran = run(compile(&files, &arguments).env("IRIS_CLANG", script("clang")));
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let mut expected = Vec::new();
    for source in SOURCES {
        for dtype in ["bf16", "f16", "f32"] {
            for arch in ["gfx942", "gfx950"] {
                expected.push(format!("{source}.{dtype}.{arch}.hsaco"));
                let row = ran.stdout.lines().any(|line| {
                    let cells: Vec<_> = line.split('|').map(str::trim).collect();
                    cells.starts_with(&["", source, dtype, arch, "clang 99.1"])
                });
                assert!(row, "{source} {dtype} {arch}: {}", ran.stdout);
            }
        }
    }
    let mut names: Vec<_> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, expected);
    assert!(
        ran.stdout.ends_with(&format!("66 in {out}\n")),
        "{}",
        ran.stdout
    );
    assert_eq!((compilations(&files), images(&files)), (66, 0));
}

#[test]
fn the_cache_is_filled_once() {
    let files = Files::new();
    let arguments = split("--arch gfx942 --dtype bf16 --dtype f32 --op matmul_all_reduce --json");
    for cached in [false, true] {
        let ran = run(compile(&files, &arguments).env("IRIS_CLANG", script("clang")));
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        let json = ran.json();
        assert_eq!(json["ok"], true);
        assert_eq!(json["failed"], Value::Array(Vec::new()));
        let compiled = json["compiled"].as_array().unwrap();
        let of: Vec<_> = compiled
            .iter()
            .map(|it| {
                format!(
                    "{} {}",
                    it["kernel"].as_str().unwrap(),
                    it["dtype"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(
            of,
            [
                "one_shot bf16",
                "one_shot f32",
                "one_shot_packets bf16",
                "one_shot_packets f32",
                "two_shot bf16",
                "two_shot f32",
                "two_shot_packets bf16",
                "two_shot_packets f32",
                "accumulate bf16",
                "accumulate f32",
                "matmul bf16",
                "matmul f32"
            ]
        );
        for it in compiled {
            let mut keys: Vec<_> = it.as_object().unwrap().keys().map(String::as_str).collect();
            let mut expected = KEYS;
            keys.sort_unstable();
            expected.sort_unstable();
            assert_eq!(keys, expected);
            assert_eq!(
                (&it["arch"], &it["cached"]),
                (&"gfx942".into(), &cached.into())
            );
            assert_eq!(
                it["registers"],
                Value::Null,
                "the script's code tells nothing"
            );
            assert!(Path::new(it["file"].as_str().unwrap()).is_file());
        }
        assert_eq!((compilations(&files), images(&files)), (12, 12));
    }
}

/// A compiler that is named by where it is from here is found, though it runs in a directory of its own.
#[test]
fn a_compiler_may_be_named_by_a_relative_path() {
    for named in ["./clang", "../compilers/clang"] {
        let files = Files::new();
        let arguments = split("--arch gfx942 --dtype f16 --op matmul-all-gather");
        let mut command = compile(&files, &arguments);
        let ran = run(command.current_dir(script("")).env("IRIS_CLANG", named));
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    }
}

#[test]
fn nvcc_knows_what_is_of_one_number_alone() {
    let files = Files::new();
    let out = files.path("out").display().to_string();
    let arguments = split("--arch sm_80 --arch sm_90a --dtype f16 --op all-gather-matmul --out");
    let mut command = compile(&files, &arguments);
    let ran = run(command.arg(&out).env("IRIS_NVCC", script("nvcc")));
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stdout.contains("nvcc 13.0.88"), "{}", ran.stdout);
    for file in [
        "all_gather_matmul.f16.sm_80",
        "all_gather_matmul.f16.sm_90a",
        "all_gather_matmul-crews.f16.sm_90a",
    ] {
        let file = format!("out/{file}.cubin");
        assert!(files.path(&file).is_file(), "{file}");
    }
    assert!(
        !files
            .path("out/all_gather_matmul-crews.f16.sm_80.cubin")
            .exists()
    );
    // Other tiles, of which f32 has no wider ones.
    let arguments =
        split("--arch sm_80 --op matmul-all-gather --tile 64x128 --tile 128x256 --json --out");
    let mut command = compile(&files, &arguments);
    let ran = run(command.arg(&out).env("IRIS_NVCC", script("nvcc")));
    let compiled = ran.json()["compiled"].as_array().unwrap().len();
    assert_eq!((ran.status, compiled), (Some(0), 2 * (3 + 2)), "{ran:?}");
    let file = "out/matmul_all_gather-128x256.bf16.sm_80.cubin";
    assert!(files.path(file).is_file(), "{file}");
}

/// A cache that cannot be written fails the job, and the way out is told.
#[test]
fn a_cache_that_cannot_be_written_is_a_failure() {
    let files = Files::new();
    std::fs::write(files.path("cache"), "a file").unwrap();
    let arguments = split("--arch gfx942 --dtype f32 --op matmul_all_gather");
    let ran = run(compile(&files, &arguments).env("IRIS_CLANG", script("clang")));
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.stderr.contains("matmul_all_gather.hip is not kept"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("set IRIS_CACHE_DIR to a directory"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_source_of_ones_own() {
    let files = Files::new();
    let write = |name: &str, text: &str| {
        let path = files.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    write("mine.h", "#pragma once\nint of_mine;\n");
    let good = write(
        "good.hip",
        "#include \"iris/heap.h\"\n#include \"mine.h\"\nint odd;\n",
    );
    let bad = write("bad.hip", "int wrong;\n");
    let out = files.path("out").display().to_string();
    let command = |more: &[&str]| {
        let mut all = vec!["--arch", "gfx942", "--json"];
        all.extend(more);
        run(compile(&files, &all).env("IRIS_CLANG", script("clang")))
    };

    let ran = command(&[
        "--source", &good, "--out", &out, "--define", "A", "--define", "B=x=1",
    ]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let compiled = &ran.json()["compiled"][0];
    assert_eq!(
        (&compiled["kernel"], &compiled["dtype"]),
        (&"good".into(), &Value::Null)
    );
    assert!(files.path("out/good.gfx942.hsaco").is_file());
    let log = std::fs::read_to_string(files.path("compiled")).unwrap();
    assert!(log.contains(" -DA=1 -DB=x=1 "), "{log}");
    // Warnings are shown, and are part of what is told.
    assert!(
        ran.stderr.contains("mine.hip:2:1: warning: odd"),
        "{}",
        ran.stderr
    );
    assert!(compiled["notes"][0].as_str().unwrap().contains("odd"));

    let ran = command(&["--source", &good, "--out", &out, "--dtype", "f16"]);
    assert_eq!(ran.json()["compiled"][0]["dtype"], "f16");
    assert!(files.path("out/good.f16.gfx942.hsaco").is_file());

    let ran = command(&["--source", &bad]);
    assert_eq!(ran.status, Some(1));
    let json = ran.json();
    assert_eq!(
        (&json["ok"], &json["failed"][0]["kernel"]),
        (&false.into(), &"bad".into())
    );
    for text in [
        ran.stderr.as_str(),
        json["failed"][0]["error"].as_str().unwrap(),
    ] {
        assert!(
            text.contains("bad.hip does not compile for gfx942"),
            "{text}"
        );
        assert!(text.contains("mine.hip:3:5: error: wrong"), "{text}");
    }

    // Of what it includes, one thing is not there: it may change behind the cache's back.
    let away = write("away.hip", "#include \"away.h\"\n");
    let ran = command(&["--source", &away]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stderr.contains("includes away.h") && ran.stderr.contains("--out"),
        "{}",
        ran.stderr
    );
    assert_eq!(command(&["--source", &away, "--out", &out]).status, Some(0));
}

/// The real compilers: what the command leaves in the cache is what an operation looks for, the portable kernel and the one for Hopper.
#[test]
fn what_is_compiled_ahead_is_found_at_run_time() {
    for name in ["gfx90a", "gfx942", "gfx950", "sm_80", "sm_90a"] {
        let architecture: Architecture = name.parse().unwrap();
        let compiler = match find(&architecture) {
            Ok(compiler) => compiler,
            Err(error) => {
                assert!(std::env::var_os("IRIS_REQUIRE_TOOLS").is_none(), "{error}");
                skipped("what_is_compiled_ahead_is_found_at_run_time", error);
                continue;
            }
        };
        let files = Files::new();
        let arguments = split("--dtype bf16 --op matmul-all-gather --json");
        let mut command = iris(&["compile", "--arch", name]);
        command
            .args(arguments)
            .env("IRIS_CACHE_DIR", files.path("cache"));
        for variable in [
            "IRIS_NVRTC_LIBRARY",
            "IRIS_NVCC",
            "IRIS_HIPRTC_LIBRARY",
            "IRIS_CLANG",
        ] {
            if let Some(value) = std::env::var_os(variable) {
                command.env(variable, value);
            }
        }
        let ran = run(&mut command);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        let cache = Cache::at(files.path("cache/kernels"), 1 << 30);
        let program = Program::MatmulAllGather;
        let program = Request::program(program, DType::BF16, TILE, architecture.clone());
        let product = Request::product(DType::BF16, TILE, architecture.clone());
        let mut requests = Vec::new();
        for request in [program, product] {
            requests.push(request.clone().portable(TILE));
            if is_fast(name, DType::BF16) {
                requests.push(Crews::of(TILE).unwrap().request(request));
            }
        }
        let json = ran.json();
        let all = json["compiled"].as_array().unwrap();
        assert_eq!(all.len(), requests.len());
        for (compiled, request) in all.iter().zip(requests) {
            let registers = compiled["registers"].as_u64().unwrap();
            assert!((32..=512).contains(&registers), "{compiled}");
            assert_eq!(compiled["scratch_bytes"], 0, "{compiled}");
            let image = cache.compile(compiler, &request).unwrap();
            let file = compiled["file"].as_str().unwrap();
            assert_eq!(
                image.provenance().cache,
                CacheUse::Hit(file.into()),
                "{name}"
            );
            assert!(image.bytes().starts_with(b"\x7fELF"));
        }
    }
}
