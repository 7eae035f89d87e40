//! Waits until the feed has read all changes up to a moment.
//!
//! The feed receives a change at once. It learns that there was no change only when MongoDB ends an empty request, up to 250 ms later. A
//! second, short change stream therefore checks whether there are changes that the feed has not read.

use std::{pin::pin, time::Duration};

use mongodb::bson::{Document, doc};
use tokio::time::timeout;

use super::{
    MongoStore,
    cached_counts::{Distance, is_far_behind},
    decode,
    failure::StreamFailure,
    ordinals,
    stream_cursor::{Batch, first_batch},
};
use crate::feed::Position;

/// A change normally reaches the feed much sooner. After this time the caller stops waiting and reads the counts from the index.
const CATCH_UP_TIMEOUT: Duration = Duration::from_millis(300);

/// Waits for at most [`CATCH_UP_TIMEOUT`]. Returns whether the feed has read all changes up to `moment`.
pub(super) async fn caught_up(store: &MongoStore, moment: Position) -> bool {
    timeout(CATCH_UP_TIMEOUT, catch_up(store, moment)).await.unwrap_or(false)
}

async fn catch_up(store: &MongoStore, moment: Position) -> bool {
    loop {
        let mut advanced = pin!(store.counts.next_advance());
        advanced.as_mut().enable();
        match store.counts.distance(moment) {
            Distance::Reached => return true,
            Distance::TooFar => return false,
            Distance::Reading => advanced.await,
            Distance::Behind(token) => {
                let guard = store.catch_up_lock.lock().await;
                if store.counts.distance(moment) != Distance::Behind(token.clone()) {
                    continue;
                }
                let result = probe_stream(store, &token).await;
                drop(guard);
                match result {
                    Ok(ProbeResult::NoChange { up_to }) if up_to >= moment => {
                        store.counts.nothing_since(&token, up_to)
                    }
                    Ok(ProbeResult::Change { time }) if !is_far_behind(time, moment) => advanced.await,
                    // The feed itself reports errors of MongoDB.
                    _ => return false,
                }
            }
        }
    }
}

/// The result of a short change stream after a token.
enum ProbeResult {
    NoChange { up_to: Position },
    Change { time: u64 },
}

async fn probe_stream(store: &MongoStore, after: &Document) -> Result<ProbeResult, StreamFailure> {
    let stages = vec![
        doc! {"$changeStream": {"startAfter": after}},
        // The projection contains no field of a task, so MongoDB does not read the task.
        doc! {"$project": {"clusterTime": 1}},
    ];
    let batch = first_batch(store, stages).await?;
    let change = batch.as_ref().and_then(Batch::changes).and_then(|changes| {
        let event = changes.into_iter().next()?.ok()?;
        decode::cluster_time(event.as_document()?)
    });
    Ok(match change {
        Some(time) => ProbeResult::Change { time },
        None => {
            let reached = batch.and_then(|batch| ordinals::cluster_time(&batch.token()?));
            ProbeResult::NoChange { up_to: reached.map_or(Position::ZERO, Position::end_of) }
        }
    })
}
