//! Compares cached counts of any moment with a complete count of the tasks at that moment.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    feed::TimelineChange,
    task::{DefaultOrg, Task, TaskId, Timestamp},
};

const TASKS: usize = 4;

/// The new state of a task: its creator, its organisation, whether it is private, and its status. `None` means that it is deleted.
type NewState = Option<(u8, u8, bool, u8)>;

#[derive(Clone, Debug)]
enum Action {
    Change {
        task: usize,
        new_state: NewState,
        /// The time since the previous change. With 0, both changes are in the same transaction.
        delay: u64,
    },
    /// The server has no more changes. The feed has then read all changes up to this time after the last change.
    Answer {
        delay: u64,
    },
    /// A request reads counts at this time after the last change, and they are cached.
    Cache {
        scope: usize,
        delay: u64,
    },
    /// A request for the counts of a moment this long ago.
    Request {
        scope: usize,
        ago: u64,
    },
    Gap,
}

fn action() -> impl Strategy<Value = Action> {
    let new_state = prop::option::weighted(0.9, (0..2_u8, 0..2_u8, any::<bool>(), 0..3_u8));
    prop_oneof![
        10 => (0..TASKS, new_state, 0..3_u64).prop_map(|(task, new_state, delay)| Action::Change { task, new_state, delay }),
        3 => (0..3_u64).prop_map(|delay| Action::Answer { delay }),
        4 => (0..7_usize, 0..4_u64).prop_map(|(scope, delay)| Action::Cache { scope, delay }),
        8 => (0..7_usize, 0..9_u64).prop_map(|(scope, ago)| Action::Request { scope, ago }),
        1 => Just(Action::Gap),
    ]
}

fn scope(n: usize) -> CountScope {
    let org = |n: usize| OrgId::parse(["acme", "other"][n % 2]);
    let user = |n: usize| UserId::parse(["alice", "bob"][n % 2]).expect("a user");
    match n {
        0 | 1 => CountScope::Org(org(n).expect("an organisation")),
        2 | 3 => CountScope::Own(user(n), None),
        _ => CountScope::Own(user(n), org(n / 2)),
    }
}

fn task(n: usize, new_state: NewState) -> Option<Task> {
    let (user, org, private, status) = new_state?;
    let (user, org) = (["alice", "bob"][usize::from(user)], ["acme", "other"][usize::from(org)]);
    let status = ["coding", "merged", "failed"][usize::from(status)];
    let document = json!({"_id": format!("t{n}"), "createdBy": user, "orgId": org, "isPrivate": private, "status": status});
    let fields = document.as_object().expect("an object").clone();
    Some(Task::from_document(fields, &DefaultOrg(None)).expect("a task"))
}

/// Counts by the definition: it checks every task.
fn count_by_definition(tasks: &[Option<Task>], scope: &CountScope) -> Counts {
    let mut counts = Counts::default();
    for task in tasks.iter().flatten() {
        let is_in_scope = match scope {
            CountScope::Org(org) => task.access.public_org() == Some(org),
            CountScope::Own(user, org) => {
                task.access.creator.as_ref() == Some(user)
                    && (task.access.private || task.access.org != *org || org.is_none())
            }
        };
        if is_in_scope {
            counts.add(task.status().class(), 1);
        }
    }
    counts
}

/// The tasks at each time. Each state is valid until the next time.
struct History(Vec<(u64, Vec<Option<Task>>)>);

impl History {
    fn at(&self, time: u64) -> &[Option<Task>] {
        let (_, tasks) = self.0.iter().rfind(|(at, _)| *at <= time).expect("the beginning is at 0");
        tasks
    }
}

fn token(n: u64) -> Document {
    mongodb::bson::doc! {"_data": n.to_string()}
}

