//! The idempotency keys of the HTTP API. A key is written in the transaction of the write that it stands for.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use redb::{ReadableTable, Table, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::database::{Fault, KEY_TIMES, KEYS};
use crate::{
    feed::Position,
    store::{EarlierWrite, KEY_HOURS, WriteError, WriteKey},
    task::{TaskId, Timestamp},
};

const LIFETIME_MILLIS: u64 = KEY_HOURS * 60 * 60 * 1000;
/// A write removes at most this many expired keys, so that no write waits for long. Each write adds at most one key.
const MAX_REMOVED: usize = 100;

/// The tables of keys, open for writing.
pub(super) struct Keys<'txn> {
    keys: Table<'txn, &'static str, &'static [u8]>,
    times: Table<'txn, (u64, &'static str), ()>,
}

/// What is remembered of a write.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// Milliseconds since 1970.
    at: u64,
    content: String,
    task: String,
    event_id: Option<String>,
}

impl<'txn> Keys<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, Fault> {
        Ok(Self { keys: txn.open_table(KEYS)?, times: txn.open_table(KEY_TIMES)? })
    }

    /// The write that was made with this key. `Ok(None)` means that none is remembered.
    pub(super) fn find(
        &self,
        key: &WriteKey,
        now: Timestamp,
    ) -> Result<Result<Option<EarlierWrite>, WriteError>, Fault> {
        let Some(record) = self.record(&key.name)? else { return Ok(Ok(None)) };
        if record.at.saturating_add(LIFETIME_MILLIS) < millis(now) {
            return Ok(Ok(None));
        }
        if record.content != key.content {
            return Ok(Err(WriteError::KeyReused));
        }
        let event_id = record.event_id.and_then(|text| text.parse().ok());
        Ok(Ok(TaskId::parse(&record.task).map(|task| EarlierWrite { task, event_id })))
    }

    /// Remembers a write, and removes expired keys.
    pub(super) fn insert(
        &mut self,
        key: &WriteKey,
        task: &TaskId,
        event_id: Option<Position>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        if let Some(expired) = self.record(&key.name)? {
            self.times.remove((expired.at, key.name.as_str()))?;
        }
        let at = millis(now);
        let event_id = event_id.map(|position| position.to_string());
        let record = Record { at, content: key.content.clone(), task: task.as_str().to_owned(), event_id };
        self.keys.insert(key.name.as_str(), &*serde_json::to_vec(&record)?)?;
        self.times.insert((at, key.name.as_str()), ())?;
        self.remove_expired(at.saturating_sub(LIFETIME_MILLIS))
    }

    fn record(&self, name: &str) -> Result<Option<Record>, Fault> {
        let Some(bytes) = self.keys.get(name)? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(bytes.value())?))
    }

    fn remove_expired(&mut self, before: u64) -> Result<(), Fault> {
        for _ in 0..MAX_REMOVED {
            let oldest = self.times.first()?.map(|(key, _)| (key.value().0, key.value().1.to_owned()));
            match oldest {
                Some((at, name)) if at < before => {
                    self.times.remove((at, name.as_str()))?;
                    self.keys.remove(name.as_str())?;
                }
                _ => break,
            }
        }
        Ok(())
    }
}

fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.millis()).unwrap_or_default()
}

/// The keys of the requests that are being processed. There are at most as many as there are such requests.
#[derive(Debug, Default)]
pub(super) struct KeysInUse(Arc<Mutex<HashSet<String>>>);

/// A key in use. It is free again when this value is dropped.
#[derive(Debug)]
pub(super) struct KeyInUse {
    keys: Arc<Mutex<HashSet<String>>>,
    name: String,
}

impl KeysInUse {
    /// Returns `None` if another request uses the key now.
    pub(super) fn take(&self, key: &WriteKey) -> Option<KeyInUse> {
        let is_free = self.0.lock().insert(key.name.clone());
        is_free.then(|| KeyInUse { keys: self.0.clone(), name: key.name.clone() })
    }
}

impl Drop for KeyInUse {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use redb::{ReadableTableMetadata, backends::InMemoryBackend};

    use super::*;

    fn key(name: &str, content: &str) -> WriteKey {
        WriteKey { name: name.to_owned(), content: content.to_owned() }
    }

    #[test]
    fn a_key_is_remembered_for_a_day_and_then_removed() {
        let db = redb::Database::builder().create_with_backend(InMemoryBackend::new()).expect("a database");
        let txn = db.begin_write().expect("begun");
        let mut keys = Keys::open(&txn).expect("opened");
        let at = |millis: u64| Timestamp::from_millis(i64::try_from(millis).expect("small")).expect("a time");
        let task = TaskId::parse("t").expect("an id");
        let event_id = Some(Position { time: 7, ordinal: 0, index: 2 });
        let day = LIFETIME_MILLIS;
        keys.insert(&key("a", "c"), &task, event_id, at(1)).expect("inserted");

        let found = |keys: &Keys<'_>, name: &str, now: u64| {
            keys.find(&key(name, "c"), at(now)).expect("read").expect("the same content")
        };
        let earlier = found(&keys, "a", day + 1).expect("remembered");
        assert_eq!((&earlier.task, earlier.event_id), (&task, event_id));
        assert_eq!(found(&keys, "a", day + 2), None);
        assert_eq!(found(&keys, "b", 1), None);
        let other = keys.find(&key("a", "d"), at(1)).expect("read");
        assert!(matches!(other, Err(WriteError::KeyReused)), "{other:?}");

        // Many keys expire at once. Each later write removes some of them.
        for n in 0..250 {
            keys.insert(&key(&format!("n{n}"), "c"), &task, None, at(2)).expect("inserted");
        }
        let length = |keys: &Keys<'_>| {
            let (keys, times) = (keys.keys.len().expect("counted"), keys.times.len().expect("counted"));
            assert_eq!(keys, times);
            keys
        };
        assert_eq!(length(&keys), 251);
        for (n, expected) in [152, 53, 3, 4].into_iter().enumerate() {
            keys.insert(&key(&format!("later{n}"), "c"), &task, None, at(2 * day)).expect("inserted");
            assert_eq!(length(&keys), expected);
        }
        // The key was used again after it had expired.
        keys.insert(&key("later0", "c"), &task, None, at(4 * day)).expect("inserted");
        assert_eq!(length(&keys), 1);
        assert!(found(&keys, "later0", 4 * day).is_some());
    }

    #[test]
    fn a_key_is_in_use_until_its_request_has_ended() {
        let keys = KeysInUse::default();
        let first = keys.take(&key("a", "c")).expect("free");
        assert!(keys.take(&key("a", "d")).is_none() && keys.take(&key("b", "c")).is_some());
        drop(first);
        assert!(keys.take(&key("a", "d")).is_some());
    }
}
