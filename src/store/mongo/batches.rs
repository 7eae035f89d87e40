//! Combines similar questions into one read. A question that comes during a read waits for the next read, which answers all waiting
//! questions. A read always begins after all questions that it answers.

use std::{collections::HashMap, hash::Hash, pin::pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::timeout};

use crate::{shrinking_map::ShrinkingMap, store::StoreError};

/// The maximum number of questions in one read.
const MOST: usize = 256;

/// After this time the next read may begin although this read has not ended, because the connection of this read may be dead.
const HELD_UP: Duration = Duration::from_millis(250);

/// One lane of reads for each key. A read combines only questions with the same key.
#[derive(Debug)]
pub(super) struct Batches<K, Q, A>(Mutex<ShrinkingMap<K, Arc<Lane<Q, A>>>>);

#[derive(Debug)]
struct Lane<Q, A> {
    /// The running read holds this lock, for at most [`HELD_UP`].
    turn: tokio::sync::Mutex<()>,
    /// The batch that still accepts questions.
    open: Mutex<Option<Arc<Batch<Q, A>>>>,
}

#[derive(Debug)]
struct Batch<Q, A> {
    questions: Mutex<Vec<Q>>,
    answers: OnceCell<Result<HashMap<Q, A>, StoreError>>,
}

impl<K, Q, A> Default for Batches<K, Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, Q: Clone + Eq + Hash, A: Clone> Batches<K, Q, A> {
    /// Returns the answer to `question`. `None` means that the read found no answer to it.
    pub async fn ask<R>(
        &self,
        key: K,
        question: Q,
        read: impl FnOnce(Vec<Q>) -> R,
    ) -> Result<Option<A>, StoreError>
    where
        R: Future<Output = Result<HashMap<Q, A>, StoreError>>,
    {
        let mut asking = Asking { lanes: &self.0, key: key.clone(), lane: None };
        let lane = asking.lane.insert(self.0.lock().entry(key).or_default().clone());
        lane.answer(&question, read).await
    }
}

/// A caller that waits for an answer. When the caller ends or is cancelled, `drop` removes the lane if no other caller uses it. Otherwise
/// the table would grow with every key that was ever used.
struct Asking<'a, K: Eq + Hash, Q, A> {
    lanes: &'a Mutex<ShrinkingMap<K, Arc<Lane<Q, A>>>>,
    key: K,
    lane: Option<Arc<Lane<Q, A>>>,
}

impl<K: Eq + Hash, Q, A> Drop for Asking<'_, K, Q, A> {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lock();
        self.lane = None;
        // Only this table still refers to the lane.
        if lanes.get(&self.key).is_some_and(|lane| Arc::strong_count(lane) == 1) {
            lanes.remove(&self.key);
        }
    }
}

impl<Q, A> Default for Lane<Q, A> {
    fn default() -> Self {
        Self { turn: tokio::sync::Mutex::default(), open: Mutex::default() }
    }
}

impl<Q: Clone + Eq + Hash, A: Clone> Lane<Q, A> {
    async fn answer<R>(&self, question: &Q, read: impl FnOnce(Vec<Q>) -> R) -> Result<Option<A>, StoreError>
    where
        R: Future<Output = Result<HashMap<Q, A>, StoreError>>,
    {
        let batch = self.join(question);
        let answers = batch.answers.get_or_init(|| async {
            let turn = self.turn.lock().await;
            let mut reading = pin!(read(self.close(&batch)));
            match timeout(HELD_UP, &mut reading).await {
                Ok(answers) => answers,
                Err(_) => {
                    drop(turn);
                    reading.await
                }
            }
        });
        answers.await.as_ref().map(|answers| answers.get(question).cloned()).map_err(StoreError::clone)
    }

    fn join(&self, question: &Q) -> Arc<Batch<Q, A>> {
        let mut open = self.open.lock();
        if let Some(batch) = &*open {
            let mut questions = batch.questions.lock();
            if questions.contains(question) {
                return batch.clone();
            }
            if questions.len() < MOST {
                questions.push(question.clone());
                return batch.clone();
            }
        }
        let batch = Batch { questions: Mutex::new(vec![question.clone()]), answers: OnceCell::new() };
        open.insert(Arc::new(batch)).clone()
    }

