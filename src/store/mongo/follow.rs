//! Follows one change stream for the feed, and reopens it after each failure that may pass.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    MongoStore,
    batch_size::{BatchSize, DEFAULT_LIMIT},
    failure::StreamFailure,
    feed_sender::{FeedSender, StreamEnd},
    next_answer::{NoAnswer, next_answer},
    open::{OpenedStream, StartPoint, open},
    prepare,
    request_timeout::RequestTimeout,
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
const MIN_REQUEST_INTERVAL: Duration = Duration::from_millis(1);
/// The longest backoff is short, because clients wait. Without a reachable server, the driver's server selection adds more time.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// A stream that fails within this time is reopened after a backoff, not at once.
const MIN_STREAM_AGE: Duration = Duration::from_secs(2);
/// The number of times that the server may refuse to resume after a token. After that, the token is given up.
const MAX_REFUSALS: u32 = 5;
/// After this many failures in a row, the current error is logged. It may differ from the error that interrupted the stream, and it may
/// need an operator.
const LOGGED_FAILURES: u32 = 5;

pub(super) async fn follow(
    store: &MongoStore,
    items: mpsc::Sender<FeedItem>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let mut follower = Follower {
        store,
        sender: FeedSender::new(items, &store.counts, &store.last_changes),
        start: StartPoint::Past,
        failures: 0,
        must_check_images: false,
        timeout: RequestTimeout::default(),
        uses_default_limit: false,
    };
    store.stream.started();
    let result = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        result = follower.run() => result,
    };
    store.counts.lost();
    store.last_changes.lost();
    result
}

struct Follower<'a> {
    store: &'a MongoStore,
    sender: FeedSender<'a>,
    start: StartPoint,
    /// The number of failures in a row without progress. Progress means that the stream advanced in the history.
    failures: u32,
    /// Images may be off after a gap, because a collection that was created again has none.
    must_check_images: bool,
    timeout: RequestTimeout,
    /// A reply could not be decoded, for example because a string in it is not valid UTF-8. The driver's cursor does not decode replies, so
    /// only the ordinary limit is used.
    uses_default_limit: bool,
}

