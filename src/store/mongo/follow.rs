//! The feed: one change stream, kept open whatever happens to it.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    MongoStore,
    batch_size::{BatchSize, ORDINARY},
    failure::StreamFailure,
    next_answer::{NotAnswered, next_answer},
    open::{Begin, Opened, open},
    patience::Patience,
    prepare,
    receiver::{Ended, Receiver},
    stream_cursor::{Batch, StreamCursor},
};
use crate::{
    feed::{FeedItem, GapReason, Position},
    seldom::seldom,
    store::StoreError,
};

/// Where changes come faster than single ones are read, several are asked for at once: each request costs the server and this node as
/// much as some changes do. After an answer with one change the next request follows at once.
const BETWEEN_BATCHES: Duration = Duration::from_millis(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Clients wait, and while no server is there the driver's selection takes its time as well.
const LAST_BACKOFF: Duration = Duration::from_secs(1);
/// A stream that breaks off so soon is not opened again at once.
const YOUNG: Duration = Duration::from_secs(2);
/// How often the server may refuse to go on from a token before the token is given up.
const REFUSALS: u32 = 5;
/// After so many failures in a row what keeps the stream away is told: it may be another thing than what broke it off,
/// and need a person.
const PERSISTENT: u32 = 5;

pub(super) async fn follow(
    store: &MongoStore,
    items: mpsc::Sender<FeedItem>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let mut follower = Follower {
        store,
        receiver: Receiver::new(items, &store.counts),
        begin: Begin::Past,
        failures: 0,
        images_in_doubt: false,
        patience: Patience::default(),
        only_raw: false,
    };
    store.stream.begins();
    let result = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        result = follower.run() => result,
    };
    store.counts.lost();
    result
}

struct Follower<'a> {
    store: &'a MongoStore,
    receiver: Receiver<'a>,
    begin: Begin,
    /// In a row, without progress between them: the stream came no further in the history.
    failures: u32,
    /// After a gap images may be off: a collection that was made anew has none.
    images_in_doubt: bool,
    patience: Patience,
    /// A reply could not be made a document, for example because a text in it is not UTF-8. The driver's cursor reads it
    /// nevertheless.
    only_raw: bool,
}

impl Follower<'_> {
    async fn run(&mut self) -> Result<(), StoreError> {
        loop {
            let begun = Instant::now();
            let failure = match self.read().await {
                Ended::ReceiverGone => return Ok(()),
                Ended::Failed(failure) => failure,
            };
            // The tries to open it again are not counted.
            if self.failures == 0 {
                self.store.stream.broke_off();
            }
            let lost = match failure {
                StreamFailure::Fatal(error) => return Err(error),
                StreamFailure::HistoryLost(reason) => {
                    if self.failures >= PERSISTENT {
                        seldom!(warn, %reason, "history is lost again whenever the change stream is opened");
                    }
                    Some(reason)
                }
                StreamFailure::Refused(error) if self.failures >= REFUSALS => {
                    seldom!(warn, error, "the server does not go on from where the change stream was");
                    Some(GapReason::Resume)
                }
                StreamFailure::Passing(error) | StreamFailure::Refused(error) => {
                    if self.failures == 0 {
                        seldom!(warn, error, "the change stream broke off; it will be resumed");
                    } else if self.failures >= PERSISTENT {
                        seldom!(warn, error, "the change stream can't be opened yet");
                    }
                    None
                }
            };
            if let Some(reason) = lost
                && self.lose(reason).await.is_err()
            {
                return Ok(());
            }
            // What broke off once is mostly there again: another member, another cursor.
            if lost.is_some() || self.failures > 0 || begun.elapsed() < YOUNG {
                tokio::time::sleep(backoff(self.failures)).await;
            }
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Begins anew: what happened between is not told.
    async fn lose(&mut self, reason: GapReason) -> Result<(), Ended> {
        self.begin = Begin::Now;
        self.images_in_doubt = true;
        self.receiver.gap(reason).await
    }

    async fn read(&mut self) -> Ended {
        self.read_on().await.err().unwrap_or(Ended::ReceiverGone)
    }

    async fn read_on(&mut self) -> Result<(), Ended> {
        if self.images_in_doubt {
            prepare::ensure_images(self.store).await?;
            self.images_in_doubt = false;
        }
        let Opened { mut cursor, at } = open(self.store, &self.begin).await?;
        if let Some(at) = at {
            self.receiver.begins_at(at);
        }
        let mut to_tell = at.map(Position::before);
        let mut size = BatchSize::default();
        loop {
            let asked = Instant::now();
            let batch = self.ask(&mut cursor, &mut size).await?;
            // Only the answer to the first request shows whether history is lost, or whether the server refuses to go on.
            if let Some(position) = to_tell.take() {
                self.receiver.opened(position).await?;
            }
            self.take(&batch, size.is_behind()).await?;
            if batch.is_last() {
                return Err(closed());
            }
            if !size.is_behind() && batch.number() != 1 {
                tokio::time::sleep_until(asked + BETWEEN_BATCHES).await;
            }
        }
    }

    /// Asks for the next changes, and waits for them as long as the server works.
    async fn ask(&mut self, cursor: &mut StreamCursor, size: &mut BatchSize) -> Result<Batch, Ended> {
        let limit = if self.only_raw { ORDINARY } else { size.limit() };
        let asked = Instant::now();
        self.store.stream.asks();
        let answer = next_answer(self.store, cursor, limit, self.patience.wait()).await;
        let took = asked.elapsed();
        let batch = answer.map_err(|why| self.not_answered(why))?.ok_or_else(closed)?;
        self.patience.answered(took);
        size.answered(batch.number(), took);
        Ok(batch)
    }

    fn not_answered(&mut self, why: NotAnswered) -> Ended {
        match why {
            NotAnswered::GivenUp(error) => {
                self.patience.gave_up();
                error.into()
            }
            NotAnswered::Unreadable(error) => {
                self.only_raw = true;
                error.into()
            }
            NotAnswered::Failed(error) => error.into(),
        }
    }

    async fn take(&mut self, batch: &Batch, is_behind: bool) -> Result<(), Ended> {
        let mut changes = 0_u32;
        for event in batch.changes().into_iter().flatten() {
            let event = event.ok().and_then(|event| event.as_document());
            if let Some(committed) = self.receiver.change(event, &self.store.config.default_org).await? {
                self.store.stream.read(committed);
            }
            changes = changes.saturating_add(1);
        }
        let token = batch.token();
        if changes == 0 {
            // What could not be read is behind.
            self.only_raw = false;
            self.receiver.idle(token.as_ref()).await?;
        } else if token.is_none() {
            return Err(Ended::Failed(StreamFailure::HistoryLost(GapReason::Resume)));
        }
        let Some(token) = token else { return Ok(()) };
        self.receiver.answered((!is_behind).then_some(&token));
        let came_further = self.store.stream.reached(&token, is_behind);
        if changes > 0 || came_further {
            self.progressed();
        }
        self.begin = Begin::After(token);
        Ok(())
    }

    fn progressed(&mut self) {
        self.patience.progressed();
        if std::mem::take(&mut self.failures) > 0 {
            seldom!(info, "the change stream is read again");
        }
    }
}

fn closed() -> Ended {
    StoreError::Unavailable("the server closed the cursor".to_owned()).into()
}

/// Twice as long each time, and not at the same moment on every node.
fn backoff(failures: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(LAST_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.0))
}
