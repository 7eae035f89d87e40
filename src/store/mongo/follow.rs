//! Follows one change stream for the feed, and reopens it after each failure that may pass.

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
    backoff::Backoff,
    feed::{FeedItem, GapReason, Position},
    rate_limited_log::rate_limited_log,
    store::StoreError,
};

/// The minimum time from one request to the next. Fast changes then arrive several in one answer, which saves requests: a request costs the
/// server and this node as much as several changes. After an answer with exactly one change, the next request follows at once.
const BETWEEN_BATCHES: Duration = Duration::from_millis(1);
/// The longest backoff is short, because clients wait. Without a reachable server, the driver's server selection adds more time.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// A stream that fails within this time is reopened after a backoff, not at once.
const YOUNG: Duration = Duration::from_secs(2);
/// The number of times that the server may refuse to resume after a token. After that, the token is given up.
const REFUSALS: u32 = 5;
/// After this many failures in a row, the current error is logged. It may differ from the error that interrupted the stream, and it may
/// need an operator.
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
    /// The number of failures in a row without progress. Progress means that the stream advanced in the history.
    failures: u32,
    /// Images may be off after a gap, because a collection that was created again has none.
    images_in_doubt: bool,
    patience: Patience,
    /// A reply could not be decoded, for example because a string in it is not valid UTF-8. The driver's cursor does not decode replies, so
    /// only the ordinary limit is used.
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
            // Failed attempts to reopen the stream are not counted.
            if self.failures == 0 {
                self.store.stream.broke_off();
            }
            let lost = match failure {
                StreamFailure::Fatal(error) => return Err(error),
                StreamFailure::HistoryLost(reason) => {
                    if self.failures >= PERSISTENT {
                        rate_limited_log!(warn, %reason, "history is lost again each time the change stream is opened");
                    }
                    Some(reason)
                }
                StreamFailure::Refused(error) if self.failures >= REFUSALS => {
                    rate_limited_log!(
                        warn,
                        error,
                        "MongoDB refuses to resume the change stream; a new one begins now"
                    );
                    Some(GapReason::Resume)
                }
                StreamFailure::Passing(error) | StreamFailure::Refused(error) => {
                    if self.failures == 0 {
                        rate_limited_log!(warn, error, "the change stream broke off; it will be resumed");
                    } else if self.failures >= PERSISTENT {
                        rate_limited_log!(warn, error, "the change stream can't be opened yet");
                    }
                    None
                }
            };
            if let Some(reason) = lost
                && self.lose(reason).await.is_err()
            {
                return Ok(());
            }
            // After a single interruption, the stream usually works again at once with another member or another cursor.
            if lost.is_some() || self.failures > 0 || begun.elapsed() < YOUNG {
                tokio::time::sleep(BACKOFF.pause_with_jitter(self.failures, 0.5..=1.0)).await;
            }
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Reports a gap, and makes the next stream begin at the current time. Changes in between are not sent.
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
            // Only the answer to the first request shows whether history is lost, or whether the server refuses to resume.
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

    /// Requests the next changes, and waits as long as the server works on the request.
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
            // The stream has passed the reply that could not be decoded.
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
            rate_limited_log!(info, "the change stream works again");
        }
    }
}

fn closed() -> Ended {
    StoreError::Unavailable("MongoDB closed the cursor of the change stream".to_owned()).into()
}
