//! The fan-out against a model: random interleavings of changes, reads, joins, leaves, lost connections, full
//! queues, gaps and visibility changes. A reference client replaces its copy on a state and applies every other event. Its
//! copy must always end equal to the store, and the client must never get what it may not see. The copy has only the end of
//! a long timeline and the number of the missing entries.
//!
//! The same clients follow a second kind, the posts of `posts.rs`. A gap in one kind must leave the rooms of the other as they
//! are, and each kind must deliver exactly its events.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    DashboardOffer, EnterOutcome, Fanout, Kind, Limits, Peer, PeerId, SendError, SpaceReports, TaskOffer,
    Tasks,
    tasks::{Key, sees},
};
use crate::{
    feed::{Change, Position, TimelineChange, translate},
    task::{
        Access, Counts, DefaultOrg, FullTask, FullView, OrgId, Summary, TaskId, Timestamp, UserId, Viewer,
        Window,
    },
    wire::{Content, Message, emitted},
};

mod posts;

pub(super) use posts::Posts;

/// The most timeline entries in a state.
const TIMELINE_LIMIT: usize = 3;
const TASKS: usize = 3;
const CLIENTS: usize = 5;
/// This client asks with a `since` that it never received. Its copies may be wrong, but it must not get what it may not see.
const LIAR: usize = 4;
const STATUSES: [&str; 6] = ["received", "analyzing", "dispatched", "merged", "failed", "odd"];

#[derive(Clone, Debug)]
enum Op {
    /// Changes are committed together.
    Write(Vec<(usize, Edit)>),
    /// The fan-out gets this many changes.
    Feed(usize),
    /// A client asks for a room. The store is read now, or the client shares a read that began this many commits ago.
    Join(usize, Room, usize),
    /// A client asks for a room with the last event that it has of the room.
    Since(usize, Room),
    /// The oldest pending request of a client gets its answer.
    Answer(usize),
    Leave(usize, Room),
    /// The liar asks for a room with a made-up `since`.
    Lie(Room, Since),
    /// The liar asks for a task that is visible again in the store. At the position of the fan-out, the task is hidden or about
    /// to be hidden.
    LieInTheDark(usize, bool, Edit, Since),
    /// The connection is lost. A new connection asks for everything again.
    Reconnect(usize, bool),
    /// All clients reconnect to a node that is this many changes behind. They may get their rooms before it has caught up.
    Move(usize, bool, bool),
    /// A client continues in another organisation.
    Renew(usize, usize),
    /// The client reads what is queued.
    Read(usize),
    Counts,
    Cut,
    Gap,
    Posts(posts::Op),
}

/// The number of commits before now (negative: after now), and the position in that commit. `None` means after the commit.
type Since = (i64, Option<(u32, u32)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    Task(usize),
    Dashboard,
}

#[derive(Clone, Debug)]
enum Edit {
    Status(usize),
    Title(u8),
    Private(bool),
    Creator(usize),
    Org(usize),
    Append(u8),
    RewriteTimeline,
    Delete,
    Many,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0..STATUSES.len()).prop_map(Edit::Status),
        3 => any::<u8>().prop_map(Edit::Title),
        2 => any::<bool>().prop_map(Edit::Private),
        1 => (0..3usize).prop_map(Edit::Creator),
        1 => (0..2usize).prop_map(Edit::Org),
        3 => (1..3u8).prop_map(Edit::Append),
        1 => Just(Edit::RewriteTimeline),
        1 => Just(Edit::Delete),
        1 => Just(Edit::Many),
    ]
}

fn room() -> impl Strategy<Value = Room> {
    prop_oneof![3 => (0..TASKS).prop_map(Room::Task), 2 => Just(Room::Dashboard)]
}

fn since() -> impl Strategy<Value = Since> {
    (-4..6i64, prop::option::of((0..2u32, 0..3u32)))
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..LIAR;
    prop_oneof![
        8 => prop::collection::vec((0..TASKS, edit()), 1..3).prop_map(Op::Write),
        6 => (1..4usize).prop_map(Op::Feed),
        6 => (client.clone(), room(), 0..4usize).prop_map(|(c, r, ago)| Op::Join(c, r, ago)),
        3 => (client.clone(), room()).prop_map(|(c, r)| Op::Since(c, r)),
        6 => (0..CLIENTS).prop_map(Op::Answer),
        2 => (room(), since()).prop_map(|(r, s)| Op::Lie(r, s)),
        2 => (0..TASKS, any::<bool>(), edit(), since()).prop_map(|(t, h, e, s)| Op::LieInTheDark(t, h, e, s)),
        1 => (client.clone(), room()).prop_map(|(c, r)| Op::Leave(c, r)),
        1 => (client.clone(), any::<bool>()).prop_map(|(c, s)| Op::Reconnect(c, s)),
        2 => (0..4usize, any::<bool>(), any::<bool>()).prop_map(|(n, s, a)| Op::Move(n, s, a)),
        1 => (client.clone(), 0..3usize).prop_map(|(c, o)| Op::Renew(c, o)),
        3 => client.prop_map(Op::Read),
        3 => Just(Op::Counts),
        1 => Just(Op::Cut),
        1 => Just(Op::Gap),
        12 => posts::op().prop_map(Op::Posts),
    ]
}

