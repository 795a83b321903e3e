//! The cache: what it finds again, what it refuses, what it removes, and that it never stands in the way.

use crate::fake::{Fake, architecture, request};
use iris_kernels::device::compile::{
    Cache, CacheError, CacheUse, CompileError, Damage, Image, Request, Source,
};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const ROOMY: u64 = 1 << 30;

fn stored(image: &Image) -> PathBuf {
    match &image.provenance().cache {
        CacheUse::Stored(path) => path.clone(),
        other => panic!("{other:?}"),
    }
}

fn is_hit(image: &Image) -> bool {
    matches!(&image.provenance().cache, CacheUse::Hit(_))
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_compiled_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("made/as needed");
    let fake = Fake::new();
    let place = Some(inner.as_path());
    assert_eq!(Cache::at(&inner, ROOMY).check(), Ok(place));
    assert_eq!(names(&inner), [""; 0]);
    let first = Cache::at(&inner, ROOMY)
        .compile(&fake, &request(1))
        .unwrap();
    let path = stored(&first);
    assert_eq!(first.bytes(), Fake::expected(&request(1)));
    // Another cache, as another process would have it.
    let again = Cache::at(&inner, ROOMY)
        .compile(&fake, &request(1))
        .unwrap();
    assert_eq!(again.provenance().cache, CacheUse::Hit(path.clone()));
    assert_eq!(again.bytes(), first.bytes());
    assert_eq!(again.log(), "x.hip(3): warning");
    assert_eq!(again.provenance().compiler, fake.identity);
    assert_eq!((fake.compiled(), again.notice()), (1, None));
    assert_eq!(
        names(&inner),
        [path.file_name().unwrap().to_str().unwrap()],
        "nothing but the image is left"
    );
}

/// Whatever an image depends on, a change of it gives another.
#[test]
fn every_part_of_the_key_counts() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path(), ROOMY);
    let of = |name: &str, text: &str, arch: &str| {
        Request::new(Source::user(name, text), architecture(arch))
    };
    let base = || of("x.hip", "int x;\n", "gfx942");
    let requests = [
        base(),
        of("y.hip", "int x;\n", "gfx942"),
        of("x.hip", "int y;\n", "gfx942"),
        of("x.hip", "int x;\n", "gfx950"),
        base().define("A", 1),
        base().define("A", 2),
        base().define("A", 1).define("B", 2),
        base().define("A", "1B=2"),
        // The same letters as two before, otherwise divided.
        base().define("A", "1B").define("", 2),
        Request::new(
            Source::with_headers("x.hip", "#include \"h\"\nint x;\n", &[("h", "int h;\n")]),
            architecture("gfx942"),
        ),
        Request::new(
            Source::with_headers("x.hip", "#include \"h\"\nint x;\n", &[("h", "int i;\n")]),
            architecture("gfx942"),
        ),
    ];
    let mut fakes: [Fake; 6] = std::array::from_fn(|_| Fake::new());
    fakes[1].identity.kind = "other";
    fakes[2].identity.version = "1.3".to_owned();
    fakes[3].identity.build = "b".to_owned();
    fakes[4].options = vec!["-O2".to_owned()];
    fakes[5].environment = vec!["OPTIONS=-O2".to_owned()];
    // What comes from where it lies is the same, wherever that is.
    let mut elsewhere = Fake::new();
    elsewhere.identity.path = Some("/elsewhere".into());

    let mut paths = HashSet::new();
    for request in &requests {
        assert!(
            paths.insert(stored(&cache.compile(&fakes[0], request).unwrap())),
            "{request:?}"
        );
    }
    for fake in &fakes[1..] {
        assert!(
            paths.insert(stored(&cache.compile(fake, &requests[0]).unwrap())),
            "{:?}",
            fake.identity
        );
    }
    assert!(is_hit(&cache.compile(&elsewhere, &requests[0]).unwrap()));
}

