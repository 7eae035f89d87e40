//! The arguments: `siobench <scenario> --key value …`

use std::{collections::HashMap, net::SocketAddr};

use serde_json::{Value, json};

#[derive(Debug)]
pub struct Options {
    /// One server, or the nodes of a cluster. Client n connects to node n modulo their number.
    pub urls: Vec<SocketAddr>,
    /// The server processes whose memory and CPU time are measured.
    pub pids: Vec<u32>,
    pub mongod_pid: Vec<u32>,
    pub secret: String,
    pub conns: usize,
    /// The number of connections that are opened at the same time.
    pub at_once: usize,
    /// The numbers of connections at which memory is measured.
    pub stages: Vec<usize>,
    /// The share of clients that join the dashboard.
    pub dash: f64,
    /// The number of tasks in the store. Client n joins task n modulo this number. 0 means that no client joins a task.
    pub tasks: usize,
    /// The number of organisations. It must divide `tasks`, so that each client may see its task.
    pub orgs: usize,
    pub rate: f64,
    pub secs: f64,
    pub warm: f64,
    pub hold: f64,
    /// The seconds in which the server may release memory after the last storm.
    pub settle: f64,
    /// The number of bytes that each write has in addition to the marker.
    pub pad: usize,
    /// The number of events in flight in a closed loop.
    pub window: u64,
    /// The milliseconds that 99 of 100 deliveries may take in a sweep.
    pub p99: f64,
    pub rounds: usize,
    pub every: f64,
    pub away: f64,
    /// The MongoDB URI to which events are written. `None` means that events are sent to the server by `POST`.
    pub mongo: Option<String>,
    pub db: String,
    pub write: Write,
    pub recovery: Recovery,
}

/// The fields that one write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The title: one event in the task's room.
    Title,
    /// Status, title and a timeline entry: three events in the room.
    Full,
}

/// How a client gets the events that it missed while it was disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// `resync_requested` with the last `eventId`.
    Since,
    /// Socket.IO's connection state recovery.
    Library,
}

impl Options {
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<(String, Self), String> {
        let scenario = args.next().unwrap_or_default();
        let rest: Vec<String> = args.collect();
        let mut arguments = HashMap::new();
        for pair in rest.chunks(2) {
            let [key, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
            arguments.insert(key.trim_start_matches('-').to_owned(), value.clone());
        }
        let mut text = |key: &str, default: &str| arguments.remove(key).unwrap_or_else(|| default.to_owned());
        let options = Self {
            urls: list(&text("url", "127.0.0.1:3000"))?,
            pids: list(&text("pid", ""))?,
            mongod_pid: list(&text("mongod-pid", ""))?,
            secret: text("secret", ""),
            conns: parse_value(&text("conns", "1000"))?,
            at_once: parse_value(&text("at-once", "64"))?,
            stages: list(&text("stages", "1000,5000,10000"))?,
            dash: parse_value(&text("dash", "0"))?,
            tasks: parse_value(&text("tasks", "1"))?,
            orgs: parse_value(&text("orgs", "1"))?,
            rate: parse_value(&text("rate", "10"))?,
            secs: parse_value(&text("secs", "6"))?,
            warm: parse_value(&text("warm", "2"))?,
            hold: parse_value(&text("hold", "3"))?,
            settle: parse_value(&text("settle", "10"))?,
            pad: parse_value(&text("pad", "200"))?,
            window: parse_value(&text("window", "8"))?,
            p99: parse_value(&text("p99", "200"))?,
            rounds: parse_value(&text("rounds", "10"))?,
            every: parse_value(&text("every", "15"))?,
            away: parse_value(&text("away", "2"))?,
            mongo: Some(text("mongo", "")).filter(|uri| !uri.is_empty()),
            db: text("db", "bench"),
            write: if text("write", "title") == "full" { Write::Full } else { Write::Title },
            recovery: if text("recovery", "since") == "library" {
                Recovery::Library
            } else {
                Recovery::Since
            },
        };
        match arguments.keys().next() {
            Some(unknown) => Err(format!("unknown option --{unknown}")),
            None => Ok((scenario, options)),
        }
    }

    pub fn on_dashboard(&self, n: usize) -> bool {
        (n as f64) < self.dash * self.conns as f64
    }

    pub fn task_of(&self, n: usize) -> Option<usize> {
        (self.tasks > 0).then(|| n % self.tasks)
    }

    pub fn org_of(&self, n: usize) -> usize {
        n % self.orgs
    }

    /// The claims of client n. Each connection has its own user.
    pub fn claims(&self, n: usize) -> Value {
        json!({"sub": format!("u{n}"), "orgId": format!("o{}", self.org_of(n)), "name": format!("User {n}"), "exp": 4_102_444_800_u64})
    }
}

/// The id of task `k`, as 12 bytes in hexadecimal.
pub fn task_id(k: usize) -> String {
    format!("{:024x}", k + 1)
}

fn parse_value<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("invalid value: {text}"))
}

fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').filter(|part| !part.is_empty()).map(parse_value).collect()
}
