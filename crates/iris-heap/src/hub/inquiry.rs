//! Verdicts: the first report of a fault starts an inquiry, and all who ask get its result.

use super::deadline::Deadline;
use super::message::{Answer, FromHub};
use super::watches::inquire;
use super::{Hub, State, Status};
use crate::fault::{Activity, Reason, Report, Verdict};
use iris_sync::Cause;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How long the hub waits for the answers of all ranks.
const ANSWERS: Duration = Duration::from_millis(800);
/// How long whoever asked waits for the verdict; what is left of this after [`ANSWERS`] is for the way.
pub(crate) const JUDGED: Duration = Duration::from_millis(1200);

/// The latest fault of one operation.
#[derive(Debug)]
pub(super) struct Inquiry {
    number: u64,
    epoch: u64,
    /// The rank that reported first, and what.
    own: Report,
    answers: Vec<Option<Answer>>,
    /// The ranks that have been told to stop, and have said what they are doing. A rank that reports by itself has been
    /// told nothing yet.
    heard: Vec<bool>,
    verdict: Option<Verdict>,
}

impl Hub {
    /// The verdict of the fault of operation `id` that `rank`, of this process, reports; waits for it.
    pub(crate) fn verdict(
        self: &Arc<Self>,
        rank: usize,
        id: u64,
        epoch: u64,
        own: Report,
    ) -> Verdict {
        let deadline = Deadline::after(JUDGED);
        let mut state = self.lock();
        self.report(&mut state, rank, id, epoch, own.clone());
        loop {
            match state.inquiries.get(&id) {
                // Cleared while it was waited for: all that is left is what this rank knows itself.
                None => return alone(own),
                Some(inquiry) => {
                    if let Some(verdict) = &inquiry.verdict {
                        return verdict.clone();
                    }
                    let number = inquiry.number;
                    if deadline.is_over() {
                        state.conclude(id, number);
                        continue;
                    }
                }
            }
            state = self.wait(state, deadline);
        }
    }

    /// The same for a rank of another process. All are sent the verdict when there is one.
    pub(super) fn verdict_remote(self: &Arc<Self>, rank: usize, id: u64, epoch: u64, own: Report) {
        let mut state = self.lock();
        self.report(&mut state, rank, id, epoch, own);
    }

    /// Forgets the fault of operation `id`.
    pub(crate) fn clear_verdict(&self, id: u64) {
        self.lock().inquiries.remove(&id);
        self.changed.notify_all();
    }

    /// A rank of another process answers an inquiry.
    pub(super) fn answer(&self, rank: usize, number: u64, answer: Answer) {
        let mut state = self.lock();
        let mut inquiries = state.inquiries.values_mut();
        if let Some(inquiry) = inquiries.find(|inquiry| inquiry.number == number) {
            inquiry.heard[rank] = true;
            // What a rank reported when it asked is not replaced by less.
            let slot = &mut inquiry.answers[rank];
            if slot.is_none() || waits(&answer) {
                *slot = Some(answer);
            }
            self.changed.notify_all();
        }
    }

    /// Notes what `rank` reports, and starts an inquiry if this is the first report of its fault.
    fn report(self: &Arc<Self>, state: &mut State, rank: usize, id: u64, epoch: u64, own: Report) {
        let answer = Some(Answer::Doing(Activity::Faulted(own.clone())));
        match state.inquiries.get_mut(&id) {
            Some(inquiry) if inquiry.epoch >= epoch => {
                let slot = &mut inquiry.answers[rank];
                if !slot.as_ref().is_some_and(waits) {
                    *slot = answer;
                }
                self.changed.notify_all();
                return;
            }
            _ => {}
        }
        state.inquiry += 1;
        let number = state.inquiry;
        let mut answers = vec![None; state.ranks.len()];
        answers[rank] = answer;
        let inquiry = Inquiry {
            number,
            epoch,
            own,
            answers,
            heard: vec![false; state.ranks.len()],
            verdict: None,
        };
        state.inquiries.insert(id, inquiry);
        state.broadcast(&FromHub::Inquire {
            inquiry: number,
            id,
            by: rank,
        });
        let local = state.local().into_iter();
        let local = local.map(|(rank, watches)| (rank, watches.ticket(id)));
        let local: Vec<_> = local.collect();
        // Operations are foreign code, so they are asked on a thread of their own: if one blocks, its rank gives no
        // answer, and nothing else comes of it.
        let hub = Arc::clone(self);
        let asked = thread::Builder::new()
            .name("iris-inquiry".into())
            .spawn(move || {
                inquire(local, rank, |rank, answer| hub.answer(rank, number, answer));
            });
        let hub = Arc::clone(self);
        let judged = thread::Builder::new()
            .name("iris-verdict".into())
            .spawn(move || hub.conclude(id, number));
        if asked.is_err() || judged.is_err() {
            state.conclude(id, number);
        }
    }

