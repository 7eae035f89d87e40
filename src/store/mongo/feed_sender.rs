//! Sends the changes of a stream to the receiver of the feed, in order and each with its position.

use mongodb::bson::{Document, RawDocument};
use tokio::sync::mpsc;

use super::{
    cached_counts::CachedCounts,
    decode::{self, Decoded},
    failure::StreamFailure,
    last_changes::LastChanges,
    ordinals::{self, Ordinals},
};
use crate::{
    feed::{FeedItem, GapReason, Position},
    task::{DefaultOrg, Timestamp},
};

/// The reason why this node stopped reading a stream.
#[derive(Debug)]
pub(super) enum StreamEnd {
    ReceiverGone,
    Failed(StreamFailure),
}

impl<E: Into<StreamFailure>> From<E> for StreamEnd {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The last state of the feed that was sent to the receiver.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LastSent {
    Nothing,
    Opened,
    Gap,
}

pub(super) struct FeedSender<'a> {
    items: mpsc::Sender<FeedItem>,
    /// The counts are updated before the receiver gets the item.
    counts: &'a CachedCounts,
    /// Updated before the counts, whose position says up to where both are complete.
    last_changes: &'a LastChanges,
    last_sent: LastSent,
    /// Continues to count after a resume, which may begin in the middle of a transaction.
    ordinals: Ordinals,
    /// The cluster time at which the last stream without a token was opened. The first tokens of that stream contain only this time. They
    /// do not prove that the time has passed, because it may be in the future.
    start_time: u64,
    /// The number of empty answers in a row.
    empty_answers: u32,
    /// The last position that was sent.
    last_position: Position,
}

impl<'a> FeedSender<'a> {
    pub(super) fn new(
        items: mpsc::Sender<FeedItem>,
        counts: &'a CachedCounts,
        last_changes: &'a LastChanges,
    ) -> Self {
        let (last_sent, ordinals, last_position) = (LastSent::Nothing, Ordinals::default(), Position::ZERO);
        Self {
            items,
            counts,
            last_changes,
            last_sent,
            ordinals,
            start_time: 0,
            empty_answers: 0,
            last_position,
        }
    }

    /// A stream without a token was opened at this cluster time.
    pub(super) fn set_start_time(&mut self, time: u64) {
        self.start_time = time;
    }

    pub(super) async fn opened(&mut self, position: Position) -> Result<(), StreamEnd> {
        self.ordinals = Ordinals::default();
        self.last_position = position;
        self.last_sent = LastSent::Opened;
        self.last_changes.opened(position);
        self.counts.opened(position);
        self.send(FeedItem::Opened(position)).await
    }

    /// Reports that changes may have been missed. The receiver gets only one gap until the feed is opened again.
    pub(super) async fn gap(&mut self, reason: GapReason) -> Result<(), StreamEnd> {
        if self.last_sent != LastSent::Opened {
            return Ok(());
        }
        self.last_sent = LastSent::Gap;
        self.counts.lost();
        self.last_changes.lost();
        self.send(FeedItem::Gap(reason)).await
    }

    /// Sends the change of an event, and returns when it was committed. `None` means that the event concerns no task.
    pub(super) async fn change(
        &mut self,
        event: Option<&RawDocument>,
        default_org: &DefaultOrg,
    ) -> Result<Option<Timestamp>, StreamEnd> {
        let Some((event, time)) = event.and_then(|event| Some((event, decode::cluster_time(event)?))) else {
            return Err(StreamEnd::Failed(StreamFailure::HistoryLost(GapReason::Time)));
        };
        let position = self.ordinals.next(time);
        self.empty_answers = 0;
        match decode::decode(event, position, default_org) {
            Decoded::Change(change) => {
                self.last_position = position;
                let committed = change.occurred_at;
                self.last_changes.change(&change);
                self.counts.change(&change);
                self.send(FeedItem::Change(change)).await?;
                Ok(Some(committed))
            }
            Decoded::Nothing => Ok(None),
            Decoded::Lost(reason) => Err(StreamEnd::Failed(StreamFailure::HistoryLost(reason))),
        }
    }

    /// Reports an empty answer. The receiver then knows that the server answers, although there are no changes.
    pub(super) async fn idle(&mut self, token: Option<&Document>) -> Result<(), StreamEnd> {
        self.empty_answers = self.empty_answers.saturating_add(1);
        if let Some(time) = token.and_then(ordinals::cluster_time) {
            // The stream may have been resumed in the middle of a transaction. One empty answer does not prove that the transaction has
            // ended.
            let has_ended = time != self.ordinals.time() || self.empty_answers > 1;
            if time > self.start_time && has_ended {
                self.last_position = self.last_position.max(Position::end_of(time));
            }
        }
        self.send(FeedItem::Idle(self.last_position)).await
    }

    /// An answer was processed. See [`CachedCounts::reached`].
    pub(super) fn answered(&self, end_token: Option<&Document>) {
        self.counts.reached(self.last_position, end_token);
    }

    async fn send(&self, item: FeedItem) -> Result<(), StreamEnd> {
        self.items.send(item).await.map_err(|_| StreamEnd::ReceiverGone)
    }
}