/// A socket whose queue has a limit.
#[derive(Clone, Debug)]
struct Socket {
    queue: Arc<Mutex<VecDeque<Message>>>,
    capacity: usize,
    flags: Arc<Mutex<Flags>>,
    id: PeerId,
    space_reports: SpaceReports,
}

#[derive(Debug, Default)]
struct Flags {
    cut: bool,
    /// The streams whose rooms the client has to enter again.
    refresh: BTreeSet<&'static str>,
}

impl Peer for Socket {
    fn send(&self, message: Message) -> Result<bool, SendError> {
        let mut queue = self.queue.lock().unwrap();
        if queue.len() >= self.capacity {
            return Err(SendError::Full(message));
        }
        queue.push_back(message);
        Ok(false)
    }

    fn cut(&self) {
        self.flags.lock().unwrap().cut = true;
    }

    fn refresh(&self, stream: &'static str) {
        self.flags.lock().unwrap().refresh.insert(stream);
    }
}

#[derive(Debug)]
struct Pending {
    room: Room,
    since: Option<Position>,
    refreshing: bool,
    snapshot: Snapshot,
}

#[derive(Clone, Debug)]
struct Snapshot {
    at: Position,
    tasks: BTreeMap<TaskId, FullTask>,
}

#[derive(Debug)]
struct Client {
    viewer: Viewer,
    peer: PeerId,
    socket: Socket,
    pending: VecDeque<Pending>,
    tasks: BTreeMap<String, Value>,
    dashboard: Option<BTreeMap<String, Value>>,
    counts: Option<Value>,
    last: BTreeMap<Room, Position>,
    /// Rooms whose last event was a `task:deleted`.
    ended: BTreeSet<Room>,
    posts: posts::Reader,
}

struct World {
    fanout: Fanout<Socket>,
    time: u64,
    tasks: BTreeMap<TaskId, FullTask>,
    log: Vec<Change>,
    /// The snapshots before the last commits.
    snapshots: VecDeque<Snapshot>,
    /// The number of changes in the log that the fan-out has got.
    fed: usize,
    /// The access to the task of each change, before and after it.
    accesses: BTreeMap<Position, (Option<Access>, Option<Access>)>,
    clients: Vec<Client>,
    next_peer: u64,
    capacity: usize,
    board: posts::Board,
}

fn new_fanout() -> Fanout<Socket> {
    Fanout::new(Limits {
        ring_bytes: 20_000,
        replay_events: 6,
        patience: std::time::Duration::ZERO,
        behind_messages: 0,
    })
}

fn task_id(index: usize) -> TaskId {
    TaskId::parse(&format!("t{index}")).unwrap()
}

fn room_of(task: &str) -> Room {
    Room::Task(task[1..].parse().unwrap())
}

fn viewer(index: usize) -> Viewer {
    let org = ["o0", "o0", "o1", "o0", "o0"][index];
    Viewer { user: UserId::parse(&format!("u{}", index % 3)).unwrap(), org: OrgId::parse(org) }
}

impl World {
    fn new(capacity: usize) -> Self {
        let mut world = Self {
            fanout: new_fanout(),
            time: 1,
            tasks: BTreeMap::new(),
            log: Vec::new(),
            snapshots: VecDeque::new(),
            fed: 0,
            accesses: BTreeMap::new(),
            clients: Vec::new(),
            next_peer: 0,
            capacity,
            board: posts::Board::default(),
        };
        world.fanout.tasks.open(Position::end_of(1));
        world.move_posts(0);
        for index in 0..CLIENTS {
            let (peer, socket) = world.connect(&viewer(index));
            world.clients.push(Client {
                viewer: viewer(index),
                peer,
                socket,
                pending: VecDeque::new(),
                tasks: BTreeMap::new(),
                dashboard: None,
                counts: None,
                last: BTreeMap::new(),
                ended: BTreeSet::new(),
                posts: posts::Reader::default(),
            });
        }
        world
    }

