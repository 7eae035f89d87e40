//! A second kind, which only the tests have: posts in channels. Clients join patterns of channels. It shares the fan-out, the
//! clients and their queues with the tasks, and has its own log, its own positions and its own gaps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CLIENTS, Client, LIAR, World};
use crate::{
    fanout::{Effect, EnterOutcome, FanoutStep, Kind, Mark, PeerId, handoff::Offer, kind::Key},
    feed::{Event, Position},
    task::{Timestamp, Viewer},
    wire::Message,
};

const CHANNELS: [&str; 3] = ["a.x", "a.y", "b.x"];
const PATTERNS: [&str; 6] = ["a.x", "a.y", "b.x", "a.*", "b.*", "*"];
pub(super) const STATE: &str = "posts:state";
pub(super) const POST: &str = "post";
/// The posts of this pattern after the client's `since` follow, or a state.
pub(super) const RECOVERY: &str = "posts:recovery";

#[derive(Debug)]
pub(in crate::fanout) struct Posts;

/// Some posts in one channel. They are published together.
#[derive(Clone, Debug)]
pub(in crate::fanout) struct Published {
    position: Position,
    channel: &'static str,
    events: Vec<Event>,
}

impl FanoutStep for Published {
    type Key = &'static str;

    fn position(&self) -> Position {
        self.position
    }

    fn occurred_at(&self) -> Timestamp {
        Timestamp::from_millis(self.position.time as i64).unwrap()
    }

    fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.events.iter().map(|event| event.message.held_bytes()).sum::<usize>()
    }

    fn keys(&self) -> impl Iterator<Item = &'static str> {
        PATTERNS.into_iter().filter(|pattern| matches(pattern, self.channel))
    }
}

impl Kind for Posts {
    type Step = Published;
    type Subject = ();

    const NAME: &'static str = "posts";

    fn effects<'a>(step: &'a Published, _: &'a Key<Self>) -> impl Fn(&Viewer, &Mark) -> Effect<'a> {
        |_, _| Effect::Deliver(&step.events)
    }

    fn have_same_events(_: &Key<Self>, _: &Key<Self>) -> bool {
        true
    }
}

fn matches(pattern: &str, channel: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == channel, |prefix| channel.starts_with(prefix))
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// This many posts are published in a channel.
    Publish(usize, u32),
    /// The fan-out gets this many steps.
    Feed(usize),
    /// A client joins some patterns together. Its read began this many steps ago.
    Join(usize, Vec<usize>, usize),
    /// A client joins a pattern with the last post that it has of it.
    Since(usize, usize),
    /// The oldest pending request of a client gets its answer.
    Answer(usize),
    Leave(usize, usize),
    Gap,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let (client, pattern) = (0..LIAR, 0..PATTERNS.len());
    prop_oneof![
        4 => (0..CHANNELS.len(), 1..4u32).prop_map(|(c, n)| Op::Publish(c, n)),
        3 => (1..4usize).prop_map(Op::Feed),
        3 => (client.clone(), prop::collection::vec(pattern.clone(), 1..4), 0..4usize)
            .prop_map(|(c, p, ago)| Op::Join(c, p, ago)),
        1 => (client.clone(), pattern.clone()).prop_map(|(c, p)| Op::Since(c, p)),
        3 => client.clone().prop_map(Op::Answer),
        1 => (client, pattern).prop_map(|(c, p)| Op::Leave(c, p)),
        1 => Just(Op::Gap),
    ]
}

/// All posts, and how far the fan-out is.
#[derive(Debug, Default)]
pub(super) struct Board {
    log: Vec<Published>,
    /// The number of steps in the log that the fan-out has got.
    fed: usize,
}

impl Board {
    /// The position after this number of steps. Each has its own time.
    fn position(steps: usize) -> Position {
        Position::end_of(steps as u64)
    }

    /// The ids of the posts that a client with this pattern has, among the first `steps` in the log.
    fn posts(&self, steps: usize, pattern: &str) -> Vec<Value> {
        let of_pattern = self.log[..steps].iter().filter(|step| matches(pattern, step.channel));
        of_pattern.flat_map(|step| &step.events).map(|event| json!(event.position.to_string())).collect()
    }
}

/// What a client has asked of the posts, and its copies.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub pending: VecDeque<Pending>,
    copies: BTreeMap<&'static str, Vec<Value>>,
    /// The patterns that this connection has been sent. The other copies are of an earlier connection.
    entered: BTreeSet<&'static str>,
    last: BTreeMap<&'static str, Position>,
}