/// Commits all changes of the actions first. A feed then reads the same changes one after the other.
fn run(actions: &[Action]) {
    let mut history = History(vec![(0, vec![None; TASKS])]);
    let mut changes = Vec::new();
    let (mut time, mut ordinal) = (100_u64, 0);
    for action in actions {
        let Action::Change { task: n, new_state, delay } = action else { continue };
        ordinal = if *delay == 0 { ordinal + 1 } else { 0 };
        time += delay;
        let mut tasks = history.at(time).to_vec();
        let (before, after) = (tasks[*n].clone(), task(*n, *new_state));
        tasks[*n].clone_from(&after);
        history.0.push((time, tasks));
        changes.push(Change {
            position: Position::change(time, ordinal),
            occurred_at: Timestamp::from_millis(0).expect("a time"),
            task: TaskId::parse(&format!("t{n}")).expect("an id"),
            before,
            after,
            timeline: TimelineChange::Unchanged,
        });
    }
    let (cached_counts, mut changes) = (CachedCounts::default(), changes.into_iter());
    cached_counts.opened(Position::before(100));
    let (mut read, mut opened) = (100, Position::before(100));
    for action in actions {
        match action {
            Action::Change { .. } => {
                let change = changes.next().expect("one for each");
                read = read.max(change.position.time);
                if change.position > opened {
                    cached_counts.change(&change);
                }
            }
            Action::Answer { delay } => {
                let next = changes.clone().next().map_or(u64::MAX, |change| change.position.time);
                let reached = (read + delay).min(next.saturating_sub(1));
                cached_counts.reached(Position::end_of(reached), Some(&token(reached)));
            }
            Action::Cache { scope: n, delay } => {
                let moment = read + delay;
                let counts = count_by_definition(history.at(moment), &scope(*n));
                cached_counts.keep(scope(*n), counts, Position::end_of(moment));
            }
            Action::Request { scope: n, ago } => {
                let moment = (read + 2).saturating_sub(*ago).max(100);
                let at = Position::end_of(moment);
                if let Some(counts) = cached_counts.at(&scope(*n), at) {
                    assert_eq!(
                        counts,
                        count_by_definition(history.at(moment), &scope(*n)),
                        "{:?} at {moment}",
                        scope(*n)
                    );
                    assert!(cached_counts.distance(at) == Distance::Reached);
                }
            }
            Action::Gap => {
                cached_counts.lost();
                assert!(cached_counts.at(&scope(0), Position::end_of(100)).is_none());
                opened = Position::end_of(read);
                cached_counts.opened(opened);
            }
        }
    }
}

/// MongoDB may need minutes for a count, while other clients write.
#[test]
fn counts_that_took_long_to_read_are_cached() {
    let (cached_counts, second) = (CachedCounts::default(), |n: u64| n << 32);
    cached_counts.opened(Position::before(second(100)));
    let created = |n: u64| Change {
        position: Position::change(second(n), 0),
        occurred_at: Timestamp::from_millis(0).expect("a time"),
        task: TaskId::parse("t").expect("an id"),
        before: None,
        after: task(1, Some((0, 0, false, 0))),
        timeline: TimelineChange::Unchanged,
    };
    (101..=220).for_each(|n| cached_counts.change(&created(n)));
    cached_counts.keep(scope(0), Counts::default(), Position::end_of(second(100)));
    for (moment, active) in [(100, 0), (101, 1), (220, 120)] {
        let counts = cached_counts.at(&scope(0), Position::change(second(moment), 0));
        assert_eq!(counts.map(|counts| counts.active), Some(active), "at {moment}");
    }
}

/// A feed that still reads old changes does not reach the moment soon.
#[test]
fn no_request_waits_for_a_feed_that_is_far_behind() {
    let (cached_counts, at) = (CachedCounts::default(), |second: u64| Position::end_of(second << 32));
    assert_eq!(cached_counts.distance(at(100)), Distance::TooFar, "no feed reads the changes");
    cached_counts.opened(at(100));
    assert_eq!(cached_counts.distance(at(100)), Distance::Reached);
    assert_eq!(cached_counts.distance(at(101)), Distance::Reading);
    assert_eq!(cached_counts.distance(at(103)), Distance::TooFar);
    cached_counts.reached(at(102), None);
    assert_eq!(cached_counts.distance(at(103)), Distance::Reading);
    cached_counts.reached(at(102), Some(&token(102)));
    assert_eq!(
        cached_counts.distance(at(200)),
        Distance::Behind(token(102)),
        "another reader can check for changes"
    );
}

proptest! {
    #[test]
    fn counts_are_those_of_their_moment(actions in prop::collection::vec(action(), 0..60)) {
        run(&actions);
    }
}