/// Every way in which a file can be wrong: it is never used, and the next one finds a good one in its place.
#[test]
fn a_bad_file_is_compiled_anew_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path(), ROOMY);
    let fake = Fake::new();
    let path = stored(&cache.compile(&fake, &request(1)).unwrap());
    let other = stored(&cache.compile(&fake, &request(2)).unwrap());
    let (good, other) = (fs::read(&path).unwrap(), fs::read(other).unwrap());
    let len = good.len();
    let length = |there: usize, expected: usize| Damage::Length {
        there: there as u64,
        expected: expected as u64,
    };
    let mut cases: Vec<(Vec<u8>, Damage)> = vec![
        (Vec::new(), Damage::Magic),
        (b"an altogether other file".to_vec(), Damage::Magic),
        (good[..20].to_vec(), length(20, 88)),
        (good[..100].to_vec(), length(100, len)),
        (good[..len - 1].to_vec(), length(len - 1, len)),
        ([&good[..], b"x"].concat(), length(len + 1, len)),
        // A whole image, of another kernel.
        (other, Damage::OtherKey),
        // The second half was never written.
        (
            [&good[..len / 2], &vec![0; len - len / 2]].concat(),
            Damage::Checksum,
        ),
    ];
    for at in [8, 39, 60, len / 2, len - 33, len - 32, len - 1] {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        cases.push((flipped, Damage::Checksum));
    }
    let mut huge = good.clone();
    huge[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
    cases.push((huge, length(len, usize::MAX)));

    for (at, (bytes, damage)) in cases.into_iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        let before = fake.compiled();
        let image = cache.compile(&fake, &request(1)).unwrap();
        assert_eq!(
            image.provenance().cache,
            CacheUse::Replaced {
                path: path.clone(),
                damage
            },
            "{at}"
        );
        assert_eq!(fake.compiled(), before + 1, "{at}");
        assert_eq!(image.bytes(), Fake::expected(&request(1)), "{at}");
        assert_eq!(fs::read(&path).unwrap(), good, "{at}");
        assert!(is_hit(&cache.compile(&fake, &request(1)).unwrap()), "{at}");
    }
}

/// A limit that leaves room for `files` images of the fake's and not for one more.
fn limit(files: usize) -> u64 {
    let bytes: Vec<_> = (0..20)
        .map(|at| Fake::expected(&request(at)).len() + 200)
        .collect();
    (bytes.iter().max().unwrap() * files) as u64
}

#[test]
fn the_least_recently_used_go_first() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path(), ROOMY);
    let fake = Fake::new();
    let begun = SystemTime::now() - Duration::from_secs(1000);
    for at in 0..6 {
        let path = stored(&cache.compile(&fake, &request(at)).unwrap());
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(begun + Duration::from_secs(at as u64))
            .unwrap();
    }
    // The first written is used, and so is the youngest.
    assert!(is_hit(&cache.compile(&fake, &request(0)).unwrap()));

    let size = |at| Fake::expected(&request(at)).len() as u64 + 88 + 17;
    let small = Cache::at(directory.path(), size(0) + size(5) + size(6));
    stored(&small.compile(&fake, &request(6)).unwrap());
    for (at, there) in [
        (1, false),
        (2, false),
        (3, false),
        (4, false),
        (0, true),
        (5, true),
        (6, true),
    ] {
        let before = names(directory.path()).len();
        let off = Cache::at(directory.path(), ROOMY);
        let image = off.compile(&fake, &request(at)).unwrap();
        assert_eq!(is_hit(&image), there, "{at}");
        assert_eq!(names(directory.path()).len(), before + usize::from(!there));
    }
}

#[test]
fn the_limit_holds_and_only_images_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let keep = directory.path().join("notes.txt");
    let almost = directory
        .path()
        .join(format!("{}.iris-image", "g".repeat(64)));
    let in_use = directory.path().join(".iris-abcdef.writing");
    let abandoned = directory.path().join(".iris-ghijkl.writing");
    let inside = directory
        .path()
        .join(format!("{}.iris-image", "a".repeat(64)));
    for path in [&keep, &almost, &in_use, &abandoned] {
        fs::write(path, vec![1; 100_000]).unwrap();
    }
    fs::create_dir(&inside).unwrap();
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    for path in [&keep, &almost, &abandoned] {
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    let cache = Cache::at(directory.path(), limit(4));
    let fake = Fake::new();
    for at in 0..20 {
        let path = stored(&cache.compile(&fake, &request(at)).unwrap());
        assert!(path.is_file(), "the newest is never removed");
        let bytes: u64 = names(directory.path())
            .iter()
            .filter(|name| name.ends_with(".iris-image") && !name.starts_with(['g']))
            .map(|name| fs::metadata(directory.path().join(name)).unwrap())
            .filter(|metadata| metadata.is_file())
            .map(|metadata| metadata.len())
            .sum();
        assert!(bytes <= limit(4), "{bytes}");
    }
    for path in [&keep, &almost, &in_use, &inside] {
        assert!(path.exists(), "{}", path.display());
    }
    assert!(!abandoned.exists());

    let tiny = Cache::at(directory.path(), 1000);
    let before = names(directory.path());
    let image = tiny.compile(&fake, &request(100)).unwrap();
    assert!(
        matches!(
            &image.provenance().cache,
            CacheUse::Failed {
                error: CacheError::TooLarge { limit: 1000, .. },
                first: true
            }
        ),
        "{:?}",
        image.provenance()
    );
    assert_eq!(
        names(directory.path()),
        before,
        "nothing makes room for what does not fit"
    );
}

