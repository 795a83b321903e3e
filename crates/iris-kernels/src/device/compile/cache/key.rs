//! What an image depends on.

use sha2::{Digest, Sha256};

use crate::device::compile::{Compiler, Request};

/// Changes where the meaning of a key or the form of a file does, so that older files are not found.
const FORMAT: &str = "iris image 1";

/// Two digests of everything that an image depends on: by one the file is named, the other stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) name: [u8; 32],
    pub(super) check: [u8; 32],
}

impl Key {
    pub(super) fn new(compiler: &dyn Compiler, request: &Request, options: &[String]) -> Self {
        let identity = compiler.identity();
        let environment = compiler.environment();
        let mut material = Material::default();
        material.text(FORMAT);
        material.text(identity.kind);
        material.text(&identity.version);
        material.text(&identity.build);
        material.text(request.architecture().name());
        material.text(request.source().name());
        material.text(request.source().text());
        for list in [request.definitions(), options, &environment] {
            material.list(list);
        }
        Self {
            name: material.digest(b"name"),
            check: material.digest(b"check"),
        }
    }
}

/// Texts one after the other, each with its length, so that no two lists of texts give the same bytes.
#[derive(Default)]
struct Material(Vec<u8>);

impl Material {
    fn text(&mut self, text: &str) {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn list(&mut self, texts: &[String]) {
        self.0.extend((texts.len() as u64).to_le_bytes());
        for text in texts {
            self.text(text);
        }
    }

    fn digest(&self, purpose: &[u8]) -> [u8; 32] {
        Sha256::new()
            .chain_update(purpose)
            .chain_update(&self.0)
            .finalize()
            .into()
    }
}
