//! The feed: one change stream, kept open whatever happens to it.

use std::time::Duration;

use mongodb::{
    bson::{RawDocumentBuf, Timestamp, doc},
    change_stream::{ChangeStream, event::ResumeToken},
    options::{FullDocumentBeforeChangeType, FullDocumentType},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    MongoStore, decode,
    decode::Decoded,
    failure::{StreamFailure, answer, answer_within, store_error, stream_failure},
    ordinals::{self, Ordinals},
    pipeline::pipeline,
    prepare,
};
use crate::{
    feed::{FeedItem, Position},
    store::StoreError,
};

/// How far back the first stream begins, so that clients of a node that restarted can be replayed to.
const LOOK_BACK_SECS: u32 = 120;
/// How long the server holds a request while nothing happens; as often the position advances.
const AWAIT: Duration = Duration::from_millis(250);
/// No answer for that long: the server or the network is gone.
const SILENCE: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// How often the server may refuse to go on from a token before the token is given up.
const REFUSALS: u32 = 5;

pub(super) async fn follow(
    store: &MongoStore,
    items: mpsc::Sender<FeedItem>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let mut follower = Follower {
        store,
        items,
        begin: Begin::Past,
        told: Told::Nothing,
        ordinals: Ordinals::default(),
        reached: Position::ZERO,
        failures: 0,
        images_in_doubt: false,
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        result = follower.run() => result,
    }
}

/// Where the next stream begins.
#[derive(Clone, Debug)]
enum Begin {
    /// A little before now, if the oplog reaches so far.
    Past,
    Now,
    After(ResumeToken),
}

/// Where the receiver stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Nothing,
    Opened,
    Gap,
}

/// Why a stream is not read any more.
#[derive(Debug)]
enum Ended {
    ReceiverGone,
    Failed(StreamFailure),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Failed(match error {
            StoreError::Unavailable(text) => StreamFailure::Passing(text),
            other => StreamFailure::Fatal(other),
        })
    }
}

impl From<mongodb::error::Error> for Ended {
    fn from(error: mongodb::error::Error) -> Self {
        Self::Failed(stream_failure(error))
    }
}

type Stream = ChangeStream<RawDocumentBuf>;

struct Follower<'a> {
    store: &'a MongoStore,
    items: mpsc::Sender<FeedItem>,
    begin: Begin,
    told: Told,
    /// Goes on counting over a resume, which may begin in the middle of a transaction.
    ordinals: Ordinals,
    /// The last position that was told.
    reached: Position,
    /// In a row, without anything having been read in between.
    failures: u32,
    /// After a gap images may be off: a collection that was made anew has none.
    images_in_doubt: bool,
}

