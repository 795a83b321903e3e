//! A compiler that makes of a source what a test can tell it by.

use iris_kernels::device::compile::{
    Architecture, CompileError, Compiler, Identity, Output, Request, Source, Vendor,
};
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) struct Fake {
    pub(crate) identity: Identity,
    pub(crate) options: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) takes: Duration,
    compiled: AtomicUsize,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            identity: Identity {
                kind: "fake",
                version: "1.2".to_owned(),
                build: "a".to_owned(),
                path: None,
            },
            options: Vec::new(),
            environment: Vec::new(),
            takes: Duration::ZERO,
            compiled: AtomicUsize::new(0),
        }
    }

    /// How often it has compiled.
    pub(crate) fn compiled(&self) -> usize {
        self.compiled.load(Ordering::SeqCst)
    }

    /// What it makes of a request: some thousand bytes that no other request has.
    pub(crate) fn expected(request: &Request) -> Vec<u8> {
        let text = format!("{request:?}");
        let seed = text.bytes().fold(7u64, |seed, byte| {
            seed.wrapping_mul(1_000_003) ^ u64::from(byte)
        });
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let len = rng.random_range(5_000..20_000);
        (0..len).map(|_| rng.random()).collect()
    }
}

impl Compiler for Fake {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn vendor(&self) -> Vendor {
        Vendor::Amd
    }

    fn supported(&self) -> Option<&[String]> {
        None
    }

    fn remedy(&self) -> &'static str {
        "install it"
    }

    fn options(&self, request: &Request) -> Vec<String> {
        let mut options = self.options.clone();
        options.push(format!("--arch={}", request.architecture()));
        options
    }

    fn environment(&self) -> Vec<String> {
        self.environment.clone()
    }

    fn compile(&self, request: &Request, _: &[String]) -> Result<Output, CompileError> {
        self.compiled.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.takes);
        Ok(Output {
            bytes: Self::expected(request),
            log: "x.hip(3): warning".to_owned(),
        })
    }
}

pub(crate) fn architecture(name: &str) -> Architecture {
    name.parse().unwrap()
}

/// A request whose source has a number in it.
pub(crate) fn request(number: usize) -> Request {
    let source = Source::user("x.hip", &format!("int number = {number};\n"));
    Request::new(source, architecture("gfx942"))
}
