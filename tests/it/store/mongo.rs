//! Runs the conformance tests against MongoDB.

use super::*;
use crate::mongod::TestDatabase;

struct Mongo;

impl Backend for Mongo {
    fn kind(&self) -> &'static str {
        "mongodb"
    }

    async fn fresh(&self, default_org: DefaultOrg) -> Prepared {
        let mut db = TestDatabase::new().await;
        db.config.default_org = default_org;
        Prepared { store: Arc::new(db.prepared_store().await), keep: Box::new(db) }
    }
}

super::conformance!(Mongo);