#[derive(Clone, Debug)]
pub(super) struct Pending {
    patterns: Vec<&'static str>,
    pub since: Option<Position>,
    refreshing: bool,
    /// The number of steps in the log when it was read.
    snapshot: usize,
}

impl World {
    pub(super) fn run_posts(&mut self, op: Op) {
        match op {
            Op::Publish(channel, posts) => self.publish(CHANNELS[channel], posts),
            Op::Feed(n) => self.feed_posts(n),
            Op::Join(client, mut patterns, ago) => {
                patterns.sort_unstable();
                patterns.dedup();
                let patterns = patterns.into_iter().map(|pattern| PATTERNS[pattern]).collect();
                self.ask_posts(client, patterns, None, false);
                if let Some(pending) = self.clients[client].posts.pending.back_mut() {
                    pending.snapshot = pending.snapshot.saturating_sub(ago);
                }
            }
            Op::Since(client, pattern) => {
                let pattern = PATTERNS[pattern];
                let since = self.clients[client].posts.last.get(pattern).copied();
                self.ask_posts(client, vec![pattern], since, false);
            }
            Op::Answer(client) => self.answer_posts(client),
            Op::Leave(client, pattern) => self.leave_posts(client, PATTERNS[pattern]),
            Op::Gap => self.gap_in_posts(),
        }
    }

    fn publish(&mut self, channel: &'static str, posts: u32) {
        let change = Position::change(self.board.log.len() as u64 + 1, 0);
        let event = |index| {
            let position = change.with_index(index);
            let payload = json!({"channel": channel, "eventId": position.to_string()});
            Event { name: POST, position, message: Message::event(POST, &payload, position) }
        };
        let events = (0..posts).map(event).collect();
        self.board.log.push(Published { position: change.end_of_change(), channel, events });
    }

    pub(super) fn feed_posts(&mut self, n: usize) {
        for _ in 0..n {
            let Some(step) = self.board.log.get(self.board.fed).cloned() else { return };
            self.fanout.posts.apply(step, &mut self.fanout.clients);
            self.board.fed += 1;
            self.fanout.posts.advance(Board::position(self.board.fed));
            self.wait_for_clients();
        }
    }

    fn ask_posts(
        &mut self,
        client: usize,
        patterns: Vec<&'static str>,
        since: Option<Position>,
        refreshing: bool,
    ) {
        let snapshot = self.board.log.len();
        self.clients[client].posts.pending.push_back(Pending { patterns, since, refreshing, snapshot });
    }

    pub(super) fn answer_posts(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(mut pending) = client.posts.pending.pop_front() else { return };
        let peer = client.peer;
        if pending.refreshing {
            pending.patterns.retain(|pattern| self.fanout.posts.has_joined(peer, pattern));
        }
        let (keys, at) = (&pending.patterns, Board::position(pending.snapshot));
        let offer = Offer { keys, subject: &(), at };
        for pattern in keys.iter().filter(|_| pending.since.is_some()) {
            self.fanout.reply(peer, &Message::event(RECOVERY, pattern, None));
        }
        if let Some(since) = pending.since
            && self.fanout.posts.recover(peer, &offer, since, &mut self.fanout.clients)
        {
            return;
        }
        let posts: BTreeMap<&str, Vec<Value>> =
            keys.iter().map(|pattern| (*pattern, self.board.posts(pending.snapshot, pattern))).collect();
        let state = Message::event(STATE, &json!({"posts": posts, "eventId": at.to_string()}), at);
        match self.fanout.posts.enter(peer, &offer, &state, &mut self.fanout.clients) {
            EnterOutcome::Entered => {}
            EnterOutcome::Gone => panic!("posts are never gone"),
            EnterOutcome::Reread => {
                pending.snapshot = self.board.log.len();
                self.clients[index].posts.pending.push_front(pending);
            }
        }
    }

    fn leave_posts(&mut self, index: usize, pattern: &'static str) {
        // A session keeps the order of its client's requests.
        while !self.clients[index].posts.pending.is_empty() {
            self.answer_posts(index);
            self.read_all(index);
            self.feed_posts(1);
        }
        self.read_all(index);
        let Client { posts, peer, .. } = &mut self.clients[index];
        posts.copies.remove(pattern);
        posts.entered.remove(pattern);
        posts.last.remove(pattern);
        self.fanout.posts.leave(*peer, &pattern);
    }

