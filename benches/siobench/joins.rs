//! The requests that a client sends after it has connected.

use serde_json::json;

use crate::options::{Options, task_id};

/// The requests, and the number of states and acknowledgements that complete them.
#[derive(Debug, Default)]
pub struct Joins {
    pub packets: Vec<String>,
    pub states: usize,
    pub acks: usize,
}

impl Joins {
    /// One join request for the task and one for the dashboard.
    pub fn of(options: &Options, n: usize) -> Self {
        let mut packets = Vec::new();
        if let Some(task) = options.task_of(n) {
            packets.push(format!(r#"42["task:join",{{"taskId":"{}"}}]"#, task_id(task)));
        }
        if options.on_dashboard(n) {
            packets.push(r#"42["dashboard:join",{}]"#.to_owned());
        }
        Self { states: packets.len(), packets, acks: 0 }
    }

    /// One request for the same rooms after a reconnect.
    pub fn again(options: &Options, n: usize) -> Self {
        let ids: Vec<String> = options.task_of(n).map(task_id).into_iter().collect();
        let request = json!(["resync_requested", {"taskIds": ids, "dashboard": options.on_dashboard(n)}]);
        let states = ids.len() + usize::from(options.on_dashboard(n));
        Self { packets: vec![format!("420{request}")], states, acks: 1 }
    }

    /// One request for the task's events after the last one.
    pub fn since(options: &Options, n: usize, since: &str) -> Self {
        let ids: Vec<String> = options.task_of(n).map(task_id).into_iter().collect();
        let request = json!(["resync_requested", {"taskIds": ids, "since": since}]);
        Self { packets: vec![format!("420{request}")], states: 0, acks: 1 }
    }
}
