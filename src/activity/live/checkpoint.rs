//! A checkpoint: the live entities of a scope at a position, as JSON. A node that reads it needs only the later events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{entity::EntityCopy, fold::LiveEntities, key::EntityKey};
use crate::{activity::Audience, position::Position};

/// The version of the form. A release that changes it must still read the older ones, because entities may be older than
/// every event that is kept.
const VERSION: u32 = 1;

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("a checkpoint of live entities has the version {0}, which this release does not know")]
    Version(u32),
    #[error("a checkpoint of live entities is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint<E> {
    version: u32,
    position: Position,
    clock: i64,
    entities: Vec<E>,
}

#[derive(Deserialize)]
struct StoredCopy {
    key: EntityKey,
    audience: Audience,
    copy: EntityCopy,
}

/// The same as [`StoredCopy`], without a clone of the entity.
#[derive(Serialize)]
struct CopyToStore<'a> {
    key: &'a EntityKey,
    audience: &'a Audience,
    copy: &'a EntityCopy,
}

impl LiveEntities {
    /// The checkpoint at [`LiveEntities::position`]. Equal entities have equal checkpoints.
    pub fn to_checkpoint(&self) -> Result<Vec<u8>, CheckpointError> {
        let entities = self.entities.iter().flat_map(|(key, copies)| {
            copies.iter().map(move |(audience, copy)| CopyToStore { key, audience, copy })
        });
        let checkpoint = Checkpoint {
            version: VERSION,
            position: self.position,
            clock: self.clock,
            entities: entities.collect(),
        };
        Ok(serde_json::to_vec(&checkpoint)?)
    }

    pub fn from_checkpoint(json: &[u8]) -> Result<Self, CheckpointError> {
        let Versioned { version } = serde_json::from_slice(json)?;
        if version != VERSION {
            return Err(CheckpointError::Version(version));
        }
        let checkpoint: Checkpoint<StoredCopy> = serde_json::from_slice(json)?;
        let mut entities: BTreeMap<EntityKey, BTreeMap<Audience, EntityCopy>> = BTreeMap::new();
        for StoredCopy { key, audience, copy } in checkpoint.entities {
            entities.entry(key).or_default().insert(audience, copy);
        }
        Ok(Self::restored(checkpoint.position, checkpoint.clock, entities))
    }
}