    fn connect(&mut self, viewer: &Viewer) -> (PeerId, Socket) {
        self.next_peer += 1;
        let peer = PeerId(self.next_peer);
        let socket = Socket {
            queue: Arc::default(),
            capacity: self.capacity,
            flags: Arc::default(),
            id: peer,
            space_reports: self.fanout.clients.space_reports(),
        };
        self.fanout.add_peer(peer, socket.clone(), viewer.clone());
        (peer, socket)
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Write(edits) => self.write(&edits),
            Op::Feed(n) => self.feed(n),
            Op::Join(client, room, ago) => {
                self.ask(client, room, None, false);
                let shared = ago.checked_sub(1).and_then(|ago| self.snapshots.iter().rev().nth(ago));
                if let (Some(shared), Some(pending)) = (shared, self.clients[client].pending.back_mut()) {
                    pending.snapshot = shared.clone();
                }
            }
            Op::Since(client, room) => {
                let since = self.clients[client].last.get(&room).copied();
                self.ask(client, room, since, false);
            }
            Op::Answer(client) => self.answer(client),
            Op::Leave(client, room) => self.leave(client, room),
            Op::Lie(room, since) => self.ask(LIAR, room, Some(self.some_time(since)), false),
            Op::LieInTheDark(task, hidden_here, edit, since) => {
                self.fanout.leave_task(self.clients[LIAR].peer, &task_id(task));
                self.write(&[(task, Edit::Private(true))]);
                if hidden_here {
                    self.feed(usize::MAX);
                }
                self.write(&[(task, edit)]);
                self.write(&[(task, Edit::Private(false))]);
                self.clients[LIAR].pending.clear();
                self.ask(LIAR, Room::Task(task), Some(self.some_time(since)), false);
                self.answer(LIAR);
            }
            Op::Reconnect(client, since) => self.reconnect(client, since),
            Op::Move(behind, since, at_once) => self.move_all(behind, since, at_once),
            Op::Renew(client, org) => self.renew(client, org),
            Op::Read(client) => self.read(client),
            Op::Counts => drop(self.fanout.flush_counts()),
            Op::Cut => {
                if !self.fanout.clients.send_waiting() {
                    self.fanout.cut_slow();
                }
            }
            Op::Gap => {
                let (rooms, refreshed) = (self.members_of_posts(), self.refreshed(Posts::NAME));
                self.fanout.tasks.gap(&mut self.fanout.clients);
                assert!(self.fanout.tasks.rooms.is_empty());
                // The fan-out misses the changes that it has not got yet.
                self.fed = self.log.len();
                self.fanout.tasks.open(Position::end_of(self.time));
                // Nothing happens to the rooms of posts.
                assert_eq!((self.members_of_posts(), self.refreshed(Posts::NAME)), (rooms, refreshed));
            }
            Op::Posts(op) => self.run_posts(op),
        }
        self.follow_up();
    }

    /// Does what sessions do at once: a client that was disconnected reconnects, and a refresh asks for rooms like a join.
    fn follow_up(&mut self) {
        for index in 0..CLIENTS {
            let Flags { cut, refresh } =
                std::mem::take(&mut *self.clients[index].socket.flags.lock().unwrap());
            if cut {
                self.reconnect(index, true);
                continue;
            }
            if refresh.contains(Posts::NAME) {
                self.refresh_posts(index);
            }
            if refresh.contains(Tasks::NAME) {
                let (tasks, dashboard) = self.fanout.joined_rooms(self.clients[index].peer);
                for task in tasks {
                    self.ask(index, room_of(task.as_str()), None, true);
                }
                if dashboard {
                    self.ask(index, Room::Dashboard, None, true);
                }
            }
        }
    }

    /// The clients that have to enter their rooms of this stream again.
    fn refreshed(&self, stream: &str) -> Vec<PeerId> {
        let refreshed = |client: &&Client| client.socket.flags.lock().unwrap().refresh.contains(stream);
        self.clients.iter().filter(refreshed).map(|client| client.peer).collect()
    }

    /// The members of each room of tasks and dashboards.
    fn members_of_tasks(&self) -> BTreeMap<String, Vec<PeerId>> {
        posts::members(&self.fanout.tasks.rooms, |key| format!("{key:?}"))
    }

    fn document(&self, index: usize) -> Map<String, Value> {
        let Value::Object(map) = json!({
            "_id": format!("t{index}"), "title": "new", "status": "received", "createdBy": format!("u{}", index % 3),
            "orgId": "o0", "events": [],
        }) else {
            unreachable!()
        };
        map
    }

    fn write(&mut self, edits: &[(usize, Edit)]) {
        self.snapshots.push_back(self.snapshot());
        if self.snapshots.len() > 3 {
            self.snapshots.pop_front();
        }
        self.time += 1;
        for (ordinal, (index, edit)) in edits.iter().enumerate() {
            let id = task_id(*index);
            let before = self.tasks.get(&id).cloned();
            let after = self.edited(*index, before.as_ref(), edit);
            let position = Position::change(self.time, ordinal as u32);
            let timeline = match (&before, &after) {
                (_, None) => TimelineChange::Unchanged,
                (before, Some(after)) => {
                    let old = before.as_ref().map(|full| full.timeline.clone()).unwrap_or_default();
                    TimelineChange::between(&old, after.timeline.clone())
                }
            };
            let access = |full: &Option<FullTask>| full.as_ref().map(|full| full.task.access.clone());
            self.accesses.insert(position, (access(&before), access(&after)));
            self.log.push(Change {
                position,
                occurred_at: Timestamp::from_millis(self.time as i64).unwrap(),
                task: id.clone(),
                before: before.map(|full| full.task),
                after: after.as_ref().map(|full| full.task.clone()),
                timeline,
            });
            match after {
                Some(full) => self.tasks.insert(id, full),
                None => self.tasks.remove(&id),
            };
        }
    }

    fn edited(&self, index: usize, before: Option<&FullTask>, edit: &Edit) -> Option<FullTask> {
        let mut document = before.map_or_else(|| self.document(index), to_document);
        let stamp = Timestamp::from_millis(self.time as i64).unwrap().to_string();
        document.insert("updatedAt".into(), stamp.into());
        let mut set = |name: &str, value: Value| document.insert(name.into(), value);
        match edit {
            Edit::Status(status) => {
                set("status", STATUSES[*status].into());
                set("issueUrl", format!("url{}", self.time).into());
            }
            Edit::Title(n) => {
                set("title", format!("title {n}").into());
            }
            Edit::Private(private) => {
                set("isPrivate", (*private).into());
            }
            Edit::Creator(user) => {
                set("createdBy", format!("u{user}").into());
            }
            Edit::Org(org) => {
                set("orgId", format!("o{org}").into());
            }
            Edit::Append(n) => push(&mut document, usize::from(*n), self.time),
            Edit::Many => {
                set("status", STATUSES[self.time as usize % STATUSES.len()].into());
                push(&mut document, 150, self.time);
            }
            Edit::RewriteTimeline => {
                if let Some(Value::Array(events)) = document.get_mut("events") {
                    events.reverse();
                    events.truncate(2 * TIMELINE_LIMIT);
                }
            }
            Edit::Delete => return None,
        }
        Some(FullTask::from_document(document, &DefaultOrg(None)).unwrap())
    }

    fn feed(&mut self, n: usize) {
        for _ in 0..n {
            let Some(change) = self.log.get(self.fed) else { return };
            for step in translate(change, TIMELINE_LIMIT) {
                let (task, seen_by) = (step.task.clone(), step.after.clone());
                self.fanout.tasks.apply(step, &mut self.fanout.clients);
                let followed = self.fanout.tasks.rooms.get(&Key::Task(task)).map(|room| &room.subject);
                assert!(followed.is_none_or(|followed| followed.as_ref().unwrap().access == seen_by));
                self.wait_for_clients();
            }
            let change = &self.log[self.fed];
            self.fanout.tasks.advance(change.position.end_of_change());
            self.fed += 1;
        }
    }

    /// The feed loop waits for clients with full queues. The clients here then read at once.
    fn wait_for_clients(&mut self) {
        while !self.fanout.clients.send_waiting() {
            for client in 0..CLIENTS {
                self.read(client);
            }
        }
    }

    fn ask(&mut self, client: usize, room: Room, since: Option<Position>, refreshing: bool) {
        let snapshot = self.snapshot();
        self.clients[client].pending.push_back(Pending { room, since, refreshing, snapshot });
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { at: Position::end_of(self.time), tasks: self.tasks.clone() }
    }

    fn answer(&mut self, index: usize) {
        let Some(pending) = self.clients[index].pending.pop_front() else { return };
        let peer = self.clients[index].peer;
        let entry = match pending.room {
            Room::Task(task) => self.answer_task(peer, &task_id(task), &pending),
            Room::Dashboard => self.answer_dashboard(index, &pending),
        };
        match entry {
            EnterOutcome::Entered => {}
            // A read that began before the request may be too old, so it is repeated.
            EnterOutcome::Gone if pending.snapshot.at < Position::end_of(self.time) => {
                let snapshot = self.snapshot();
                self.clients[index].pending.push_front(Pending { snapshot, since: None, ..pending });
            }
            EnterOutcome::Gone => {
                // The ack.
                if let Room::Task(task) = pending.room {
                    self.fanout
                        .reply(peer, &Message::event("gone", &json!({"taskId": format!("t{task}")}), None));
                }
            }
            EnterOutcome::Reread => {
                let snapshot = self.snapshot();
                self.clients[index].pending.push_front(Pending { snapshot, ..pending });
            }
        }
    }

    fn answer_task(&mut self, peer: PeerId, task: &TaskId, pending: &Pending) -> EnterOutcome {
        if pending.refreshing && !self.fanout.has_joined(peer, task) {
            return EnterOutcome::Entered;
        }
        let full = pending.snapshot.tasks.get(task);
        let at = pending.snapshot.at;
        let state = full.map(|full| with_event_id(emitted::TASK_STATE, state_of(full), at));
        let offer = TaskOffer { task, access: full.map(|full| &full.task.access), at, state: state.as_ref() };
        if let Some(since) = pending.since
            && self.fanout.recover_task(peer, offer, since)
        {
            return EnterOutcome::Entered;
        }
        self.fanout.enter_task(peer, offer)
    }

    fn answer_dashboard(&mut self, index: usize, pending: &Pending) -> EnterOutcome {
        let client = &self.clients[index];
        if pending.refreshing && !self.fanout.joined_rooms(client.peer).1 {
            return EnterOutcome::Entered;
        }
        let viewer = &client.viewer;
        let at = pending.snapshot.at;
        let (list, org_counts, own_counts) = dashboard(&pending.snapshot.tasks, viewer);
        let state =
            Message::event(emitted::DASHBOARD_STATE, &json!({"tasks": list, "eventId": at.to_string()}), at);
        let offer = DashboardOffer {
            at,
            org_counts,
            own_counts,
            counts_in_reply: !pending.refreshing,
            state: Some(&state),
        };
        if let Some(since) = pending.since
            && self.fanout.recover_dashboard(client.peer, offer, since)
        {
            return EnterOutcome::Entered;
        }
        let peer = client.peer;
        let entry = self.fanout.enter_dashboard(peer, offer);
        if entry == EnterOutcome::Entered && offer.counts_in_reply {
            // The ack.
            let counts = serde_json::to_value(org_counts.plus(own_counts)).unwrap();
            self.fanout.reply(peer, &Message::event("ack", &counts, None));
        }
        entry
    }

    fn leave(&mut self, index: usize, room: Room) {
        // A session keeps the order of its client's requests.
        while !self.clients[index].pending.is_empty() {
            self.settle(index);
        }
        self.read_all(index);
        let client = &mut self.clients[index];
        client.last.remove(&room);
        match room {
            Room::Task(task) => {
                self.fanout.leave_task(client.peer, &task_id(task));
                client.tasks.remove(task_id(task).as_str());
            }
            Room::Dashboard => {
                self.fanout.leave_dashboard(client.peer);
                client.dashboard = None;
                client.counts = None;
            }
        }
    }

    fn settle(&mut self, index: usize) {
        self.answer(index);
        self.read_all(index);
        self.feed(1);
    }

    /// The messages in the queue of the old connection are lost if `since` is set. Otherwise the client has read them.
    fn reconnect(&mut self, index: usize, since: bool) {
        if !since {
            self.read(index);
        }
        let had_dashboard = self.fanout.remove_peer(self.clients[index].peer);
        let client = &self.clients[index];
        // A client that only asks for a resync gets the rooms that its last connection had.
        let asks_still = client.pending.iter().any(|pending| pending.room == Room::Dashboard);
        assert!(had_dashboard || asks_still || client.dashboard.is_none(), "a dashboard has been forgotten");
        self.reconnected(index, since);
    }

    /// Moves all clients to a node that starts late or is behind. The node has not got the events yet that clients have seen.
    fn move_all(&mut self, behind: usize, since: bool, at_once: bool) {
        if !since || at_once {
            (0..CLIENTS).for_each(|index| self.read(index));
        }
        let time = |index: usize| self.log.get(index).map(|change| change.position.time);
        let mut fed = self.fed.saturating_sub(behind);
        while fed > 0 && time(fed) == time(fed - 1) {
            fed -= 1;
        }
        let start = time(fed).map_or(Position::end_of(self.time), Position::before);
        self.fanout = new_fanout();
        self.fanout.tasks.open(start);
        self.fed = fed;
        self.move_posts(behind);
        for index in 0..CLIENTS {
            self.reconnected(index, since);
            let asked = self.clients[index].pending.len();
            (0..asked).filter(|_| at_once).for_each(|_| self.answer(index));
            let asked = self.clients[index].posts.pending.len();
            (0..asked).filter(|_| at_once).for_each(|_| self.answer_posts(index));
        }
    }

    fn some_time(&self, (ago, place): Since) -> Position {
        let time = self.time.saturating_add_signed(-ago);
        match place {
            Some((ordinal, index)) => Position { time, ordinal, index },
            None => Position::end_of(time),
        }
    }

    fn renew(&mut self, index: usize, org: usize) {
        self.read_all(index);
        let client = &mut self.clients[index];
        client.viewer.org = OrgId::parse(["o0", "o1", ""][org]);
        // A viewer of another organisation has another history.
        client.last.clear();
        client.pending.iter_mut().for_each(|pending| pending.since = None);
        client.posts.pending.iter_mut().for_each(|pending| pending.since = None);
        self.fanout.change_viewer(client.peer, client.viewer.clone());
    }

    fn reconnected(&mut self, index: usize, since: bool) {
        let viewer = self.clients[index].viewer.clone();
        let (peer, socket) = self.connect(&viewer);
        let client = &mut self.clients[index];
        let wanted: BTreeSet<Room> = (client.pending.drain(..).map(|pending| pending.room))
            .chain(client.tasks.keys().map(|id| room_of(id)))
            .chain(client.dashboard.iter().map(|_| Room::Dashboard))
            .collect();
        (client.peer, client.socket) = (peer, socket);
        for room in wanted {
            let last = self.clients[index].last.get(&room).copied();
            self.ask(index, room, if since { last } else { None }, false);
        }
        self.ask_posts_again(index, since);
    }

    fn read_all(&mut self, index: usize) {
        loop {
            self.read(index);
            if self.fanout.clients.send_waiting()
                && self.clients[index].socket.queue.lock().unwrap().is_empty()
            {
                return;
            }
            for other in 0..CLIENTS {
                self.read(other);
            }
        }
    }

    fn read(&mut self, index: usize) {
        let socket = &self.clients[index].socket;
        let messages: Vec<Message> = socket.queue.lock().unwrap().drain(..).collect();
        if messages.len() == socket.capacity {
            socket.space_reports.report_space(socket.id);
        }
        for message in messages {
            let Content::Event { name, payload, .. } = message.content() else { continue };
            let payload: Value = serde_json::from_str(payload).unwrap();
            if matches!(*name, posts::STATE | posts::POST | posts::RECOVERY) {
                self.clients[index].posts.take(name, &payload);
                continue;
            }
            self.check_audience(index, name, &payload);
            if index != LIAR {
                self.clients[index].take(name, payload);
            }
        }
    }

    fn check_audience(&self, index: usize, name: &str, payload: &Value) {
        if matches!(name, "ack" | "gone" | emitted::DASHBOARD_STATE | emitted::DASHBOARD_TASK_COUNT_CHANGED) {
            return;
        }
        let viewer = &self.clients[index].viewer;
        let position: Position = payload["eventId"].as_str().unwrap().parse().unwrap();
        let Some((before, after)) = self.accesses.get(&Position { index: 0, ..position }) else {
            // The event comes from a snapshot, and the view itself says who may see it.
            if name == emitted::TASK_STATE {
                let text = |name: &str| payload[name].as_str().unwrap_or_default();
                let access = Access {
                    creator: UserId::parse(text("createdBy")),
                    org: OrgId::parse(text("orgId")),
                    private: payload["isPrivate"] == json!(true),
                };
                assert!(access.allows(viewer), "{viewer:?} was sent {payload}");
            }
            return;
        };
        let ends = matches!(name, emitted::TASK_DELETED | emitted::DASHBOARD_TASK_REMOVED);
        assert_eq!(sees(after, viewer), !ends, "{viewer:?} was sent {name} {payload}");
        assert!(!ends || sees(before, viewer), "{viewer:?} never saw it, but got {name} {payload}");
    }
}

