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
        begun: 0,
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
    /// The cluster time at which the present stream began. Its first tokens may say no more than that.
    begun: u64,
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
            if let Some(reason) = lost
                && self.lose(reason).await.is_err()
            {
                return Ok(());
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
            let (mut stream, mut opened) = self.open().await?;
            let mut asked = false;
            loop {
                let event = answer_within(SILENCE, stream.next_if_any()).await?;
                // That the oplog does not reach so far back is said in the second answer.
                if (asked || event.is_some())
                    && let Some(position) = opened.take()
                {
                    self.opened(position).await?;
                }
                asked = true;
                if self.failures > 0 {
                    tracing::info!("the change stream is read again");
                    self.failures = 0;
                }
                let token = stream.resume_token();
                match &event {
                    _ if opened.is_some() => continue,
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

    /// The stream; and the position that it opens, where it does not continue an earlier one.
    async fn open(&mut self) -> Result<(Stream, Option<Position>), Ended> {
        let collection = self.store.collection().await?;
        let watch = collection
            .watch()
            .pipeline(pipeline())
            .full_document(FullDocumentType::WhenAvailable)
            .full_document_before_change(FullDocumentBeforeChangeType::WhenAvailable)
            .max_await_time(AWAIT);
        let start = match &self.begin {
            Begin::After(token) => {
                self.begun = ordinals::cluster_time(token).unwrap_or(u64::MAX);
                return Ok((answer(watch.start_after(token.clone())).await?.with_type(), None));
            }
            Begin::Now => {
                // What broke the last stream is committed by now, and would break this one too.
                let Timestamp { time, increment } = committed(self.store).await?;
                Timestamp { time, increment: increment.saturating_add(1) }
            }
            Begin::Past => {
                let now = committed(self.store).await?;
                Timestamp { time: now.time.saturating_sub(LOOK_BACK_SECS), increment: 1 }
            }
        };
        self.begun = u64::from(start.time) << 32 | u64::from(start.increment);
        let stream = answer(watch.start_at_operation_time(start)).await?.with_type();
        Ok((stream, Some(Position::before(self.begun))))
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
        let seen = token.and_then(ordinals::cluster_time).filter(|time| *time > self.begun);
        match seen.map(Position::end_of) {
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

/// Up to where changes are committed by a majority: every snapshot from now on contains them.
async fn committed(store: &MongoStore) -> Result<Timestamp, Ended> {
    let database = store.database().await?;
    let hello = answer(database.run_command(doc! {"hello": 1})).await.map_err(store_error)?;
    hello
        .get_document("lastWrite")
        .and_then(|write| write.get_document("majorityOpTime"))
        .and_then(|time| time.get_timestamp("ts"))
        .map_err(|_| StoreError::Unusable(prepare::STANDALONE.to_owned()).into())
}

/// Twice as long each time, and not at the same moment on every node.
fn backoff(failures: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(LAST_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.0))
}
