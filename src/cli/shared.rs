//! Random matrices that the ranks of one process draw once.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use iris::ops::Element;
use iris_testkit::Number;

use crate::cli::derive::Matrices;
use crate::cli::problem::Problem;
use crate::cli::split::Size;

/// One point's matrices, which are given up once all ranks have taken their parts.
#[derive(Debug)]
pub(crate) struct Shared<T>(Mutex<Weak<Matrices<T>>>);

impl<T: Element + Number> Shared<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The matrices of a size, by the seed: the same at each call.
    pub(crate) fn draw(&self, size: Size, seed: u64) -> Arc<Matrices<T>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let problem = Problem::random(size, T::DTYPE);
            let drawn = Arc::new(problem.matrices(seed));
            *shared = Arc::downgrade(&drawn);
            drawn
        })
    }
}
