//! Measures the stages without I/O: a change becomes events, events reach a room, a client joins. The same run also
//! measures, for comparison, a gateway that filters and encodes each event for each socket.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Map, Value, json};
use taskcast::{
    fanout::{Fanout, Limits, Peer, PeerId, SendError, TaskOffer},
    feed::{Change, Position, TimelineChange, translate},
    metrics::Metrics,
    task::{DefaultOrg, FullTask, FullView, OrgId, Task, Timestamp, UserId, Viewer},
    wire::Message,
};

const TIMELINE_LIMIT: usize = 1_000;
const MEMBERS: u64 = 1_000;
const ROOMS: u64 = 200;
const MEMBERS_OF_A_SMALL_ROOM: u64 = 5;

/// Accepts packets and drops them.
#[derive(Clone)]
struct Sink;

impl Peer for Sink {
    fn send(&self, message: Message) -> Result<bool, SendError> {
        black_box(message);
        Ok(false)
    }

    fn cut(&self) {}

    fn refresh(&self, _: &'static str) {}
}

fn document(status: &str, entries: usize) -> Map<String, Value> {
    let events: Vec<Value> = (0..entries)
        .map(|n| json!({"eventType": "step", "payload": {"n": n}, "createdAt": "2026-01-01T00:00:00.000Z"}))
        .collect();
    match json!({
        "_id": "65a000000000000000000001", "title": "A task", "status": status, "createdBy": "ann", "orgId": "acme",
        "createdAt": "2026-01-01T00:00:00.000Z", "updatedAt": "2026-01-01T00:00:01.000Z", "events": events,
        "repo": "acme/app", "githubIssueNumber": 42, "githubIssueUrl": "https://example.com/42",
    }) {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn full(status: &str, entries: usize) -> FullTask {
    FullTask::from_document(document(status, entries), &DefaultOrg(None)).expect("a task")
}

fn room(n: u64, status: &str) -> FullTask {
    let mut document = document(status, 0);
    document.insert("_id".into(), json!(format!("room-{n}")));
    FullTask::from_document(document, &DefaultOrg(None)).expect("a task")
}

fn change(time: u64) -> Change {
    let (before, after): (Task, Task) = (full("analyzing", 0).task, full("dispatched", 0).task);
    Change {
        position: Position::change(time, 0),
        occurred_at: Timestamp::now(),
        task: after.id.clone(),
        before: Some(before),
        after: Some(after),
        timeline: TimelineChange::Unchanged,
    }
}

fn viewer(n: u64) -> Viewer {
    Viewer { user: UserId::parse(&format!("u{n}")).expect("a user"), org: OrgId::parse("acme") }
}

fn opened() -> Fanout<Sink> {
    let mut fanout = Fanout::new(Limits {
        ring_bytes: 1 << 24,
        replay_events: 1_000,
        patience: Duration::from_secs(10),
        behind_messages: 32_768,
    });
    fanout.tasks.open(Position::end_of(1));
    fanout
}

fn small_rooms() -> Fanout<Sink> {
    let mut fanout = opened();
    for n in 0..ROOMS * MEMBERS_OF_A_SMALL_ROOM {
        fanout.add_peer(PeerId(n), Sink, viewer(n));
        join(&mut fanout, PeerId(n), &room(n % ROOMS, "analyzing"), 1);
    }
    fanout
}

fn room_of(members: u64) -> (Fanout<Sink>, FullTask) {
    let task = full("analyzing", 20);
    let mut fanout = opened();
    for n in 0..members {
        fanout.add_peer(PeerId(n), Sink, viewer(n));
        join(&mut fanout, PeerId(n), &task, 1);
    }
    (fanout, task)
}

fn join(fanout: &mut Fanout<Sink>, peer: PeerId, task: &FullTask, at: u64) {
    let state = Message::event("task:state", &FullView(task), None);
    let offer = TaskOffer {
        task: &task.task.id,
        access: Some(&task.task.access),
        at: Position::end_of(at),
        state: Some(&state),
    };
    black_box(fanout.enter_task(peer, offer));
}

fn stages(criterion: &mut Criterion) {
    criterion.bench_function("decode a document with 20 entries", |bench| {
        let document = document("analyzing", 20);
        bench.iter_batched(
            || document.clone(),
            |document| FullTask::from_document(document, &DefaultOrg(None)),
            BatchSize::SmallInput,
        );
    });

    criterion.bench_function("route to a room of 5 among 200", |bench| {
        let mut fanout = small_rooms();
        let of = |n| Change {
            task: room(n, "dispatched").task.id,
            before: Some(room(n, "analyzing").task),
            after: Some(room(n, "dispatched").task),
            ..change(2)
        };
        let changes: Vec<Change> = (0..ROOMS).map(of).collect();
        let mut time = 1;
        bench.iter_batched(
            || {
                time += 1;
                let change = &changes[time as usize % changes.len()];
                translate(&Change { position: Position::change(time, 0), ..change.clone() }, TIMELINE_LIMIT)
            },
            |steps| steps.into_iter().for_each(|step| fanout.tasks.apply(step, &mut fanout.clients)),
            BatchSize::PerIteration,
        );
    });

    criterion.bench_function("translate a status change", |bench| {
        let change = change(2);
        bench.iter(|| translate(black_box(&change), TIMELINE_LIMIT));
    });

    let mut group = criterion.benchmark_group("one change to 1000 members");
    group.throughput(Throughput::Elements(MEMBERS));
    let (mut fanout, _) = room_of(MEMBERS);
    let mut time = 1;
    group.bench_function("taskcast", |bench| {
        bench.iter(|| {
            time += 1;
            for step in translate(&change(time), TIMELINE_LIMIT) {
                fanout.tasks.apply(step, &mut fanout.clients);
            }
        });
    });
    let metrics = Arc::<Metrics>::default();
    group.bench_function("taskcast, measured", |bench| {
        bench.iter(|| {
            time += 1;
            let begun = Instant::now();
            let steps = translate(&change(time), TIMELINE_LIMIT);
            metrics.relay.encode_seconds.observe(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            for step in steps {
                for event in step.events() {
                    metrics.relay.emitted(event.name, 1);
                }
                fanout.tasks.apply(step, &mut fanout.clients);
            }
            metrics.relay.fanout_seconds.observe(begun.elapsed().as_secs_f64());
            let sent = fanout.clients.take_sent();
            metrics.clients.deliveries.inc_by(sent.messages);
            metrics.clients.delivered_bytes.inc_by(sent.bytes);
            metrics.relay.commit_to_emit_seconds.observe(0.01);
            metrics.relay.changes.inc();
        });
    });
    group.bench_function("a filter and an encoding for each socket", |bench| {
        let (change, viewers) = (change(2), (0..MEMBERS).map(viewer).collect::<Vec<_>>());
        let after = change.after.as_ref().expect("a task");
        bench.iter(|| {
            for viewer in viewers.iter().filter(|viewer| after.access.allows(viewer)) {
                let payload =
                    json!({"taskId": after.id, "status": after.status().as_str(), "user": viewer.user});
                black_box(Sink.send(Message::event("task:dispatched", &payload, None)).is_ok());
            }
        });
    });
    group.finish();

    criterion.bench_function("join with 100 events to replay", |bench| {
        bench.iter_batched_ref(
            || {
                let (mut fanout, task) = room_of(1);
                for step in (2..102).flat_map(|time| translate(&change(time), TIMELINE_LIMIT)) {
                    fanout.tasks.apply(step, &mut fanout.clients);
                }
                (fanout, task)
            },
            |(fanout, task)| join(fanout, PeerId(0), task, 1),
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, stages);
criterion_main!(benches);
