//! Opens the change stream's cursor on the server, and requests more changes from it.

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession, Database,
    bson::{Document, RawArray, RawDocument, RawDocumentBuf, doc},
    error::Error,
    raw_batch_cursor::{RawBatch, SessionRawBatchCursor},
};

use super::{
    MongoStore, batch_size::DEFAULT_LIMIT, failure::StreamFailure, open::MAX_AWAIT_TIME,
    request_timeout::RequestState,
};

/// A cursor with a separate limit for each request.
///
/// The driver's cursor always uses the limit that it was created with. It returns the raw reply, which costs this node least, so it is used
/// for requests with the ordinary limit. With any other limit, this node sends the `getMore` itself. The driver then decodes the reply to a
/// document, and this node encodes it again. That happens only when each change costs the server much more time.
#[derive(Debug)]
pub(super) struct StreamCursor {
    database: Database,
    collection: String,
    id: i64,
    /// Only the session that created the cursor may read from it.
    session: ClientSession,
    /// The driver closes the cursor on the server when this value is dropped.
    cursor: SessionRawBatchCursor,
}

/// One reply of the server.
pub(super) enum Batch {
    Raw(RawBatch),
    Encoded(RawDocumentBuf),
}

impl StreamCursor {
    /// Creates the cursor. The server does not search for changes yet.
    pub(super) async fn open(store: &MongoStore, stages: Vec<Document>) -> Result<Self, StreamFailure> {
        let mut session = store.client().await?.start_session().await?;
        let (database, collection) = (store.database().await?, store.config.collection.clone());
        let command = aggregate(&collection, stages, 0);
        let mut cursor = database
            .run_cursor_command(command)
            .batch_size(DEFAULT_LIMIT)
            .max_time(MAX_AWAIT_TIME)
            .session(&mut session)
            .batch()
            .await?;
        let first = cursor.stream(&mut session).try_next().await?;
        let id = first.as_ref().and_then(|batch| cursor_of(batch.as_raw_document())?.get_i64("id").ok());
        Ok(Self { database, collection, id: id.unwrap_or_default(), session, cursor })
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// Returns the next reply with at most `limit` changes. `None` means that the server has closed the cursor.
    pub(super) async fn next(&mut self, limit: u32) -> Result<Option<Batch>, Error> {
        if limit == DEFAULT_LIMIT {
            return Ok(self.cursor.stream(&mut self.session).try_next().await?.map(Batch::Raw));
        }
        let command = doc! {
            "getMore": self.id,
            "collection": &self.collection,
            "batchSize": i64::from(limit),
            "maxTimeMS": i64::try_from(MAX_AWAIT_TIME.as_millis()).unwrap_or(i64::MAX),
        };
        let reply = self.database.run_command(command).session(&mut self.session).await?;
        Ok(Some(Batch::Encoded(RawDocumentBuf::try_from(&reply)?)))
    }
}

impl Batch {
    fn reply(&self) -> &RawDocument {
        match self {
            Self::Raw(batch) => batch.as_raw_document(),
            Self::Encoded(reply) => reply,
        }
    }

    pub(super) fn changes(&self) -> Option<&RawArray> {
        let cursor = cursor_of(self.reply())?;
        cursor.get_array("nextBatch").or_else(|_| cursor.get_array("firstBatch")).ok()
    }

    pub(super) fn change_count(&self) -> usize {
        self.changes().map_or(0, |changes| changes.into_iter().count())
    }

    /// The resume token of the batch, or else of its last change.
    pub(super) fn token(&self) -> Option<Document> {
        let of_batch = || cursor_of(self.reply())?.get_document("postBatchResumeToken").ok();
        let of_last = || self.changes()?.into_iter().last()?.ok()?.as_document()?.get_document("_id").ok();
        Document::try_from(of_batch().or_else(of_last)?).ok()
    }

    /// Returns whether the server has closed the cursor with this reply.
    pub(super) fn is_last(&self) -> bool {
        cursor_of(self.reply()).and_then(|cursor| cursor.get_i64("id").ok()) == Some(0)
    }
}

fn cursor_of(reply: &RawDocument) -> Option<&RawDocument> {
    reply.get_document("cursor").ok()
}

/// Returns only the first reply of a new change stream, with at most one change. The server does not wait for a change.
pub(super) async fn first_batch(
    store: &MongoStore,
    stages: Vec<Document>,
) -> Result<Option<Batch>, StreamFailure> {
    first_batch_of(store, &store.config.collection, stages, 1).await
}

/// The same as [`first_batch`] for any collection, with at most `limit` changes.
pub(super) async fn first_batch_of(
    store: &MongoStore,
    collection: &str,
    stages: Vec<Document>,
    limit: i32,
) -> Result<Option<Batch>, StreamFailure> {
    let database = store.database().await?;
    let command = aggregate(collection, stages, limit);
    let mut cursor = database.run_cursor_command(command).batch().await?;
    Ok(cursor.try_next().await?.map(Batch::Raw))
}

fn aggregate(collection: &str, stages: Vec<Document>, limit: i32) -> Document {
    doc! {
        "aggregate": collection,
        "pipeline": stages,
        "cursor": {"batchSize": limit},
        "collation": {"locale": "simple"},
    }
}

/// Asks the server over another connection whether it still works on a `getMore` of this cursor. `$currentOp` needs no privilege for the
/// user's own operations.
pub(super) async fn request_state(store: &MongoStore, cursor: i64) -> RequestState {
    let pipeline = [
        doc! {"$currentOp": {}},
        doc! {"$match": {"command.getMore": cursor}},
        doc! {"$limit": 1},
        doc! {"$project": {"_id": 0, "opid": 1}},
    ];
    let Ok(client) = store.client().await else { return RequestState::Unknown };
    let found = async { client.database("admin").aggregate(pipeline).await?.try_next().await }.await;
    match found {
        Ok(Some(_)) => RequestState::Running,
        Ok(None) => RequestState::Finished,
        Err(error) => {
            tracing::debug!(%error, "MongoDB does not report whether it still works on the change stream");
            RequestState::Unknown
        }
    }
}