    /// Waits for the answers to an inquiry, and concludes it.
    fn conclude(&self, id: u64, number: u64) {
        let deadline = Deadline::after(ANSWERS);
        let mut state = self.lock();
        loop {
            let Some(inquiry) = state.inquiries.get(&id).filter(|i| i.number == number) else {
                return;
            };
            let mut ranks = state.ranks.iter().zip(&inquiry.heard);
            let enough = ranks.clone().any(|(slot, _)| slot.status == Status::Dead)
                || ranks.all(|(slot, &heard)| slot.status != Status::Alive || heard);
            if enough || deadline.is_over() {
                break;
            }
            state = self.wait(state, deadline);
        }
        state.conclude(id, number);
        self.changed.notify_all();
    }
}

impl State {
    fn conclude(&mut self, id: u64, number: u64) {
        let Some(inquiry) = self.inquiries.get(&id).filter(|i| i.number == number) else {
            return;
        };
        if inquiry.verdict.is_some() {
            return;
        }
        let verdict = self.judge(inquiry);
        let epoch = inquiry.epoch;
        // All are told, not only those who have asked: when the others do, this process may have ended.
        let judged = FromHub::Judged {
            id,
            epoch,
            verdict: verdict.clone(),
        };
        self.broadcast(&judged);
        if let Some(inquiry) = self.inquiries.get_mut(&id) {
            inquiry.verdict = Some(verdict);
        }
    }

    fn judge(&self, inquiry: &Inquiry) -> Verdict {
        let status: Vec<Status> = self.ranks.iter().map(|slot| slot.status).collect();
        judge(&status, self.gone.died, &inquiry.answers, &inquiry.own)
    }
}

/// Whether an answer tells of a wait for a peer.
fn waits(answer: &Answer) -> bool {
    match answer {
        Answer::Dropped => false,
        Answer::Doing(activity) => activity
            .report()
            .is_some_and(|report| report.wait.is_some()),
    }
}

/// What a rank that cannot reach the others concludes: the rank that it waited for does not answer.
pub(super) fn alone(own: Report) -> Verdict {
    Verdict {
        culprit: own.wait.map_or(own.rank, |wait| wait.peer),
        reason: Reason::NoAnswer,
        report: own,
    }
}

