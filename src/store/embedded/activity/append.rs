//! Appends batches of events. A batch is checked first, and then stored completely.

use std::collections::HashMap;

use redb::{ReadableTable, Table, WriteTransaction};

use super::{
    super::{
        database::{Fault, first_sequence},
        record::access,
    },
    BY_SCOPE, EVENTS, HIGH_VOLUME, IDS, LAST_EVENT, LAST_EVENT_AT,
    record::{Record, id_key, scope_key},
};
use crate::{
    activity::{Audience, Event, Origin, Report},
    feed::Position,
    store::{AppendError, Appended, EventBatch},
    task::{DefaultOrg, Timestamp},
};

/// The tables of activity events, open for writing.
pub(in super::super) struct Log<'txn> {
    pub(super) events: Table<'txn, u64, &'static [u8]>,
    pub(super) by_scope: Table<'txn, (&'static str, u64), ()>,
    pub(super) ids: Table<'txn, (&'static str, &'static str, &'static str), u64>,
    pub(super) high_volume: Table<'txn, u64, ()>,
    /// The number of the last event.
    sequence: u64,
    last_at: u64,
    pub(in super::super) has_changed: bool,
}

/// What becomes of one event of a batch.
enum Fate {
    New,
    /// The same event has this sequence number. `None` means that it is an earlier event of the same batch.
    Duplicate(Option<u64>),
}

impl<'txn> Log<'txn> {
    pub(in super::super) fn open(
        txn: &'txn WriteTransaction,
        meta: &impl ReadableTable<&'static str, u64>,
    ) -> Result<Self, Fault> {
        let number = |name| Ok::<_, Fault>(meta.get(name)?.map(|number| number.value()));
        Ok(Self {
            events: txn.open_table(EVENTS)?,
            by_scope: txn.open_table(BY_SCOPE)?,
            ids: txn.open_table(IDS)?,
            high_volume: txn.open_table(HIGH_VOLUME)?,
            sequence: number(LAST_EVENT)?.unwrap_or_else(first_sequence),
            last_at: number(LAST_EVENT_AT)?.unwrap_or_default(),
            has_changed: false,
        })
    }

    /// Appends a batch, or returns why it was not appended.
    pub(in super::super) fn append(
        &mut self,
        batch: EventBatch,
        now: Timestamp,
        tasks: &impl ReadableTable<&'static str, &'static [u8]>,
        default_org: &DefaultOrg,
    ) -> Result<Result<Appended, AppendError>, Fault> {
        let fates = match self.check(&batch)? {
            Ok(fates) => fates,
            Err(index) => return Ok(Err(AppendError::Conflict { index })),
        };
        // The times never go back, so that all events with an earlier number have expired when an event has.
        self.last_at = self.last_at.max(u64::try_from(now.millis()).unwrap_or_default());
        let at = i64::try_from(self.last_at).ok().and_then(Timestamp::from_millis).unwrap_or(now);
        let (mut accepted, mut last) = (0, 0);
        for (new, fate) in batch.events.into_iter().zip(&fates) {
            match fate {
                Fate::Duplicate(earlier) => last = last.max(earlier.unwrap_or_default()),
                Fate::New => {
                    self.sequence += 1;
                    last = self.sequence;
                    accepted += 1;
                    let position = Position::change(self.sequence, 0);
                    let event = Event::new(new.report, batch.origin.clone(), position, at);
                    let audience = audience(&event, tasks, default_org)?;
                    self.insert(&Record { event, audience, high_volume: new.high_volume })?;
                }
            }
        }
        self.has_changed |= accepted > 0;
        Ok(Ok(Appended { accepted, duplicates: fates.len() - accepted, last: Position::change(last, 0) }))
    }

    /// Compares the events with earlier ones. Returns the index of the first event that is in conflict with one.
    fn check(&self, batch: &EventBatch) -> Result<Result<Vec<Fate>, usize>, Fault> {
        let mut of_batch: HashMap<&str, &Report> = HashMap::new();
        let mut fates = Vec::with_capacity(batch.events.len());
        for (index, new) in batch.events.iter().enumerate() {
            let report = &new.report;
            let Some(id) = report.id.as_deref() else {
                fates.push(Fate::New);
                continue;
            };
            let earlier = self.find(&batch.origin, id)?;
            let fate = match (earlier, of_batch.insert(id, report)) {
                (Some((number, event)), _) => {
                    event.is_duplicate(report).then_some(Fate::Duplicate(Some(number)))
                }
                (None, Some(other)) => report.is_same(other).then_some(Fate::Duplicate(None)),
                (None, None) => Some(Fate::New),
            };
            match fate {
                Some(fate) => fates.push(fate),
                None => return Ok(Err(index)),
            }
        }
        Ok(Ok(fates))
    }

    /// The event that a reporter has sent with this idempotency key.
    fn find(&self, origin: &Origin, id: &str) -> Result<Option<(u64, Event)>, Fault> {
        let Some(number) = self.ids.get(id_key(origin, id))?.map(|number| number.value()) else {
            return Ok(None);
        };
        let Some(bytes) = self.events.get(number)? else { return Ok(None) };
        Ok(Some((number, Record::decode(bytes.value())?.event)))
    }

    fn insert(&mut self, record: &Record) -> Result<(), Fault> {
        let number = self.sequence;
        self.events.insert(number, &*serde_json::to_vec(record)?)?;
        if let Some(scope) = record.event.scope() {
            self.by_scope.insert((&*scope_key(&scope), number), ())?;
        }
        if let Some(id) = &record.event.id {
            self.ids.insert(id_key(&record.event.origin, id), number)?;
        }
        if record.high_volume {
            self.high_volume.insert(number, ())?;
        }
        Ok(())
    }

    /// Writes what the next transaction needs. Returns the number of the last event.
    pub(in super::super) fn finish(self, meta: &mut Table<'_, &'static str, u64>) -> Result<u64, Fault> {
        meta.insert(LAST_EVENT, self.sequence)?;
        meta.insert(LAST_EVENT_AT, self.last_at)?;
        Ok(self.sequence)
    }
}

/// Who may see an event, as the tasks are now.
pub(super) fn audience(
    event: &Event,
    tasks: &impl ReadableTable<&'static str, &'static [u8]>,
    default_org: &DefaultOrg,
) -> Result<Option<Audience>, Fault> {
    let document = event.task.as_ref().map(|task| tasks.get(task.as_str())).transpose()?.flatten();
    let access = document.map(|bytes| access(bytes.value(), default_org)).transpose()?;
    Ok(event.audience(access.as_ref()))
}
