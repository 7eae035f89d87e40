//! The change stream's cursor on the server, and how more is asked of it.

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession, Database,
    bson::{Document, RawArray, RawDocument, RawDocumentBuf, doc},
    error::Error,
    raw_batch_cursor::{RawBatch, SessionRawBatchCursor},
};

use super::{MongoStore, batch_size::ORDINARY, failure::StreamFailure, open::AWAIT, patience::Said};

/// A cursor whose requests each have a limit of their own.
///
/// The driver's cursor always asks with the limit that it was made with. It hands out the server's reply as it lies in memory, which
/// costs this node least, so it asks with the ordinary limit. With another limit this node asks by itself. The driver then
/// makes a document of the reply, and it is made raw again; that happens only where each change takes the server much longer.
#[derive(Debug)]
pub(super) struct StreamCursor {
    database: Database,
    collection: String,
    id: i64,
    /// The server lets only the session that made a cursor read it.
    session: ClientSession,
    /// When it is dropped, the driver closes the cursor on the server.
    cursor: SessionRawBatchCursor,
}

/// One reply of the server.
pub(super) enum Batch {
    Raw(RawBatch),
    Own(RawDocumentBuf),
}

impl StreamCursor {
    /// The server makes the cursor and looks for nothing yet.
    pub(super) async fn open(store: &MongoStore, stages: Vec<Document>) -> Result<Self, StreamFailure> {
        let mut session = store.client().await?.start_session().await?;
        let (database, collection) = (store.database().await?, store.config.collection.clone());
        let command = aggregate(&collection, stages, 0);
        let mut cursor = database
            .run_cursor_command(command)
            .batch_size(ORDINARY)
            .max_time(AWAIT)
            .session(&mut session)
            .batch()
            .await?;
        let first = cursor.stream(&mut session).try_next().await?;
        let id = first.as_ref().and_then(|batch| inner(batch.as_raw_document())?.get_i64("id").ok());
        Ok(Self { database, collection, id: id.unwrap_or_default(), session, cursor })
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// The next reply with at most `limit` changes; None: the server has closed the cursor.
    pub(super) async fn next(&mut self, limit: u32) -> Result<Option<Batch>, Error> {
        if limit == ORDINARY {
            return Ok(self.cursor.stream(&mut self.session).try_next().await?.map(Batch::Raw));
        }
        let command = doc! {
            "getMore": self.id,
            "collection": &self.collection,
            "batchSize": i64::from(limit),
            "maxTimeMS": i64::try_from(AWAIT.as_millis()).unwrap_or(i64::MAX),
        };
        let reply = self.database.run_command(command).session(&mut self.session).await?;
        Ok(Some(Batch::Own(RawDocumentBuf::try_from(&reply)?)))
    }
}

impl Batch {
    fn reply(&self) -> &RawDocument {
        match self {
            Self::Raw(batch) => batch.as_raw_document(),
            Self::Own(reply) => reply,
        }
    }

    pub(super) fn changes(&self) -> Option<&RawArray> {
        let cursor = inner(self.reply())?;
        cursor.get_array("nextBatch").or_else(|_| cursor.get_array("firstBatch")).ok()
    }

    pub(super) fn number(&self) -> usize {
        self.changes().map_or(0, |changes| changes.into_iter().count())
    }

    /// What the stream goes on after.
    pub(super) fn token(&self) -> Option<Document> {
        let of_batch = || inner(self.reply())?.get_document("postBatchResumeToken").ok();
        let of_last = || self.changes()?.into_iter().last()?.ok()?.as_document()?.get_document("_id").ok();
        Document::try_from(of_batch().or_else(of_last)?).ok()
    }

    /// Whether the server has closed the cursor with this reply.
    pub(super) fn is_last(&self) -> bool {
        inner(self.reply()).and_then(|cursor| cursor.get_i64("id").ok()) == Some(0)
    }
}

fn inner(reply: &RawDocument) -> Option<&RawDocument> {
    reply.get_document("cursor").ok()
}

/// The first reply of a change stream that is not read on. The server does not wait for a change.
pub(super) async fn first_batch(
    store: &MongoStore,
    stages: Vec<Document>,
) -> Result<Option<Batch>, StreamFailure> {
    let database = store.database().await?;
    let command = aggregate(&store.config.collection, stages, 1);
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

/// Asks the server, by another connection, whether it still works on a request for more of that cursor. A user may always
/// ask for operations of its own.
pub(super) async fn is_under_way(store: &MongoStore, cursor: i64) -> Said {
    let pipeline = [
        doc! {"$currentOp": {}},
        doc! {"$match": {"command.getMore": cursor}},
        doc! {"$limit": 1},
        doc! {"$project": {"_id": 0, "opid": 1}},
    ];
    let Ok(client) = store.client().await else { return Said::Nothing };
    let found = async { client.database("admin").aggregate(pipeline).await?.try_next().await }.await;
    match found {
        Ok(Some(_)) => Said::UnderWay,
        Ok(None) => Said::Finished,
        Err(error) => {
            tracing::debug!(%error, "the server does not say whether it works on the change stream");
            Said::Nothing
        }
    }
}