impl Follower<'_> {
    async fn run(&mut self) -> Result<(), StoreError> {
        loop {
            let failure = match self.read().await {
                Ended::ReceiverGone => return Ok(()),
                Ended::Failed(failure) => failure,
            };
            let lost = match failure {
                StreamFailure::Fatal(error) => return Err(error),
                StreamFailure::HistoryLost(reason) => Some(reason),
                StreamFailure::Refused(error) if self.failures >= REFUSALS => {
                    tracing::warn!(error, "the server does not go on from where the change stream was");
                    Some("the change stream can't be resumed")
                }
                StreamFailure::Passing(error) | StreamFailure::Refused(error) => {
                    if self.failures == 0 {
                        tracing::warn!(error, "the change stream broke off; it will be resumed");
                    }
                    None
                }
            };
            if let Some(reason) = lost {
                if self.lose(reason).await.is_err() {
                    return Ok(());
                }
            }
            tokio::time::sleep(backoff(self.failures)).await;
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Begins anew: what happened between is not told.
    async fn lose(&mut self, reason: &'static str) -> Result<(), Ended> {
        self.begin = Begin::Now;
        self.images_in_doubt = true;
        if self.told == Told::Opened {
            tracing::warn!(reason, "changes may have been missed");
            self.told = Told::Gap;
            self.send(FeedItem::Gap(reason)).await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Ended {
        let result: Result<(), Ended> = async {
            if self.images_in_doubt {
                prepare::ensure_images(self.store).await?;
                self.images_in_doubt = false;
            }
            let (mut stream, opened) = self.open().await?;
            let mut opened = opened.map(|time| Position::before(as_number(time)));
            loop {
                let event = answer_within(SILENCE, stream.next_if_any()).await?;
                // Only now is it sure that the oplog reaches so far back.
                if let Some(position) = opened.take() {
                    self.opened(position).await?;
                }
                if self.failures > 0 {
                    tracing::info!("the change stream is read again");
                    self.failures = 0;
                }
                let token = stream.resume_token();
                match &event {
                    Some(event) => self.change(event).await?,
                    None => self.idle(token.as_ref()).await?,
                }
                if let Some(token) = token {
                    self.begin = Begin::After(token);
                }
                if event.is_none() && !stream.is_alive() {
                    return Err(StoreError::Unavailable("the server closed the cursor".to_owned()).into());
                }
            }
        }
        .await;
        result.err().unwrap_or(Ended::ReceiverGone)
    }

    /// The stream; and its operation time, where it does not continue an earlier one.
    async fn open(&self) -> Result<(Stream, Option<Timestamp>), Ended> {
        let collection = self.store.collection().await?;
        let watch = collection
            .watch()
            .pipeline(pipeline())
            .full_document(FullDocumentType::WhenAvailable)
            .full_document_before_change(FullDocumentBeforeChangeType::WhenAvailable)
            .max_await_time(AWAIT);
        let (watch, time) = match &self.begin {
            Begin::After(token) => (watch.start_after(token.clone()), None),
            Begin::Now => {
                let now = operation_time(self.store).await?;
                (watch.start_at_operation_time(now), Some(now))
            }
            Begin::Past => {
                let now = operation_time(self.store).await?;
                let time = Timestamp { time: now.time.saturating_sub(LOOK_BACK_SECS), increment: 1 };
                (watch.start_at_operation_time(time), Some(time))
            }
        };
        Ok((answer(watch).await?.with_type(), time))
    }

    async fn opened(&mut self, position: Position) -> Result<(), Ended> {
        self.ordinals = Ordinals::default();
        self.reached = position;
        self.told = Told::Opened;
        self.send(FeedItem::Opened(position)).await
    }

    async fn change(&mut self, event: &RawDocumentBuf) -> Result<(), Ended> {
        let Some(time) = decode::cluster_time(event) else {
            return Err(Ended::Failed(StreamFailure::HistoryLost("a change came without its time")));
        };
        let position = self.ordinals.next(time);
        match decode::decode(event, position, &self.store.config.default_org) {
            Decoded::Change(change) => {
                self.reached = position;
                self.send(FeedItem::Change(change)).await
            }
            Decoded::Nothing => Ok(()),
            Decoded::Lost(reason) => Err(Ended::Failed(StreamFailure::HistoryLost(reason))),
        }
    }

    async fn idle(&mut self, token: Option<&ResumeToken>) -> Result<(), Ended> {
        match token.and_then(ordinals::cluster_time).map(Position::end_of) {
            Some(position) if position > self.reached => {
                self.reached = position;
                self.send(FeedItem::Idle(position)).await
            }
            _ => Ok(()),
        }
    }

    async fn send(&self, item: FeedItem) -> Result<(), Ended> {
        self.items.send(item).await.map_err(|_| Ended::ReceiverGone)
    }
}

fn as_number(time: Timestamp) -> u64 {
    u64::from(time.time) << 32 | u64::from(time.increment)
}

/// The server's present.
async fn operation_time(store: &MongoStore) -> Result<Timestamp, Ended> {
    let database = store.database().await?;
    let reply = answer(database.run_command(doc! {"ping": 1})).await.map_err(store_error)?;
    reply
        .get_timestamp("operationTime")
        .map_err(|_| StoreError::Unusable(prepare::STANDALONE.to_owned()).into())
}

/// Twice as long each time, and not at the same moment on every node.
fn backoff(failures: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(LAST_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.0))
}