impl Client {
    /// The reference client: replaces its copy on a state, applies every other event.
    fn take(&mut self, name: &str, mut payload: Value) {
        if name == "ack" {
            self.counts = Some(payload);
            return;
        }
        if name == "gone" {
            let id = payload["taskId"].as_str().unwrap();
            self.tasks.remove(id);
            self.last.remove(&room_of(id));
            return;
        }
        let position: Position = payload["eventId"].as_str().expect("eventId").parse().expect("position");
        let id = payload["taskId"].as_str().unwrap_or_default().to_owned();
        let of_dashboard = name.starts_with("dashboard:") || name == emitted::TASK_CREATED;
        let room = if of_dashboard { Room::Dashboard } else { room_of(&id) };
        let last = self.last.insert(room, position);
        let is_state = matches!(name, emitted::TASK_STATE | emitted::DASHBOARD_STATE);
        if name == emitted::DASHBOARD_TASK_COUNT_CHANGED {
            assert!(last <= Some(position), "{name} {payload} after {last:?}");
        } else if !is_state {
            assert!(last < Some(position), "{name} {payload} after {last:?}");
        }
        match name {
            emitted::DASHBOARD_STATE => {
                let list = payload["tasks"].as_array().unwrap().iter();
                self.dashboard =
                    Some(list.map(|task| (task["_id"].as_str().unwrap().to_owned(), task.clone())).collect());
            }
            emitted::DASHBOARD_TASK_LIST_UPDATED => {
                strip(&mut payload);
                self.dashboard.as_mut().expect("in the dashboard").insert(id, payload);
            }
            emitted::DASHBOARD_TASK_REMOVED => {
                self.dashboard.as_mut().expect("in the dashboard").remove(&id);
            }
            emitted::DASHBOARD_TASK_COUNT_CHANGED => {
                strip(&mut payload);
                self.counts = Some(payload);
            }
            emitted::TASK_CREATED => assert!(self.dashboard.is_some()),
            emitted::TASK_STATE => {
                self.ended.remove(&room);
                strip(&mut payload);
                self.tasks.insert(id, payload);
            }
            emitted::TASK_DELETED => {
                // Its `eventId` stays the last one of the room. A client that returns with it may get `task:deleted` again.
                let had = self.tasks.remove(&id).is_some();
                assert!(had || self.ended.contains(&room), "deleted but not joined: {payload}");
                self.ended.insert(room);
            }
            _ => {
                assert!(!self.ended.contains(&room), "an event after the end: {name} {payload}");
                let copy = self.tasks.get_mut(&id).expect("an event of a room that was not joined");
                apply(copy, name, payload);
            }
        }
    }
}

