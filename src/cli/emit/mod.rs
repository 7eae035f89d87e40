//! `taskcast emit`: reports activity events to a running gateway.
//!
//! Every event gets an idempotency key, unless it has one. A report without an answer is sent again, and nothing is stored twice. While the
//! gateway can't be reached, standard input is not read, so that its writer waits.

mod lines;
mod outcome;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{
    CliError,
    credentials::{Credentials, LoginArguments},
    gateway_url::GatewayUrl,
    http_request::post,
    stdin::read_stdin,
};
use crate::{backoff::Backoff, config::Sources, json::replace_lone_surrogates};
use lines::{Line, read_lines};
use outcome::Outcome;

const SCOPE: &str = "events:write";
/// One request reports at most this many events, of about this size. The gateway accepts more; smaller requests show progress earlier.
const MAX_BATCH: usize = 500;
const MAX_BATCH_BYTES: usize = 256 * 1024;
/// Between two attempts to send a request.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// A single event is tried this many times, which takes about six seconds if the gateway refuses connections. A stream of events is tried
/// for ever.
const SINGLE_ATTEMPTS: u32 = 6;

#[derive(Clone, Debug)]
pub struct EmitArguments {
    pub event_type: Option<String>,
    pub payload: Option<String>,
    pub ndjson: bool,
    pub project: Option<String>,
    pub source: Option<String>,
    pub id: Option<String>,
    pub url: Option<String>,
    pub login: LoginArguments,
}

/// Reports one event, or those of standard input until it ends. Returns a text that says how many were stored.
pub async fn emit(arguments: EmitArguments, sources: &Sources) -> Result<String, CliError> {
    let credentials = Credentials::of(&arguments.login, sources, "taskcast-emit", Some(SCOPE))?;
    if let Some(user) = credentials.user_without_org() {
        note(&format!("only the user {user:?} sees these events: use --org to report to an organisation"));
    }
    let gateway = GatewayUrl::of(arguments.url.as_deref(), sources)?;
    let max_attempts = if arguments.ndjson { u32::MAX } else { SINGLE_ATTEMPTS };
    let emitter = Emitter { gateway, credentials, max_attempts, stored: 0, duplicates: 0, refused: 0 };
    match arguments.ndjson {
        true => emitter.stream(read_lines(io::stdin())).await,
        false => emitter.single(arguments).await,
    }
}

struct Emitter {
    gateway: GatewayUrl,
    credentials: Credentials,
    /// How often a request is sent before the command fails.
    max_attempts: u32,
    stored: u64,
    duplicates: u64,
    refused: u64,
}

/// An event, and the number of its line.
struct Numbered {
    number: u64,
    json: String,
}

impl Emitter {
    async fn single(mut self, arguments: EmitArguments) -> Result<String, CliError> {
        let text = match arguments.payload.filter(|text| text != "-") {
            Some(text) => text,
            None => read_stdin().await.map_err(|error| CliError::Refused(error.to_string()))?,
        };
        let payload: Value = serde_json::from_str(&text)
            .map_err(|error| CliError::Refused(format!("the payload is not JSON: {error}")))?;
        let mut event = Map::from_iter([
            ("type".to_owned(), arguments.event_type.into()),
            ("payload".to_owned(), payload),
            ("id".to_owned(), arguments.id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()).into()),
        ]);
        for (name, value) in [("projectId", arguments.project), ("source", arguments.source)] {
            if let Some(value) = value {
                event.insert(name.to_owned(), value.into());
            }
        }
        match self.post(&[Numbered { number: 1, json: Value::Object(event).to_string() }]).await? {
            Ok(()) => Ok(self.summary()),
            Err(reason) => Err(CliError::Refused(reason)),
        }
    }

    async fn stream(mut self, mut lines: mpsc::Receiver<Line>) -> Result<String, CliError> {
        let run = uuid::Uuid::new_v4().simple().to_string();
        while let Some(first) = lines.recv().await {
            let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
            while let Some(Line { number, text }) = next {
                match text.and_then(|text| with_id(&text, &run, number)) {
                    Ok(json) => {
                        bytes += json.len();
                        batch.push(Numbered { number, json });
                    }
                    Err(reason) => self.refuse(number, &reason),
                }
                let is_full = batch.len() >= MAX_BATCH || bytes >= MAX_BATCH_BYTES;
                next = if is_full { None } else { lines.try_recv().ok() };
            }
            self.send(batch).await?;
        }
        match self.refused {
            0 => Ok(self.summary()),
            _ => Err(CliError::Refused(self.summary())),
        }
    }

    /// Sends a batch. The gateway stores all of its events or none. If it refuses the batch, this sends its halves, until only the events
    /// that are wrong are refused.
    async fn send(&mut self, batch: Vec<Numbered>) -> Result<(), CliError> {
        let mut batches = vec![batch];
        while let Some(mut batch) = batches.pop() {
            let Some(first) = batch.first().map(|event| event.number) else { continue };
            match self.post(&batch).await? {
                Ok(()) => {}
                Err(reason) if batch.len() == 1 => self.refuse(first, &reason),
                Err(_) => {
                    let rest = batch.split_off(batch.len() / 2);
                    batches.extend([rest, batch]);
                }
            }
        }
        Ok(())
    }

    /// Sends a request until the gateway answers. Returns why the gateway refuses it, if it does.
    async fn post(&mut self, batch: &[Numbered]) -> Result<Result<(), String>, CliError> {
        let body: String = batch.iter().flat_map(|event| [event.json.as_str(), "\n"]).collect();
        let body = Bytes::from(body);
        let mut failures = 0;
        loop {
            let token = self.credentials.token()?;
            let answer =
                post(&self.gateway, "/api/activity", &token, "application/x-ndjson", body.clone()).await;
            match Outcome::of(answer) {
                Outcome::Stored { accepted, duplicates } => {
                    self.stored += accepted;
                    self.duplicates += duplicates;
                    return Ok(Ok(()));
                }
                Outcome::Refused(reason) => return Ok(Err(reason)),
                Outcome::Fatal(reason) => return Err(CliError::Refused(reason)),
                Outcome::Temporary(reason) if failures + 1 >= self.max_attempts => {
                    return Err(CliError::Unwell(format!("{}: {reason}", self.gateway)));
                }
                Outcome::Temporary(reason) => {
                    if failures == 0 {
                        note(&format!("{}: {reason}; trying again", self.gateway));
                    }
                    tokio::time::sleep(BACKOFF.pause(failures)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    fn refuse(&mut self, number: u64, reason: &str) {
        self.refused += 1;
        note(&format!("line {number}: {reason}"));
    }

    fn summary(&self) -> String {
        let Self { stored, duplicates, refused, .. } = self;
        format!("{stored} stored, {duplicates} stored before, {refused} refused")
    }
}

/// A closed stderr does not end the command.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The event of a line, as compact JSON. An event without an idempotency key gets one.
fn with_id(text: &str, run: &str, number: u64) -> Result<String, String> {
    let mut event: Value = serde_json::from_str(&replace_lone_surrogates(text))
        .map_err(|error| format!("is not JSON: {error}"))?;
    let Value::Object(map) = &mut event else {
        return Err("must be an object with type and payload".to_owned());
    };
    if map.get("id").is_none_or(Value::is_null) {
        map.insert("id".to_owned(), json!(format!("{run}-{number}")));
    }
    Ok(event.to_string())
}
