//! Combines the questions of one moment into one read, and equal questions into one. A question that comes during a read waits for the
//! next read. A read therefore always begins after all questions that it answers, and its answers can be trusted like a caller's own read.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Debug,
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::StoreError;
use crate::shrinking_map::ShrinkingMap;

/// The maximum number of questions in one read.
const MAX_QUESTIONS: usize = 256;

/// After this time the next read may begin although this read has not ended, because the connection of this read may be dead.
const HELD_UP: Duration = Duration::from_millis(250);

/// Answers several questions with one read.
#[async_trait]
pub(super) trait Source: Debug + Send + Sync + 'static {
    /// Only questions of one group are read together. Groups do not wait for each other.
    type Group: Clone + Eq + Hash + Debug + Send + Sync;
    type Question: Clone + Eq + Hash + Debug + Send + Sync;
    type Answer: Clone + Debug + Send + Sync;

    /// Returns the answers that could be read together. Each other question is then read alone. A read of one question returns its answer
    /// or an error.
    async fn read(
        &self,
        group: &Self::Group,
        questions: &[Self::Question],
    ) -> Result<HashMap<Self::Question, Self::Answer>, StoreError>;
}

/// An answer that callers with the same question may share.
#[derive(Clone, Debug)]
pub struct Answered<A> {
    pub answer: A,
    /// `true` means that this caller's question was the first of its kind in the read. The callers with the same question share the answer.
    pub is_own: bool,
}

#[derive(Debug)]
pub(super) struct Coalescer<S: Source>(Arc<Shared<S>>);

#[derive(Debug)]
struct Shared<S: Source> {
    source: S,
    /// The lanes in which a read is in progress or about to begin.
    lanes: Mutex<ShrinkingMap<LaneKey<S>, Lane<S>>>,
}

/// The second part is set for a question that is read alone.
type LaneKey<S> = (<S as Source>::Group, Option<<S as Source>::Question>);

/// `None` means that the question has to be read alone.
type Reply<S> = Result<Option<<S as Source>::Answer>, StoreError>;

type Batch<S> = Vec<(<S as Source>::Question, Vec<oneshot::Sender<Reply<S>>>)>;

/// The questions that wait for the next reads.
#[derive(Debug)]
struct Lane<S: Source> {
    /// In the order in which they came, so that each waits for a limited number of reads.
    order: VecDeque<S::Question>,
    callers: ShrinkingMap<S::Question, Vec<oneshot::Sender<Reply<S>>>>,
}

impl<S: Source> Coalescer<S> {
    pub(super) fn new(source: S) -> Self {
        Self(Arc::new(Shared { source, lanes: Mutex::default() }))
    }

    pub(super) async fn ask(
        &self,
        group: &S::Group,
        question: &S::Question,
    ) -> Result<Answered<S::Answer>, StoreError> {
        let (reply, is_own) = self.wait((group.clone(), None), question).await;
        if let Some(answer) = reply? {
            return Ok(Answered { answer, is_own });
        }
        let (reply, is_own) = self.wait((group.clone(), Some(question.clone())), question).await;
        let answer = reply?.ok_or_else(StoreError::not_answered)?;
        Ok(Answered { answer, is_own })
    }

    /// Waits for the next read of the lane. Returns also whether this question is the first of its kind in that read.
    async fn wait(&self, key: LaneKey<S>, question: &S::Question) -> (Reply<S>, bool) {
        let (sender, receiver) = oneshot::channel();
        let is_first = {
            let mut lanes = self.0.lanes.lock();
            let lane = lanes.entry(key.clone()).or_insert_with(|| {
                tokio::spawn(self.0.clone().read_lane(key));
                Lane { order: VecDeque::new(), callers: ShrinkingMap::default() }
            });
            lane.add(question, sender)
        };
        let interrupted = |_| Err(StoreError::Unavailable("a read was interrupted".to_owned()));
        (receiver.await.unwrap_or_else(interrupted), is_first)
    }
}

impl<S: Source> Lane<S> {
    fn add(&mut self, question: &S::Question, caller: oneshot::Sender<Reply<S>>) -> bool {
        let callers = self.callers.entry(question.clone()).or_default();
        callers.push(caller);
        let is_first = callers.len() == 1;
        if is_first {
            self.order.push_back(question.clone());
        }
        is_first
    }

    /// Removes the questions of the next read, and those whose callers have all been cancelled.
    fn take(&mut self) -> Batch<S> {
        let mut batch = Vec::new();
        while batch.len() < MAX_QUESTIONS
            && let Some(question) = self.order.pop_front()
        {
            let mut callers = self.callers.remove(&question).unwrap_or_default();
            callers.retain(|caller| !caller.is_closed());
            if !callers.is_empty() {
                batch.push((question, callers));
            }
        }
        self.order.shrink_to(self.order.len().max(MAX_QUESTIONS) * 2);
        batch
    }
}

impl<S: Source> Shared<S> {
    /// Begins one read after the other until no question waits. The reads are tasks of their own, so that no caller that is cancelled
    /// interrupts a read for others, and a panic reaches only the callers of the read.
    async fn read_lane(self: Arc<Self>, key: LaneKey<S>) {
        while let Some(batch) = self.next_batch(&key) {
            let reading = tokio::spawn(self.clone().answer(key.0.clone(), batch));
            let _ = timeout(HELD_UP, reading).await;
        }
    }

    /// Removes the lane if no question waits.
    fn next_batch(&self, key: &LaneKey<S>) -> Option<Batch<S>> {
        let mut lanes = self.lanes.lock();
        let batch = lanes.get_mut(key)?.take();
        if batch.is_empty() {
            lanes.remove(key);
            return None;
        }
        Some(batch)
    }

    async fn answer(self: Arc<Self>, group: S::Group, batch: Batch<S>) {
        let (questions, mut callers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let mut result = tokio::select! {
            result = self.source.read(&group, &questions) => result,
            () = all_cancelled(&mut callers) => return,
        };
        for (question, callers) in questions.iter().zip(callers) {
            let reply = reply::<S>(&mut result, question, questions.len() == 1);
            for caller in callers {
                // A caller that was cancelled needs no answer.
                let _ = caller.send(reply.clone());
            }
        }
    }
}

async fn all_cancelled<T>(callers: &mut [Vec<oneshot::Sender<T>>]) {
    for caller in callers.iter_mut().flatten() {
        caller.closed().await;
    }
}

/// An error that no retry can remove may be the fault of one of several questions, which then concerns only its own callers.
fn reply<S: Source>(
    result: &mut Result<HashMap<S::Question, S::Answer>, StoreError>,
    question: &S::Question,
    is_alone: bool,
) -> Reply<S> {
    match result {
        Ok(answers) => match answers.remove(question) {
            None if is_alone => Err(StoreError::not_answered()),
            answer => Ok(answer),
        },
        Err(error) if is_alone || error.is_temporary() => Err(error.clone()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
