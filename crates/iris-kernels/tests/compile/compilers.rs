//! The real compilers, where they are there.

use crate::fake::architecture;
use iris_kernels::device::compile::{
    self, Architecture, Cache, CacheUse, CompileError, Compiler, Hiprtc, Request, Source, find,
};
use iris_kernels::device::fast::{Crews, is_fast};
use iris_kernels::device::nvrtc::Nvrtc;
use iris_kernels::device::{PRODUCT, TILE};
use iris_kernels::host;
use iris_kernels::{DType, Tile};
use iris_testkit::skipped;

/// Those that are there and know an architecture.
fn compilers(test: &str, architecture: &Architecture) -> Vec<&'static dyn Compiler> {
    let mut there = Vec::new();
    for (vendor, name, compiler) in compile::compilers() {
        if vendor != architecture.vendor() {
            continue;
        }
        // Whatever its age, on what these tests compile.
        let compiler = match name {
            "HIPRTC" => Hiprtc::load().map(|it| it as _),
            _ => compiler,
        };
        match compiler {
            Ok(compiler) if knows(compiler, architecture) => there.push(compiler),
            Ok(compiler) => skipped(
                test,
                format!("{} does not know {architecture}", compiler.identity()),
            ),
            Err(error) => skipped(&format!("{test} for {architecture}"), error),
        }
    }
    let required = std::env::var_os("IRIS_REQUIRE_TOOLS").is_some();
    assert!(
        !required || !there.is_empty(),
        "no compiler for {architecture}"
    );
    there
}

fn knows(compiler: &dyn Compiler, architecture: &Architecture) -> bool {
    compiler
        .supported()
        .is_none_or(|known| known.iter().any(|known| known == architecture.name()))
}

const ARCHITECTURES: [&str; 3] = ["gfx90a", "gfx942", "sm_90a"];

#[test]
fn a_program_of_ours_compiles_and_is_kept() {
    for name in ARCHITECTURES {
        let architecture = architecture(name);
        for compiler in compilers("a program of ours", &architecture) {
            let directory = tempfile::tempdir().unwrap();
            let cache = Cache::at(directory.path(), 1 << 30);
            let program = host::Program::OneShot;
            let request = Request::program(program, DType::F32, TILE, architecture.clone());
            let image = cache.compile(compiler, &request).unwrap();
            assert!(
                image.bytes().starts_with(b"\x7fELF"),
                "{}",
                compiler.identity()
            );
            let kernel = program.kernel().1.as_bytes();
            assert!(
                image.bytes().windows(kernel.len()).any(|it| it == kernel),
                "{}",
                compiler.identity()
            );
            let resources = image.resources().unwrap();
            assert_eq!(resources.len(), 1, "{}", compiler.identity());
            assert_eq!(resources[0].kernel, program.kernel().1);
            assert!(
                (16..=512).contains(&resources[0].registers),
                "{resources:?}"
            );
            assert_eq!(resources[0].scratch, 0, "{}", compiler.identity());
            let again = cache.compile(compiler, &request).unwrap();
            assert!(matches!(again.provenance().cache, CacheUse::Hit(_)));
            assert_eq!(again.bytes(), image.bytes());
        }
    }
}

/// A user's own source with headers of ours and of theirs, one of which has an error: it is shown where it stands.
/// In tiles that operations take without being asked: portable everywhere, and by crews on Hopper.
#[test]
fn the_product_by_itself_compiles() {
    for name in ["gfx942", "sm_90a"] {
        let architecture = architecture(name);
        for compiler in compilers("the product", &architecture) {
            let cache = Cache::off();
            // Of a small tile the portable kernel, which then is the reference, may keep a register in memory.
            let check = |request: &Request, most_scratch: u64| {
                let image = cache.compile(compiler, request).unwrap();
                let resources = image.resources().unwrap();
                let definitions = request.definitions();
                assert_eq!(resources.len(), 1, "{definitions:?}");
                assert_eq!(resources[0].kernel, PRODUCT.1);
                let scratch = u64::from(resources[0].scratch);
                assert!(scratch <= most_scratch, "{definitions:?}: {scratch}");
            };
            let hopper = is_fast(name, DType::BF16);
            let smallest = if hopper { 64 } else { 128 };
            for (m, n) in [(smallest, smallest), (128, 128), (128, 256)] {
                let tile = Tile { m, n };
                let request = || Request::product(DType::BF16, tile, architecture.clone());
                check(&request().portable(tile), if n < 128 { 16 } else { 0 });
                if hopper {
                    check(&Crews::of(tile).unwrap().request(request()), 0);
                }
            }
            if hopper {
                let tile = Tile { m: 128, n: 64 };
                let request = Request::product(DType::BF16, tile, architecture.clone());
                check(&Crews::of(tile).unwrap().paired().request(request), 0);
            }
        }
    }
}

