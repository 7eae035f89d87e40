//! Runs the conformance tests against MongoDB.

use super::*;
use crate::mongod::Place;

struct Mongo;

impl Backend for Mongo {
    fn kind(&self) -> &'static str {
        "mongodb"
    }

    async fn fresh(&self, default_org: DefaultOrg) -> Prepared {
        let mut place = Place::new().await;
        place.config.default_org = default_org;
        Prepared { store: Arc::new(place.prepared().await), keep: Box::new(place) }
    }
}

super::conformance!(Mongo);
