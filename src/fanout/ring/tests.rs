//! Compares the index of the ring with a scan of all steps.

use proptest::prelude::*;

use super::*;
use crate::{
    fanout::tasks::{Key, accesses},
    feed::{CountChange, Event, Step},
    task::{Access, OrgId, StatusClass, TaskId, Timestamp, UserId, Viewer},
    wire::Message,
};

#[derive(Clone, Debug)]
struct Plan {
    task: u8,
    before: Option<Access>,
    after: Option<Access>,
    room: bool,
    listed: bool,
    unlisted: bool,
    counted: bool,
    bytes: usize,
}

fn access() -> impl Strategy<Value = Option<Access>> {
    let name = |prefix: &'static str| prop::option::of((0..3u8).prop_map(move |n| format!("{prefix}{n}")));
    prop::option::of((name("u"), name("o"), any::<bool>()).prop_map(|(user, org, private)| Access {
        creator: user.and_then(|user| UserId::parse(&user)),
        org: org.and_then(|org| OrgId::parse(&org)),
        private,
    }))
}

fn plan() -> impl Strategy<Value = Plan> {
    let same_or_not = (access(), access(), any::<bool>())
        .prop_map(|(before, after, same)| (before.clone(), if same { before } else { after }));
    (0..4u8, same_or_not, any::<[bool; 4]>(), 0..400usize).prop_map(
        |(task, (before, after), [room, listed, unlisted, counted], bytes)| Plan {
            task,
            before,
            after,
            room,
            listed,
            unlisted,
            counted,
            bytes,
        },
    )
}

fn step(time: u64, plan: &Plan) -> Step {
    let event = || Event {
        name: "event",
        position: Position::change(time, 0),
        message: Message::event("event", &"x".repeat(plan.bytes), None),
    };
    let class = |access: &Option<Access>| {
        access.clone().filter(|_| plan.counted).map(|access| (access, StatusClass::Active))
    };
    Step {
        position: Position::change(time, 0).end_of_change(),
        occurred_at: Timestamp::from_millis(1).unwrap(),
        task: TaskId::parse(&format!("t{}", plan.task)).unwrap(),
        before: plan.before.clone(),
        after: plan.after.clone(),
        ended: None,
        room: plan.room.then(event).into_iter().collect(),
        listed: plan.listed.then(event).into_iter().collect(),
        unlisted: plan.unlisted.then(event),
        counted: CountChange { from: class(&plan.before), to: class(&plan.after) },
    }
}

fn push(ring: &mut Ring<Step>, step: Step) {
    let keys = step.keys().collect();
    ring.push(step, keys);
}

/// The rooms of a viewer's dashboard.
fn dashboard(viewer: &Viewer) -> Vec<Key> {
    viewer.org.clone().map(Key::Org).into_iter().chain([Key::User(viewer.user.clone())]).collect()
}

fn times<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<u64> {
    steps.map(|step| step.position.time).collect()
}

