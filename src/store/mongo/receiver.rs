//! Sends the changes of a stream to the receiver of the feed, in order and each with its position.

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

/// The reason why this node stopped reading a stream.
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

/// The last state of the feed that was sent to the receiver.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Nothing,
    Opened,
    Gap,
}

pub(super) struct Receiver<'a> {
    items: mpsc::Sender<FeedItem>,
    /// The counts are updated before the receiver gets the item.
    counts: &'a KeptCounts,
    told: Told,
    /// Continues to count after a resume, which may begin in the middle of a transaction.
    ordinals: Ordinals,
    /// The cluster time at which the last stream without a token was opened. The first tokens of that stream contain only this time. They
    /// do not prove that the time has passed, because it may be in the future.
    begun: u64,
    /// The number of empty answers in a row.
    quiet: u32,
    /// The last position that was sent.
    reached: Position,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(items: mpsc::Sender<FeedItem>, counts: &'a KeptCounts) -> Self {
        let (told, ordinals, reached) = (Told::Nothing, Ordinals::default(), Position::ZERO);
        Self { items, counts, told, ordinals, begun: 0, quiet: 0, reached }
    }

    /// A stream without a token was opened at this cluster time.
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

    /// Reports that changes may have been missed. The receiver gets only one gap until the feed is opened again.
    pub(super) async fn gap(&mut self, reason: GapReason) -> Result<(), Ended> {
        if self.told != Told::Opened {
            return Ok(());
        }
        self.told = Told::Gap;
        self.counts.lost();
        self.send(FeedItem::Gap(reason)).await
    }

    /// Sends the change of an event, and returns when it was committed. `None` means that the event concerns no task.
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

    /// Reports an empty answer. The receiver then knows that the server answers, although there are no changes.
    pub(super) async fn idle(&mut self, token: Option<&Document>) -> Result<(), Ended> {
        self.quiet = self.quiet.saturating_add(1);
        if let Some(time) = token.and_then(ordinals::cluster_time) {
            // The stream may have been resumed in the middle of a transaction. One empty answer does not prove that the transaction has
            // ended.
            let ended = time != self.ordinals.time() || self.quiet > 1;
            if time > self.begun && ended {
                self.reached = self.reached.max(Position::end_of(time));
            }
        }
        self.send(FeedItem::Idle(self.reached)).await
    }

    /// An answer was processed. See [`KeptCounts::reached`].
    pub(super) fn answered(&self, had_no_more: Option<&Document>) {
        self.counts.reached(self.reached, had_no_more);
    }

    async fn send(&self, item: FeedItem) -> Result<(), Ended> {
        self.items.send(item).await.map_err(|_| Ended::ReceiverGone)
    }
}