    /// The posts of the gap are in no event. Nothing happens to the rooms of tasks.
    fn gap_in_posts(&mut self) {
        let (rooms, refreshed) = (self.members_of_tasks(), self.refreshed("tasks"));
        self.fanout.posts.gap(&mut self.fanout.clients);
        assert!(self.fanout.posts.rooms.is_empty());
        self.board.fed = self.board.log.len();
        self.fanout.posts.open(Board::position(self.board.fed));
        assert_eq!((self.members_of_tasks(), self.refreshed("tasks")), (rooms, refreshed));
    }

    /// The members of each pattern.
    pub(super) fn members_of_posts(&self) -> BTreeMap<&'static str, Vec<PeerId>> {
        members(&self.fanout.posts.rooms, |key| *key)
    }

    /// Asks for the patterns again that the client has joined.
    pub(super) fn refresh_posts(&mut self, index: usize) {
        let joined = self.fanout.posts.joined(self.clients[index].peer).copied().collect();
        self.ask_posts(index, joined, None, true);
    }

    /// A new connection asks for everything again.
    pub(super) fn ask_posts_again(&mut self, index: usize, since: bool) {
        let reader = &mut self.clients[index].posts;
        reader.entered.clear();
        let mut patterns: Vec<&str> = reader.copies.keys().copied().collect();
        patterns.extend(reader.pending.drain(..).flat_map(|pending| pending.patterns));
        patterns.sort_unstable();
        patterns.dedup();
        for pattern in patterns {
            let last = self.clients[index].posts.last.get(pattern).copied();
            self.ask_posts(index, vec![pattern], last.filter(|_| since), false);
        }
    }

    /// The new fan-out has not got the last posts.
    pub(super) fn move_posts(&mut self, behind: usize) {
        self.board.fed = self.board.fed.saturating_sub(behind);
        self.fanout.posts.open(Board::position(self.board.fed));
    }

    pub(super) fn check_end_of_posts(&self) {
        for client in &self.clients[..LIAR] {
            for (pattern, copy) in &client.posts.copies {
                assert_eq!(copy, &self.board.posts(self.board.log.len(), pattern), "{pattern}");
            }
            let mut joined: Vec<&str> = self.fanout.posts.joined(client.peer).copied().collect();
            joined.sort_unstable();
            assert_eq!(joined, client.posts.copies.keys().copied().collect::<Vec<_>>());
        }
        assert_eq!(self.clients.len(), CLIENTS);
    }
}

impl Reader {
    /// The reference client: replaces its copies on a state, and appends every other post to the copies that it belongs to.
    pub fn take(&mut self, name: &str, payload: &Value) {
        let known = |pattern: &str| PATTERNS.into_iter().find(|known| *known == pattern).unwrap();
        if name == RECOVERY {
            self.entered.insert(known(payload.as_str().unwrap()));
            return;
        }
        let position: Position = payload["eventId"].as_str().unwrap().parse().unwrap();
        if name == STATE {
            for (pattern, posts) in payload["posts"].as_object().unwrap() {
                let pattern = known(pattern);
                self.entered.insert(pattern);
                self.copies.insert(pattern, posts.as_array().unwrap().clone());
                self.last.insert(pattern, position);
            }
            return;
        }
        let channel = payload["channel"].as_str().unwrap();
        let mut is_new = false;
        let entered = |pattern: &str| self.entered.contains(pattern) && matches(pattern, channel);
        for (pattern, copy) in self.copies.iter_mut().filter(|(pattern, _)| entered(pattern)) {
            if self.last.get(pattern).is_none_or(|last| *last < position) {
                copy.push(payload["eventId"].clone());
                self.last.insert(pattern, position);
                is_new = true;
            }
        }
        assert!(is_new, "{payload} was sent twice or was not asked for");
    }
}

/// The members of rooms, in an order that two calls can compare.
pub(super) fn members<K: Kind, T: Ord>(
    rooms: &crate::shrinking_map::ShrinkingMap<Key<K>, crate::fanout::stream::Room<K>>,
    name: impl Fn(&Key<K>) -> T,
) -> BTreeMap<T, Vec<PeerId>> {
    let ids = |room: &crate::fanout::stream::Room<K>| {
        let mut ids: Vec<PeerId> = room.members.ids().collect();
        ids.sort_unstable();
        ids
    };
    rooms.iter().map(|(key, room)| (name(key), ids(room))).collect()
}
