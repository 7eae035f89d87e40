//! The feed: one change stream, kept open whatever happens to it.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Document, RawDocument},
    raw_batch_cursor::RawBatch,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    MongoStore, decode,
    decode::Decoded,
    failure::{StreamFailure, answer_within},
    open::{Begin, Opened, open},
    ordinals::{self, Ordinals},
    prepare,
};
use crate::{
    feed::{FeedItem, GapReason, Position},
    seldom::seldom,
    store::StoreError,
};

/// No answer for that long: the server or the network is gone, or the server has much to look through. So it is
/// given longer each time, or it would begin the same search for ever.
const SILENCE: Duration = Duration::from_secs(5);
const LONGEST_SILENCE: Duration = Duration::from_secs(80);
/// Where changes come faster, several are asked for at once: each question costs the server and this node as much as some
/// changes do.
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
        items,
        begin: Begin::Past,
        told: Told::Nothing,
        ordinals: Ordinals::default(),
        begun: 0,
        quiet: 0,
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

impl<E: Into<StreamFailure>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct Follower<'a> {
    store: &'a MongoStore,
    items: mpsc::Sender<FeedItem>,
    begin: Begin,
    told: Told,
    /// Goes on counting over a resume, which may begin in the middle of a transaction.
    ordinals: Ordinals,
    /// The cluster time that the last stream without a token was opened at. Its first tokens say no more than
    /// that, though the time itself may be still to come.
    begun: u64,
    /// How many answers in a row had nothing.
    quiet: u32,
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
        if self.told == Told::Opened {
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
            let Opened { mut cursor, at } = open(self.store, &self.begin, patience(self.failures)).await?;
            self.begun = at.unwrap_or(self.begun);
            let mut to_tell = at.map(Position::before);
            let mut is_opening = true;
            loop {
                let asked = Instant::now();
                let Some(batch) = answer_within(patience(self.failures), cursor.try_next()).await? else {
                    return Err(StoreError::Unavailable("the server closed the cursor".to_owned()).into());
                };
                let events = batch.doc_slices()?;
                if std::mem::take(&mut is_opening) && events.is_empty() {
                    // That history is lost, or that the server refuses to go on, may show only when more is asked
                    // for.
                    continue;
                }
                if let Some(position) = to_tell.take() {
                    self.opened(position).await?;
                }
                if self.failures > 0 {
                    seldom!(info, "the change stream is read again");
                    self.failures = 0;
                }
                for event in events {
                    self.change(event.ok().and_then(|event| event.as_document())).await?;
                }
                let token = token(&batch);
                if events.is_empty() {
                    self.idle(token.as_ref()).await?;
                } else if token.is_none() {
                    return Err(Ended::Failed(StreamFailure::HistoryLost(GapReason::Resume)));
                }
                if let Some(token) = token {
                    self.store.stream.reached(&token);
                    self.begin = Begin::After(token);
                }
                tokio::time::sleep_until(asked + BETWEEN_BATCHES).await;
            }
        }
        .await;
        result.err().unwrap_or(Ended::ReceiverGone)
    }

    async fn opened(&mut self, position: Position) -> Result<(), Ended> {
        self.ordinals = Ordinals::default();
        self.reached = position;
        self.told = Told::Opened;
        self.send(FeedItem::Opened(position)).await
    }

    async fn change(&mut self, event: Option<&RawDocument>) -> Result<(), Ended> {
        let Some((event, time)) = event.and_then(|event| Some((event, decode::cluster_time(event)?))) else {
            return Err(Ended::Failed(StreamFailure::HistoryLost(GapReason::Time)));
        };
        let position = self.ordinals.next(time);
        self.quiet = 0;
        match decode::decode(event, position, &self.store.config.default_org) {
            Decoded::Change(change) => {
                self.reached = position;
                self.send(FeedItem::Change(change)).await
            }
            Decoded::Nothing => Ok(()),
            Decoded::Lost(reason) => Err(Ended::Failed(StreamFailure::HistoryLost(reason))),
        }
    }

    /// Told although nothing is new in it: that the server has answered is.
    async fn idle(&mut self, token: Option<&Document>) -> Result<(), Ended> {
        self.quiet = self.quiet.saturating_add(1);
        if let Some(time) = token.and_then(ordinals::cluster_time) {
            // A stream may have been opened anew in the middle of a transaction: one empty answer is not enough to say
            // that it has ended.
            let ended = time != self.ordinals.time() || self.quiet > 1;
            if time > self.begun && ended {
                self.reached = self.reached.max(Position::end_of(time));
            }
        }
        self.send(FeedItem::Idle(self.reached)).await
    }

    async fn send(&self, item: FeedItem) -> Result<(), Ended> {
        self.items.send(item).await.map_err(|_| Ended::ReceiverGone)
    }
}

/// What the stream goes on after.
fn token(batch: &RawBatch) -> Option<Document> {
    let of_batch =
        || batch.as_raw_document().get_document("cursor").ok()?.get_document("postBatchResumeToken").ok();
    let of_last =
        || batch.doc_slices().ok()?.into_iter().last()?.ok()?.as_document()?.get_document("_id").ok();
    Document::try_from(of_batch().or_else(of_last)?).ok()
}

fn patience(failures: u32) -> Duration {
    SILENCE.saturating_mul(1 << failures.min(10)).min(LONGEST_SILENCE)
}

/// Twice as long each time, and not at the same moment on every node.
fn backoff(failures: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(LAST_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.0))
}
