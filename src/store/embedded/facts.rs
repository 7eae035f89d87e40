//! The facts that taskcast has learnt from GitHub's deliveries.

use redb::{ReadableTable, Table, WriteTransaction};

use super::database::{FACT_DAYS, FACTS, Fault};
use crate::{
    github::{Delivery, Fact, FactRecord, HEAD_DAYS, KnownFacts},
    task::Timestamp,
};

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// The tables of facts, open for writing.
pub(super) struct Facts<'txn> {
    facts: Table<'txn, (&'static str, &'static str), &'static [u8]>,
    days: Table<'txn, (u64, &'static str, &'static str), ()>,
    has_new_facts: bool,
}

impl<'txn> Facts<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, Fault> {
        Ok(Self { facts: txn.open_table(FACTS)?, days: txn.open_table(FACT_DAYS)?, has_new_facts: false })
    }

    /// Returns whether there is something new to commit.
    pub(super) fn has_new_facts(&self) -> bool {
        self.has_new_facts
    }

    /// Stores the new facts of the delivery, and returns the delivery with a search that uses all known facts.
    pub(super) fn store_facts_and_extend_search(
        &mut self,
        delivery: &Delivery,
        now: Timestamp,
    ) -> Result<Delivery, Fault> {
        let mut known = KnownFacts::default();
        loop {
            let keys = delivery.missing_keys(&known);
            if keys.is_empty() {
                break;
            }
            let facts = keys.iter().map(|key| self.find(key)).collect::<Result<Vec<_>, _>>()?;
            known.add(keys, facts.into_iter().flatten());
        }
        let new_facts = delivery.new_facts(&known, now);
        for record in &new_facts {
            self.insert(record, now)?;
        }
        known.add_facts(new_facts.into_iter().map(|record| record.fact));
        Ok(delivery.with_known_facts(&known))
    }

    fn find(&self, key: &str) -> Result<Vec<Fact>, Fault> {
        let mut found = Vec::new();
        for item in self.facts.range((key, "")..)? {
            let (stored_key, fact) = item?;
            if stored_key.value().0 != key {
                break;
            }
            found.push(serde_json::from_slice(fact.value())?);
        }
        Ok(found)
    }

    fn insert(&mut self, record: &FactRecord, now: Timestamp) -> Result<(), Fault> {
        let today = u64::try_from(now.millis()).unwrap_or_default() / DAY_MILLIS;
        let fact = serde_json::to_vec(&record.fact)?;
        for key in &record.keys {
            let fact_key = (key.as_str(), record.id.as_str());
            if self.facts.get(fact_key)?.is_some() {
                continue;
            }
            self.facts.insert(fact_key, &*fact)?;
            if record.expires {
                self.days.insert((today, fact_key.0, fact_key.1), ())?;
            }
            self.has_new_facts = true;
        }
        self.forget(today.saturating_sub(HEAD_DAYS))
    }

    fn forget(&mut self, before: u64) -> Result<(), Fault> {
        loop {
            let oldest = self.days.first()?.map(|(day, _)| {
                let (day, key, id) = day.value();
                (day, key.to_owned(), id.to_owned())
            });
            match oldest {
                Some((day, key, id)) if day < before => {
                    self.days.remove((day, key.as_str(), id.as_str()))?;
                    self.facts.remove((key.as_str(), id.as_str()))?;
                }
                _ => return Ok(()),
            }
        }
    }
}