impl Follower<'_> {
    async fn run(&mut self) -> Result<(), StoreError> {
        loop {
            let begun = Instant::now();
            let failure = match self.read().await {
                StreamEnd::ReceiverGone => return Ok(()),
                StreamEnd::Failed(failure) => failure,
            };
            // Failed attempts to reopen the stream are not counted.
            if self.failures == 0 {
                self.store.stream.broke_off();
            }
            let gap_reason = match failure {
                StreamFailure::Fatal(error) => return Err(error),
                StreamFailure::HistoryLost(reason) => {
                    if self.failures >= LOGGED_FAILURES {
                        rate_limited_log!(warn, %reason, "history is lost again each time the change stream is opened");
                    }
                    Some(reason)
                }
                StreamFailure::Refused(error) if self.failures >= MAX_REFUSALS => {
                    rate_limited_log!(
                        warn,
                        error,
                        "MongoDB refuses to resume the change stream; a new one begins now"
                    );
                    Some(GapReason::Resume)
                }
                StreamFailure::Temporary(error) | StreamFailure::Refused(error) => {
                    if self.failures == 0 {
                        rate_limited_log!(warn, error, "the change stream broke off; it will be resumed");
                    } else if self.failures >= LOGGED_FAILURES {
                        rate_limited_log!(warn, error, "the change stream can't be opened yet");
                    }
                    None
                }
            };
            if let Some(reason) = gap_reason
                && self.report_gap(reason).await.is_err()
            {
                return Ok(());
            }
            // After a single interruption, the stream usually works again at once with another member or another cursor.
            if gap_reason.is_some() || self.failures > 0 || begun.elapsed() < MIN_STREAM_AGE {
                tokio::time::sleep(BACKOFF.pause_with_jitter(self.failures, 0.5..=1.0)).await;
            }
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Reports a gap, and makes the next stream begin at the current time. Changes in between are not sent.
    async fn report_gap(&mut self, reason: GapReason) -> Result<(), StreamEnd> {
        self.start = StartPoint::Now;
        self.must_check_images = true;
        self.sender.gap(reason).await
    }

    async fn read(&mut self) -> StreamEnd {
        self.read_until_error().await.err().unwrap_or(StreamEnd::ReceiverGone)
    }

    async fn read_until_error(&mut self) -> Result<(), StreamEnd> {
        if self.must_check_images {
            prepare::ensure_images(self.store).await?;
            self.must_check_images = false;
        }
        let OpenedStream { mut cursor, at } = open(self.store, &self.start).await?;
        if let Some(at) = at {
            self.sender.set_start_time(at);
        }
        let mut unreported_position = at.map(Position::before);
        let mut size = BatchSize::default();
        loop {
            let requested_at = Instant::now();
            let batch = self.next_batch(&mut cursor, &mut size).await?;
            // Only the answer to the first request shows whether history is lost, or whether the server refuses to resume.
            if let Some(position) = unreported_position.take() {
                self.sender.opened(position).await?;
            }
            self.process(&batch, size.is_behind()).await?;
            if batch.is_last() {
                return Err(closed());
            }
            if !size.is_behind() && batch.change_count() != 1 {
                tokio::time::sleep_until(requested_at + MIN_REQUEST_INTERVAL).await;
            }
        }
    }

    /// Requests the next changes, and waits as long as the server works on the request.
    async fn next_batch(
        &mut self,
        cursor: &mut StreamCursor,
        size: &mut BatchSize,
    ) -> Result<Batch, StreamEnd> {
        let limit = if self.uses_default_limit { DEFAULT_LIMIT } else { size.limit() };
        let requested_at = Instant::now();
        self.store.stream.request_sent();
        let answer = next_answer(self.store, cursor, limit, self.timeout.pending_request()).await;
        let took = requested_at.elapsed();
        let batch = answer.map_err(|error| self.request_failed(error))?.ok_or_else(closed)?;
        self.timeout.answered(took);
        size.answered(batch.change_count(), took);
        Ok(batch)
    }

    fn request_failed(&mut self, error: NoAnswer) -> StreamEnd {
        match error {
            NoAnswer::GivenUp(error) => {
                self.timeout.gave_up();
                error.into()
            }
            NoAnswer::Unreadable(error) => {
                self.uses_default_limit = true;
                error.into()
            }
            NoAnswer::Failed(error) => error.into(),
        }
    }

    async fn process(&mut self, batch: &Batch, is_behind: bool) -> Result<(), StreamEnd> {
        let mut changes = 0_u32;
        for event in batch.changes().into_iter().flatten() {
            let event = event.ok().and_then(|event| event.as_document());
            if let Some(committed) = self.sender.change(event, &self.store.config.default_org).await? {
                self.store.stream.change_read(committed);
            }
            changes = changes.saturating_add(1);
        }
        let token = batch.token();
        if changes == 0 {
            // The stream has passed the reply that could not be decoded.
            self.uses_default_limit = false;
            self.sender.idle(token.as_ref()).await?;
        } else if token.is_none() {
            return Err(StreamEnd::Failed(StreamFailure::HistoryLost(GapReason::Resume)));
        }
        let Some(token) = token else { return Ok(()) };
        self.sender.answered((!is_behind).then_some(&token));
        let has_advanced = self.store.stream.answer_processed(&token, is_behind);
        if changes > 0 || has_advanced {
            self.record_progress();
        }
        self.start = StartPoint::After(token);
        Ok(())
    }

    fn record_progress(&mut self) {
        self.timeout.record_progress();
        if std::mem::take(&mut self.failures) > 0 {
            rate_limited_log!(info, "the change stream works again");
        }
    }
}

fn closed() -> StreamEnd {
    StoreError::Unavailable("MongoDB closed the cursor of the change stream".to_owned()).into()
}
