//! What the receiver of the feed is told: the changes of a stream in order, each with its position.

use mongodb::bson::{Document, RawDocument};
use tokio::sync::mpsc;

use super::{
    decode::{self, Decoded},
    failure::StreamFailure,
    kept_counts::KeptCounts,
    ordinals::{self, Ordinals},
};
use crate::{
    feed::{FeedItem, GapReason, Position},
    task::{DefaultOrg, Timestamp},
};

/// Why a stream is not read any more.
#[derive(Debug)]
pub(super) enum Ended {
    ReceiverGone,
    Failed(StreamFailure),
}

impl<E: Into<StreamFailure>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Where the receiver stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Nothing,
    Opened,
    Gap,
}

pub(super) struct Receiver<'a> {
    items: mpsc::Sender<FeedItem>,
    /// Told before the receiver is.
    counts: &'a KeptCounts,
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
}

impl<'a> Receiver<'a> {
    pub(super) fn new(items: mpsc::Sender<FeedItem>, counts: &'a KeptCounts) -> Self {
        let (told, ordinals, reached) = (Told::Nothing, Ordinals::default(), Position::ZERO);
        Self { items, counts, told, ordinals, begun: 0, quiet: 0, reached }
    }

    /// A stream without a token was opened at that cluster time.
    pub(super) fn begins_at(&mut self, time: u64) {
        self.begun = time;
    }

    pub(super) async fn opened(&mut self, position: Position) -> Result<(), Ended> {
        self.ordinals = Ordinals::default();
        self.reached = position;
        self.told = Told::Opened;
        self.counts.opened(position);
        self.send(FeedItem::Opened(position)).await
    }

    /// Changes may have been missed. The receiver hears of it once, until the feed is opened again.
    pub(super) async fn gap(&mut self, reason: GapReason) -> Result<(), Ended> {
        if self.told != Told::Opened {
            return Ok(());
        }
        self.told = Told::Gap;
        self.counts.lost();
        self.send(FeedItem::Gap(reason)).await
    }

    /// When the change was committed; None: it concerns no task.
    pub(super) async fn change(
        &mut self,
        event: Option<&RawDocument>,
        default_org: &DefaultOrg,
    ) -> Result<Option<Timestamp>, Ended> {
        let Some((event, time)) = event.and_then(|event| Some((event, decode::cluster_time(event)?))) else {
            return Err(Ended::Failed(StreamFailure::HistoryLost(GapReason::Time)));
        };
        let position = self.ordinals.next(time);
        self.quiet = 0;
        match decode::decode(event, position, default_org) {
            Decoded::Change(change) => {
                self.reached = position;
                let committed = change.occurred_at;
                self.counts.change(&change);
                self.send(FeedItem::Change(change)).await?;
                Ok(Some(committed))
            }
            Decoded::Nothing => Ok(None),
            Decoded::Lost(reason) => Err(Ended::Failed(StreamFailure::HistoryLost(reason))),
        }
    }

    /// The receiver is told although nothing is new, because the server has answered.
    pub(super) async fn idle(&mut self, token: Option<&Document>) -> Result<(), Ended> {
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

    /// An answer has been dealt with; [`KeptCounts::reached`].
    pub(super) fn answered(&self, had_no_more: Option<&Document>) {
        self.counts.reached(self.reached, had_no_more);
    }

    async fn send(&self, item: FeedItem) -> Result<(), Ended> {
        self.items.send(item).await.map_err(|_| Ended::ReceiverGone)
    }
}