fn apply(copy: &mut Value, name: &str, mut payload: Value) {
    strip(&mut payload);
    let Value::Object(map) = payload else { panic!("not an object") };
    for (key, value) in map {
        match key.as_str() {
            "event" if name == emitted::TASK_EVENT_ADDED => {
                copy["events"].as_array_mut().unwrap().push(value)
            }
            "changed" => {
                for (field, value) in value.as_object().unwrap() {
                    copy[field] = value.clone();
                }
            }
            "issueUrl" | "issueNumber" | "prUrl" | "prNumber" => {
                let mut other = format!("github{}", &key[..1].to_uppercase());
                other.push_str(&key[1..]);
                copy[other] = value.clone();
                copy[key] = value;
            }
            _ => copy[key] = value,
        }
    }
}

fn strip(payload: &mut Value) {
    let map = payload.as_object_mut().unwrap();
    map.remove("eventId");
    map.remove("occurredAt");
}

fn with_event_id(name: &'static str, view: Result<Value, serde_json::Error>, at: Position) -> Message {
    let mut view = view.unwrap();
    view["eventId"] = at.to_string().into();
    Message::event(name, &view, None)
}

fn state_of(full: &FullTask) -> Result<Value, serde_json::Error> {
    let (window, length) = (Window::newest(TIMELINE_LIMIT), full.timeline.len());
    let entries = full.timeline[window.range_in(length)].to_vec();
    serde_json::to_value(FullView(&FullTask::with_part(full.task.clone(), entries, window, length)))
}