proptest! {
    /// The index finds the same steps as a scan of all steps.
    #[test]
    fn the_index_finds_the_same_steps_as_a_scan(
        plans in prop::collection::vec(plan(), 0..60),
        since in 0..60u64,
        max_bytes in 2_000..60_000usize,
        closed_at in prop::option::of(0..60usize),
    ) {
        let mut ring = Ring::new(max_bytes);
        ring.open(Position::ZERO);
        for (n, plan) in plans.iter().enumerate() {
            if closed_at == Some(n) {
                ring.open(Position::end_of(n as u64));
            }
            push(&mut ring, step(n as u64 + 1, plan));
            prop_assert!(ring.bytes <= max_bytes);
        }
        let after = Position::end_of(since);
        let held: Vec<&Step> = ring.steps.iter().map(|(step, _)| step).filter(|step| step.position > after).collect();
        let looked_at = |wanted: &dyn Fn(&Step) -> bool| times(held.iter().copied().filter(|step| wanted(step)));
        for n in 0..4 {
            let task = TaskId::parse(&format!("t{n}")).unwrap();
            let wanted = looked_at(&|step| step.task == task && (!step.room.is_empty() || step.before != step.after));
            let key = Key::Task(task);
            prop_assert_eq!(&times(ring.of(&key, after)), &wanted);
            let backwards = times(ring.of(&key, after).rev());
            prop_assert_eq!(backwards, wanted.into_iter().rev().collect::<Vec<_>>());
        }
        for (user, org) in (0..3).flat_map(|user| (0..4).map(move |org| (user, org))) {
            let viewer = Viewer {
                user: UserId::parse(&format!("u{user}")).unwrap(),
                org: OrgId::parse(&format!("o{org}")).filter(|_| org < 3),
            };
            // The index has to find every step that gives this viewer an event or changes its counts.
            let concerns = |step: &Step| {
                let sides = [step.before.as_ref(), step.after.as_ref()];
                let sees = sides.into_iter().flatten().any(|access| access.allows(&viewer));
                sees && (!step.listed.is_empty() || step.unlisted.is_some() || step.counted.from != step.counted.to)
            };
            prop_assert_eq!(times(ring.of_any(&dashboard(&viewer), after)), looked_at(&concerns));
            let of_user = looked_at(&|step| concerns(step) && accesses(step).any(|access| access.creator.as_ref() == Some(&viewer.user)));
            prop_assert_eq!(times(ring.of(&Key::User(viewer.user.clone()), after)), of_user);
            let of_org = looked_at(&|step| concerns(step) && accesses(step).any(|access| access.public_org().is_some() && access.public_org() == viewer.org.as_ref()));
            let org = viewer.org.clone().map(Key::Org);
            prop_assert_eq!(times(ring.of_any(org.as_slice(), after)), of_org);
        }
    }
}

/// The cost of a join with an old `since` depends only on the steps that concern its room.
#[test]
fn a_join_reads_only_the_steps_that_concern_its_room() {
    const OTHERS: u64 = 20_000;
    let mut ring = Ring::new(1 << 30);
    ring.open(Position::ZERO);
    let seen_by = |user: &str, org: &str| {
        Some(Access { creator: UserId::parse(user), org: OrgId::parse(org), private: false })
    };
    let plan = |task, access: Option<Access>| Plan {
        task,
        before: access.clone(),
        after: access,
        room: true,
        listed: true,
        unlisted: false,
        counted: false,
        bytes: 10,
    };
    for time in 1..=OTHERS {
        let ours = time % 1000 == 0;
        let access = if ours { seen_by("ann", "acme") } else { seen_by("bob", "other") };
        push(&mut ring, step(time, &plan(u8::from(ours), access)));
    }
    let task = TaskId::parse("t1").unwrap();
    let viewer = Viewer { user: UserId::parse("ann").unwrap(), org: OrgId::parse("acme") };
    let ours = OTHERS as usize / 1000;
    let start = ring.number_after(Position::end_of(1));
    // These iterators give the numbers of the steps, and a join reads no other steps.
    let task = Key::Task(task);
    assert_eq!(ring.index.from(&task, start).count(), ours);
    assert_eq!(ring.index.from(&Key::User(viewer.user.clone()), start).count(), ours);
    assert_eq!(ring.of_any(&dashboard(&viewer), Position::end_of(1)).count(), ours);
    assert_eq!(ring.index.from(&task, start + OTHERS / 2).count(), ours / 2);
}

/// The entries of the index are removed together with their steps.
#[test]
fn the_index_has_no_entries_of_removed_steps() {
    let mut ring = Ring::new(20_000);
    ring.open(Position::ZERO);
    for time in 1..5_000u64 {
        let access = Some(Access {
            creator: UserId::parse(&format!("u{time}")),
            org: OrgId::parse(&format!("o{time}")),
            private: false,
        });
        let plan = Plan {
            task: (time % 200) as u8,
            before: None,
            after: access,
            room: true,
            listed: true,
            unlisted: false,
            counted: true,
            bytes: 100,
        };
        push(&mut ring, step(time, &plan));
        assert_eq!(ring.index.entries(), 3 * ring.steps.len());
    }
    assert!(ring.steps.len() < 30 && ring.bytes <= 20_000);
    ring.close();
    assert_eq!(ring.index.entries(), 0);
}