/// Without a place for a cache there are images all the same, and the first says why.
#[test]
fn a_cache_that_cannot_be_used_is_said_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a file");
    fs::write(&file, "").unwrap();
    let fake = Fake::new();
    let variables = |set: &[(&str, &str)]| {
        let set: Vec<_> = set
            .iter()
            .map(|(name, value)| (name.to_string(), OsString::from(value)))
            .collect();
        Cache::from_lookup(move |name| {
            set.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        })
    };
    let below = file.join("below").display().to_string();
    for (cache, because) in [
        (Cache::at(&below, ROOMY), "a file/below"),
        (Cache::at("/proc/none/at/all", ROOMY), "/proc/none/at/all"),
        (variables(&[]), "HOME"),
        (variables(&[("HOME", "relative")]), "HOME"),
        (
            variables(&[("IRIS_CACHE_DIR", &below), ("IRIS_CACHE_BYTES", "much")]),
            "`much`",
        ),
    ] {
        let error = cache.check().unwrap_err().to_string();
        assert!(error.contains(because), "{error}");
        let first = cache.compile(&fake, &request(1)).unwrap();
        let notice = first.notice().unwrap();
        assert!(
            notice.contains(because) && notice.contains("IRIS_CACHE"),
            "{notice}"
        );
        assert_eq!(first.bytes(), Fake::expected(&request(1)));
        let second = cache.compile(&fake, &request(2)).unwrap();
        assert_eq!(second.notice(), None);
        assert!(matches!(
            second.provenance().cache,
            CacheUse::Failed { first: false, .. }
        ));
        assert_eq!(second.bytes(), Fake::expected(&request(2)));
    }
    let off = variables(&[("IRIS_CACHE_DIR", ""), ("HOME", "/")]);
    let image = off.compile(&fake, &request(1)).unwrap();
    assert_eq!(
        (image.provenance().cache.clone(), image.notice()),
        (CacheUse::Off, None)
    );
    assert_eq!((off.directory(), off.check()), (None, Ok(None)));
}

#[test]
fn the_environment_says_where_it_is() {
    for (set, expected) in [
        (
            &[
                ("IRIS_CACHE_DIR", "/a/b"),
                ("XDG_CACHE_HOME", "/c"),
                ("HOME", "/d"),
            ][..],
            "/a/b/kernels",
        ),
        (
            &[("XDG_CACHE_HOME", "/c"), ("HOME", "/d")],
            "/c/iris/kernels",
        ),
        (
            &[("XDG_CACHE_HOME", "c"), ("HOME", "/d")],
            "/d/.cache/iris/kernels",
        ),
        (&[("HOME", "/d")], "/d/.cache/iris/kernels"),
        (
            &[("IRIS_CACHE_DIR", "/a"), ("IRIS_CACHE_BYTES", "64MiB")],
            "/a/kernels",
        ),
        (
            &[("IRIS_CACHE_DIR", "/a"), ("IRIS_CACHE_BYTES", "0")],
            "/a/kernels",
        ),
    ] {
        let cache = Cache::from_lookup(|name| {
            set.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        });
        assert_eq!(cache.directory(), Some(Path::new(expected)));
    }
}

/// What a source includes without being given it may change without the key.
#[test]
fn a_source_that_is_not_whole_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path(), ROOMY);
    let fake = Fake::new();
    let source = Source::user("x.hip", "#include \"iris/heap.h\"\n#include \"away.h\"\n");
    let request = Request::new(source, architecture("gfx942"));
    for _ in 0..2 {
        let image = cache.compile(&fake, &request).unwrap();
        let include = "away.h".to_owned();
        assert_eq!(image.provenance().cache, CacheUse::Bypassed { include });
    }
    assert_eq!((fake.compiled(), names(directory.path()).len()), (2, 0));
}

#[test]
fn threads_that_want_the_same_compile_it_once() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path(), ROOMY);
    let mut fake = Fake::new();
    fake.takes = Duration::from_millis(50);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (cache, fake) = (&cache, &fake);
            scope.spawn(move || {
                for number in 0..2 {
                    let image = cache.compile(fake, &request(number)).unwrap();
                    assert_eq!(image.bytes(), Fake::expected(&request(number)), "{thread}");
                }
            });
        }
    });
    assert_eq!(fake.compiled(), 2);
}

#[test]
fn anothers_architecture_is_refused_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let request = Request::new(Source::user("x.hip", ""), architecture("sm_90"));
    let error = Cache::at(directory.path(), ROOMY)
        .compile(&fake, &request)
        .unwrap_err();
    assert!(matches!(error, CompileError::Unsupported { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("fake 1.2 does not know sm_90: it knows AMD's"),
        "{error}"
    );
    assert_eq!((fake.compiled(), names(directory.path()).len()), (0, 0));
}
