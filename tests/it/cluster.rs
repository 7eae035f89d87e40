//! Two nodes exchange through Redis which users lost the dashboard without leaving it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use taskcast::{
    cluster::{Cluster, ClusterConfig, LinkError, NodeCommand, NodeReport},
    task::UserId,
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::redis::Redis;

/// The longest time that a test waits for a state.
const DEADLINE: Duration = Duration::from_secs(60);
/// The key of the time at which Redis began to store data of this deployment.
const REDIS_BEGAN: &str = "taskcast:test.tasks:began";

/// One node. Its process is older than two minutes.
struct Node {
    cluster: Arc<Cluster>,
    membership: JoinHandle<Result<(), LinkError>>,
    _commands: mpsc::Receiver<NodeCommand>,
}

impl Node {
    async fn start(redis: &Redis, id: &'static str) -> Self {
        let config = ClusterConfig::new(&redis.url(), "test", "tasks").expect("a URL");
        let (sender, commands) = mpsc::channel(16);
        let started = Instant::now().checked_sub(Duration::from_secs(121)).expect("a time");
        let (cluster, membership) = Cluster::with_redis(config, 10, Arc::default(), sender, started);
        let membership = tokio::spawn(membership.run(move || report(id)));
        let node = Self { cluster, membership, _commands: commands };
        node.until("connected", async || node.cluster.is_connected()).await;
        node
    }

    /// The connection to Redis ends at once, and the node sends nothing more.
    async fn kill(self) {
        self.membership.abort();
        let _ = self.membership.await;
    }

    async fn may_have_lost(&self, name: &str) -> bool {
        self.cluster.may_have_lost_dashboard(&user(name)).await
    }

    /// Redis may need time for an answer on a loaded machine, and without an answer every user may have lost the dashboard. The
    /// answer is therefore requested again until it is the expected one.
    async fn until_lost(&self, name: &str, expected: bool, why: &str) {
        self.until(why, async || self.may_have_lost(name).await == expected).await;
    }

    async fn until(&self, what: &str, is_reached: impl AsyncFn() -> bool) {
        let waiting = async {
            while !is_reached().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }
}

fn report(id: &str) -> NodeReport {
    NodeReport { id: id.to_owned(), version: String::new(), connections: 0, lag_ms: 0 }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a user")
}

#[tokio::test]
async fn every_node_knows_who_lost_the_dashboard_on_another_node_without_leaving_it() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis, "a").await, Node::start(&redis, "b").await);
    assert!(b.may_have_lost("never").await, "Redis has no data about the last two minutes");
    redis.command(&format!("SET {REDIS_BEGAN} 0"));
    b.until_lost("never", false, "never had it").await;

    for (session, name) in [(1, "held"), (2, "left"), (3, "lost")] {
        a.cluster.opened(session, user(name));
        a.cluster.dashboard(session, true);
    }
    a.cluster.dashboard(2, false);
    a.cluster.ended(2, &user("left"), false);
    a.cluster.ended(3, &user("lost"), true);
    // The changes of a node arrive in their order, so the earlier ones have arrived, too.
    b.until_lost("lost", true, "lost it without leaving").await;
    for name in ["never", "held", "left"] {
        b.until_lost(name, false, name).await;
    }

    redis.freeze();
    assert!(b.may_have_lost("never").await, "Redis does not answer");
    redis.unfreeze();
    b.until("the nodes know of each other", async || {
        [&a, &b].iter().all(|node| node.cluster.nodes(report("a")).len() == 2)
    })
    .await;
    b.until_lost("never", false, "Redis answers again").await;
    b.until_lost("held", false, "its node is alive").await;

    a.kill().await;
    b.until_lost("held", true, "its node died").await;
    b.until_lost("left", false, "had left before").await;
}