#[test]
fn errors_are_shown_by_file_and_line() {
    let text = |wrong: &str| {
        format!(
            "#include \"iris/heap.h\"\n#include \"mine.h\"\n\nIRIS_KERNEL(64) mine(iris::u32* to) {{\n    *to = of_mine({wrong});\n}}\n"
        )
    };
    let header = |wrong: &str| {
        format!(
            "#pragma once\n\nIRIS_DEVICE iris::u32 of_mine(iris::u32 x) {{\n    return x + {wrong};\n}}\n"
        )
    };
    for name in ARCHITECTURES {
        let architecture = architecture(name);
        for compiler in compilers("errors", &architecture) {
            let compile = |text: String, header: String| {
                let headers = [("mine.h", header.as_str())];
                let source = Source::with_headers("user kernel.hip", &text, &headers);
                let request = Request::new(source, architecture.clone());
                Cache::off().compile(compiler, &request)
            };
            let image = compile(text("1"), header("2")).unwrap();
            assert!(image.bytes().starts_with(b"\x7fELF"));
            for (text, header, file, line) in [
                (text("no_such_thing"), header("2"), "user kernel.hip", 5),
                (text("1"), header("no_such_thing"), "mine.h", 4),
            ] {
                let error = compile(text, header).unwrap_err();
                assert!(matches!(error, CompileError::Source { .. }), "{error}");
                let error = error.to_string();
                let places = [format!("{file}({line})"), format!("{file}:{line}:")];
                assert!(
                    places.iter().any(|place| error.contains(place)),
                    "{}: {error}",
                    compiler.identity()
                );
                assert!(
                    error.contains("no_such_thing") && error.contains(name),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn an_architecture_that_is_not_known_is_refused() {
    for name in ["gfx9ff", "sm_999"] {
        let unknown = architecture(name);
        let error = find(&unknown).err().unwrap();
        let CompileError::NoCompiler { reasons, .. } = &error else {
            panic!("{error}");
        };
        assert!(!reasons.is_empty());
        for reason in reasons {
            assert!(
                reason.contains("is not there")
                    || reason.contains("is of ROCm 5 or before")
                    || reason.contains(&format!("does not know {name}: it knows ")),
                "{reason}"
            );
            assert!(
                reason.contains("install") && reason.contains("IRIS_"),
                "{reason}"
            );
        }
    }
}

/// Devices of one number all have what is of that number alone; the compiler is to know it.
#[test]
fn targets_of_devices() {
    let nvrtc = match Nvrtc::load() {
        Ok(nvrtc) => nvrtc,
        Err(error) => {
            assert!(std::env::var_os("IRIS_REQUIRE_TOOLS").is_none(), "{error}");
            return skipped("targets", error);
        }
    };
    let target = |device: &str| nvrtc.target(&architecture(device)).to_string();
    assert_eq!(target("sm_80"), "sm_80");
    assert_eq!(target("sm_90a"), "sm_90a");
    assert_eq!(target("sm_999"), "sm_999");
    let known = nvrtc.supported().unwrap();
    for number in ["90", "100", "120"] {
        let specific = format!("sm_{number}a");
        if known.contains(&specific) {
            assert_eq!(target(&format!("sm_{number}")), specific);
        }
    }
    assert_eq!(
        known.contains(&"sm_90a".to_owned()),
        known.contains(&"sm_90".to_owned())
    );
}

/// An array that is indexed at run time lies in memory.
#[test]
fn scratch_is_seen() {
    let text = "#include \"iris/heap.h\"\n\
        IRIS_KERNEL(64) scratch(iris::u32* x) {\n\
            iris::u32 at[64];\n\
            for (int i = 0; i < 64; ++i) at[(i * 7 + x[65]) % 64] = x[i];\n\
            *x = at[x[70] % 64];\n\
        }\n";
    for name in ARCHITECTURES {
        let architecture = architecture(name);
        for compiler in compilers("scratch", &architecture) {
            let request = Request::new(Source::user("scratch.hip", text), architecture.clone());
            let image = Cache::off().compile(compiler, &request).unwrap();
            let resources = image.resources().unwrap();
            assert!(
                resources[0].scratch >= 256,
                "{}: {resources:?}",
                compiler.identity()
            );
        }
    }
}
