//! A barrier of all ranks on words in symmetric memory, as often as wanted and without the host.

use crate::fault::{Fault, WordKind};
use crate::layout::{Announcement, Layout};
use crate::memory::Memory;
use crate::signal::Signal;
use crate::wait::Waiting;
use crate::word::Word;
use crate::{Port, Rules};

/// A reusable barrier: nobody leaves it before all have come, and all that a rank did before it is seen by all after it.
///
/// It is a call that does nothing but enter and meet: each rank tells every peer a fresh value and waits until every peer's
/// word has *reached* it. Reached and not equal, because a fast peer may have come to the next barrier already; it cannot be
/// two ahead, since the next barrier waits for this rank.
pub struct Barrier<'a, W: Word, M, P> {
    port: Port<'a, W, M, P>,
}

impl<'a, W: Word, M: Memory<W>, P: Waiting> Barrier<'a, W, M, P> {
    /// The words a barrier of `world` ranks needs; they are zero before its first use.
    pub const fn layout(world: usize) -> Layout {
        Layout::new(world, 0, 0)
    }

    /// A barrier on `memory`, whose layout is [`Barrier::layout`].
    pub fn new(memory: M, waiting: P) -> Self {
        Self::starting_at(memory, waiting, Signal::ONE, Rules::ALL)
    }

    /// A barrier whose first value is `first`, under `rules`: for tests at the wrap and for negative controls.
    pub fn starting_at(memory: M, waiting: P, first: Signal<W>, rules: Rules) -> Self {
        let mut port = Port::new("barrier", memory, waiting);
        port.first = first;
        port.rules = rules;
        Self { port }
    }

    /// Waits until every rank has come as often as this one.
    ///
    /// # Errors
    /// When the budget ends before all have come, or a peer whose budget ended asked this rank to leave.
    pub fn wait(&self) -> Result<(), Fault> {
        let call = self.port.begin(Announcement::default())?;
        call.meet_as(WordKind::Barrier)?;
        call.finish()
    }
}