/// The verdict on the first report `own`, from each rank's status and answer, and from which died first.
///
/// A dead rank is the culprit outright, since waits may well lead elsewhere: to a rank that had not yet begun to wait for
/// the dead one. So is one whose device has failed. Ranks that differ in a call's shape come next, since neither is waiting for what the other will do.
/// Otherwise the waits are followed.
fn judge(
    status: &[Status],
    dead: Option<usize>,
    answers: &[Option<Answer>],
    own: &Report,
) -> Verdict {
    let reports = || {
        let doing = answers.iter().flatten();
        let reports = doing.filter_map(|answer| match answer {
            Answer::Dropped => None,
            Answer::Doing(activity) => activity.report(),
        });
        std::iter::once(own).chain(reports)
    };
    let failed = || reports().find(|report| report.cause == Cause::DeviceFailed);
    let gone = match dead {
        Some(culprit) => Some((culprit, Reason::Died)),
        None => failed().map(|report| (report.rank, Reason::DeviceFailed)),
    };
    if let Some((culprit, reason)) = gone {
        let waits = |report: &&Report| report.wait.is_some_and(|wait| wait.peer == culprit);
        return Verdict {
            culprit,
            reason,
            report: reports().find(waits).unwrap_or(own).clone(),
        };
    }
    let mismatch = reports().find_map(|report| match (report.cause, report.wait) {
        (Cause::Mismatch { ours, theirs }, Some(wait)) => Some((report, wait.peer, ours, theirs)),
        _ => None,
    });
    if let Some((report, peer, ours, theirs)) = mismatch {
        return Verdict {
            culprit: peer,
            reason: Reason::Mismatch {
                rank: report.rank,
                peer,
                ours,
                theirs,
            },
            report: report.clone(),
        };
    }
    let mut report = own;
    let mut at = own.rank;
    let mut seen = vec![false; status.len()];
    let reason = loop {
        let (Some(status), Some(seen)) = (status.get(at), seen.get_mut(at)) else {
            break Reason::NoAnswer;
        };
        if std::mem::replace(seen, true) {
            break Reason::Cycle;
        }
        let next = match (status, &answers[at]) {
            (Status::Left, _) => break Reason::Left,
            (_, None) => break Reason::NoAnswer,
            (_, Some(Answer::Dropped)) => break Reason::Dropped,
            (_, Some(Answer::Doing(Activity::Idle { calls }))) => {
                break Reason::NotCalling { calls: *calls };
            }
            (_, Some(Answer::Doing(Activity::Busy { index }))) => {
                break Reason::Busy { index: *index };
            }
            (_, Some(Answer::Doing(Activity::Waiting(next) | Activity::Faulted(next)))) => next,
        };
        let Some(wait) = next.wait else {
            // It was told to stop before it began the call, so it came late: it had completed as many as the index says.
            break Reason::NotCalling { calls: next.index };
        };
        report = next;
        at = wait.peer;
    };
    Verdict {
        culprit: at,
        reason,
        report: report.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_sync::{Wait, WordKind};

    fn report(rank: usize, peer: Option<usize>, cause: Cause) -> Report {
        Report {
            operation: "op".into(),
            index: 17,
            value: 18,
            rank,
            wait: peer.map(|peer| Wait {
                word: WordKind::Ready,
                peer,
                tile: Some(3),
                expected: 18,
                seen: 16,
            }),
            cause,
        }
    }

    const BUDGET: Cause = Cause::BudgetEnded { budget_ms: 500 };

    fn faulted(rank: usize, peer: usize) -> Option<Answer> {
        let cause = Cause::Aborted { by: 0 };
        Some(Answer::Doing(Activity::Faulted(report(
            rank,
            Some(peer),
            cause,
        ))))
    }

    fn idle(calls: u64) -> Option<Answer> {
        Some(Answer::Doing(Activity::Idle { calls }))
    }

    #[test]
    fn waits_are_followed_to_the_rank_that_waits_for_nobody() {
        let status = [Status::Alive; 4];
        let answers = [faulted(0, 1), faulted(1, 3), faulted(2, 1), idle(17)];
        let own = report(0, Some(1), BUDGET);
        let verdict = judge(&status, None, &answers, &own);
        assert_eq!(verdict.culprit, 3);
        assert_eq!(verdict.reason, Reason::NotCalling { calls: 17 });
        assert_eq!(verdict.report.rank, 1);
    }

    #[test]
    fn a_dead_rank_is_the_culprit_even_off_the_chain() {
        let mut status = [Status::Alive; 4];
        status[2] = Status::Dead;
        let answers = [faulted(0, 1), idle(3), None, faulted(3, 2)];
        let verdict = judge(&status, Some(2), &answers, &report(0, Some(1), BUDGET));
        assert_eq!((verdict.culprit, verdict.reason), (2, Reason::Died));
        assert_eq!(
            verdict.report.rank, 3,
            "the rank that waits for the dead one"
        );
    }

    #[test]
    fn a_rank_whose_device_failed_is_the_culprit_even_off_the_chain() {
        let failed = report(2, None, Cause::DeviceFailed);
        let answers = [
            faulted(0, 1),
            faulted(1, 0),
            Some(Answer::Doing(Activity::Faulted(failed.clone()))),
            faulted(3, 2),
        ];
        let verdict = judge(&[Status::Alive; 4], None, &answers, &failed);
        assert_eq!(
            (verdict.culprit, &verdict.reason),
            (2, &Reason::DeviceFailed)
        );
        assert_eq!(verdict.report.rank, 3, "the rank that waits for it");
        assert!(
            verdict
                .to_string()
                .starts_with("the device of rank 2 failed: rank 3 waited"),
            "{verdict}"
        );
        let nobody = judge(&[Status::Alive; 4], None, &[const { None }; 4], &failed);
        assert_eq!((nobody.culprit, nobody.reason), (2, Reason::DeviceFailed));
    }

    #[test]
    fn a_circle_of_waits_is_named_as_one() {
        let answers = [faulted(0, 1), faulted(1, 2), faulted(2, 1)];
        let own = report(0, Some(1), BUDGET);
        let verdict = judge(&[Status::Alive; 3], None, &answers, &own);
        assert_eq!((verdict.culprit, verdict.reason), (1, Reason::Cycle));
        assert_eq!(verdict.report.rank, 2);
    }

    #[test]
    fn a_rank_told_to_stop_before_it_began_was_not_calling() {
        let late = report(1, None, Cause::Aborted { by: 0 });
        let answers = [faulted(0, 1), Some(Answer::Doing(Activity::Faulted(late)))];
        let verdict = judge(
            &[Status::Alive; 2],
            None,
            &answers,
            &report(0, Some(1), BUDGET),
        );
        assert_eq!(verdict.culprit, 1);
        assert_eq!(verdict.reason, Reason::NotCalling { calls: 17 });
        assert_eq!(verdict.report.rank, 0);
    }

    #[test]
    fn other_rows_are_a_verdict_of_their_own() {
        let cause = Cause::Mismatch { ours: 5, theirs: 7 };
        let found = report(2, Some(1), cause);
        let answers = [
            faulted(0, 2),
            idle(4),
            Some(Answer::Doing(Activity::Faulted(found))),
        ];
        let verdict = judge(
            &[Status::Alive; 3],
            None,
            &answers,
            &report(0, Some(2), BUDGET),
        );
        assert_eq!(verdict.culprit, 1);
        assert_eq!(
            verdict.to_string(),
            "field `m` differs in op, call 17 (value 18): 5 on rank 2, 7 on rank 1"
        );
    }

    #[test]
    fn silence_absence_and_nonsense_end_the_chain() {
        let own = report(0, Some(1), BUDGET);
        let verdict = judge(&[Status::Alive; 2], None, &[faulted(0, 1), None], &own);
        assert_eq!((verdict.culprit, verdict.reason), (1, Reason::NoAnswer));
        let verdict = judge(
            &[Status::Alive, Status::Left],
            None,
            &[faulted(0, 1), None],
            &own,
        );
        assert_eq!((verdict.culprit, verdict.reason), (1, Reason::Left));
        let dropped = Some(Answer::Dropped);
        let verdict = judge(&[Status::Alive; 2], None, &[faulted(0, 1), dropped], &own);
        assert_eq!((verdict.culprit, verdict.reason), (1, Reason::Dropped));
        let wild = report(0, Some(9), BUDGET);
        let verdict = judge(&[Status::Alive; 2], None, &[faulted(0, 9), None], &wild);
        assert_eq!((verdict.culprit, verdict.reason), (9, Reason::NoAnswer));
    }

    #[test]
    fn a_verdict_reads_as_a_sentence() {
        let verdict = judge(
            &[Status::Alive; 3],
            None,
            &[
                Some(Answer::Doing(Activity::Faulted(report(0, Some(2), BUDGET)))),
                None,
                idle(17),
            ],
            &report(0, Some(2), BUDGET),
        );
        assert_eq!(
            verdict.to_string(),
            "rank 2 stopped calling after 17 calls: rank 0 waited 500 ms in op, call 17 (value 18), for `ready` of rank 2 for tile 3: expected 18, seen 16"
        );
    }
}