    /// Closes the batch, which then accepts no more questions. Returns its questions.
    fn close(&self, batch: &Arc<Batch<Q, A>>) -> Vec<Q> {
        let mut open = self.open.lock();
        if open.as_ref().is_some_and(|open| Arc::ptr_eq(open, batch)) {
            *open = None;
        }
        batch.questions.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{FutureExt, future::join_all};
    use tokio::{sync::Semaphore, time::timeout};

    use super::*;

    /// A reader whose reads wait for a permit.
    #[derive(Default)]
    struct Reader {
        batches: Batches<&'static str, u32, u32>,
        reads: Mutex<Vec<Vec<u32>>>,
        fails: bool,
    }

    impl Reader {
        async fn ask(&self, question: u32, gate: &Semaphore) -> Result<Option<u32>, StoreError> {
            let read = |questions: Vec<u32>| async move {
                self.reads.lock().push(questions.clone());
                gate.acquire().await.unwrap().forget();
                match self.fails {
                    true => Err(StoreError::Unavailable("away".to_owned())),
                    false => Ok(questions.into_iter().filter(|n| *n != 13).map(|n| (n, n * 10)).collect()),
                }
            };
            self.batches.ask("key", question, read).await
        }
    }

    #[tokio::test]
    async fn questions_during_a_read_are_answered_by_the_next_read() {
        let (reader, gate) = (Reader::default(), Semaphore::new(0));
        let mut first = Box::pin(reader.ask(1, &gate));
        assert!((&mut first).now_or_never().is_none());
        let mut others = Box::pin(join_all([1, 2, 13, 2].map(|n| reader.ask(n, &gate))));
        assert!((&mut others).now_or_never().is_none());
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Some(10));
        let answers: Vec<_> = others.await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [Some(10), Some(20), None, Some(20)]);
        assert_eq!(*reader.reads.lock(), [vec![1], vec![1, 2, 13]]);
        assert!(reader.batches.0.lock().is_empty(), "no lane remains");
    }

    #[tokio::test]
    async fn waiting_callers_are_answered_after_the_reading_caller_is_cancelled() {
        let (reader, gate) = (Reader::default(), Semaphore::new(0));
        let mut first = Box::pin(reader.ask(1, &gate));
        assert!((&mut first).now_or_never().is_none());
        let mut waiting = Box::pin(join_all([2, 3].map(|n| reader.ask(n, &gate))));
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        gate.add_permits(1);
        let answers = timeout(Duration::from_secs(20), waiting).await.unwrap();
        assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Some(20), Some(30)]);
    }

    #[tokio::test]
    async fn no_lane_remains_after_all_callers_are_cancelled() {
        let (reader, gate) = (Reader::default(), Semaphore::new(0));
        let mut first = Box::pin(reader.ask(1, &gate));
        assert!((&mut first).now_or_never().is_none());
        let mut waiting = Box::pin(reader.ask(2, &gate));
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        assert!(!reader.batches.0.lock().is_empty(), "one caller still waits");
        drop(waiting);
        assert!(reader.batches.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_read_that_hangs_does_not_block_the_next_read() {
        let (reader, never, open) = (Reader::default(), Semaphore::new(0), Semaphore::new(1));
        let mut hangs = Box::pin(reader.ask(1, &never));
        assert!((&mut hangs).now_or_never().is_none());
        let next = timeout(Duration::from_secs(20), reader.ask(2, &open));
        tokio::select! {
            _ = hangs => panic!("this read never gets a permit"),
            answer = next => assert_eq!(answer.unwrap().unwrap(), Some(20)),
        }
    }

    #[tokio::test]
    async fn an_error_is_returned_to_every_caller_of_the_read() {
        let (reader, gate) = (Reader { fails: true, ..Reader::default() }, Semaphore::new(0));
        let mut answers = Box::pin(join_all((0..300).map(|n| reader.ask(n, &gate))));
        assert!((&mut answers).now_or_never().is_none());
        gate.add_permits(3);
        let answers = timeout(Duration::from_secs(20), answers).await.unwrap();
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(reader.reads.lock().iter().map(Vec::len).collect::<Vec<_>>(), [1, 256, 43]);
    }
}