/// The copy of a client that got `view` in a state without its older timeline entries.
fn without_omitted(mut view: Value, omitted: &Value) -> Value {
    if let Some(omitted) = omitted.as_u64() {
        view["events"].as_array_mut().unwrap().drain(..omitted as usize);
        view["eventsOmitted"] = omitted.into();
    }
    view
}

fn to_document(full: &FullTask) -> Map<String, Value> {
    let Value::Object(map) = serde_json::to_value(FullView(full)).unwrap() else { unreachable!() };
    map
}

fn push(document: &mut Map<String, Value>, n: usize, time: u64) {
    if let Some(Value::Array(events)) = document.get_mut("events") {
        events.extend((0..n).map(|i| json!({"eventType": format!("e{time}.{i}"), "payload": {}})));
    }
}

fn dashboard(tasks: &BTreeMap<TaskId, FullTask>, viewer: &Viewer) -> (Vec<Value>, Counts, Counts) {
    let (mut org_counts, mut own_counts, mut list) = (Counts::default(), Counts::default(), Vec::new());
    let visible = tasks.values().map(|full| &full.task).filter(|task| task.access.allows(viewer));
    for task in visible {
        list.push(serde_json::to_value(Summary(task)).unwrap());
        let public = task.access.public_org().is_some() && task.access.public_org() == viewer.org.as_ref();
        let counts = if public { &mut org_counts } else { &mut own_counts };
        counts.add(task.status().class(), 1);
    }
    (list, org_counts, own_counts)
}

fn without_updated_at(mut view: Value) -> Value {
    view.as_object_mut().unwrap().remove("updatedAt");
    view
}

fn check_end(world: &mut World) {
    for round in 0.. {
        assert!(round < 500, "does not settle");
        world.feed(usize::MAX);
        world.fanout.tasks.advance(Position::end_of(world.time));
        world.feed_posts(usize::MAX);
        for client in 0..CLIENTS {
            world.answer(client);
            world.answer_posts(client);
            world.read_all(client);
        }
        world.follow_up();
        world.fanout.flush_counts();
        if world.clients.iter().all(|client| client.pending.is_empty() && client.posts.pending.is_empty()) {
            break;
        }
    }
    for client in 0..CLIENTS {
        world.read_all(client);
    }
    for (key, room) in &world.fanout.tasks.rooms {
        if let (Key::Task(id), Some(followed)) = (key, &room.subject) {
            let access = world.tasks.get(id).map(|full| &full.task.access);
            assert_eq!(followed.access.as_ref(), access, "{id:?}");
        }
    }
    world.check_end_of_posts();
    for client in &world.clients[..LIAR] {
        for (id, copy) in &client.tasks {
            let full = world.tasks.get(&TaskId::parse(id).unwrap());
            let full = full.unwrap_or_else(|| panic!("{id} is gone, but {:?} has {copy}", client.viewer));
            let whole = serde_json::to_value(FullView(full)).unwrap();
            let expected = without_omitted(whole, &copy["eventsOmitted"]);
            assert_eq!(without_updated_at(copy.clone()), without_updated_at(expected));
            assert!(full.task.access.allows(&client.viewer), "{:?} has {copy}", client.viewer);
        }
        let (joined, in_dashboard) = world.fanout.joined_rooms(client.peer);
        let joined: BTreeSet<&str> = joined.iter().map(TaskId::as_str).collect();
        assert_eq!(joined, client.tasks.keys().map(String::as_str).collect(), "copies and rooms");
        assert_eq!(in_dashboard, client.dashboard.is_some());
        if let Some(copy) = &client.dashboard {
            let (list, org_counts, own_counts) = dashboard(&world.tasks, &client.viewer);
            let expected: BTreeMap<String, Value> =
                list.into_iter().map(|task| (task["_id"].as_str().unwrap().to_owned(), task)).collect();
            assert_eq!(copy, &expected);
            let counts = serde_json::to_value(org_counts.plus(own_counts)).unwrap();
            assert_eq!(client.counts.as_ref(), Some(&counts), "{:?}", client.viewer);
        }
    }
}

/// The counters that joins and leaves update are equal to the real numbers.
fn check_sizes(fanout: &Fanout<Socket>) {
    let sizes = fanout.sizes();
    let rooms = |which: fn(&Key) -> bool| fanout.tasks.rooms.iter().filter(move |(key, _)| which(key));
    let members = |which| rooms(which).map(|(_, room)| room.members.ids().count()).sum::<usize>();
    assert_eq!(sizes.task_rooms, rooms(|key| matches!(key, Key::Task(_))).count());
    assert_eq!(sizes.task_members, members(|key| matches!(key, Key::Task(_))));
    assert_eq!(sizes.dashboards, rooms(|key| matches!(key, Key::Org(_))).count());
    assert_eq!(sizes.dashboard_members, members(|key| matches!(key, Key::User(_))));
    assert!(fanout.tasks.rooms.values().all(|room| !room.members.is_empty()), "an empty room stays");
    assert_eq!(sizes.messages_behind, fanout.clients.overflows().map(|(_, waiting)| waiting).sum::<usize>());
    let mut slow = fanout.clients.overflows().filter(|(_, waiting)| *waiting > 0);
    assert!(slow.all(|(id, _)| fanout.clients.is_slow(id)), "an overflow is forgotten");
}

fn check_nothing_stays(world: &mut World) {
    for client in &world.clients {
        world.fanout.remove_peer(client.peer);
    }
    check_sizes(&world.fanout);
    let fanout = &world.fanout;
    assert!(!fanout.clients.any_is_slow() && !fanout.clients.must_wait());
    assert!(fanout.clients.is_empty() && fanout.tasks.has_nobody() && fanout.posts.has_nobody());
    assert!(fanout.tasks.kind.dashboards.is_empty());
    assert!(fanout.tasks.kind.counts.is_empty(), "counts without a dashboard");
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_copy_equals_the_store(ops in prop::collection::vec(op(), 1..120), capacity in 3..40usize) {
        let mut world = World::new(capacity);
        for op in ops {
            world.run(op);
            check_sizes(&world.fanout);
        }
        check_end(&mut world);
        check_nothing_stays(&mut world);
    }
}
