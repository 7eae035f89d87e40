//! `taskcast hook`: forwards the hook of a coding agent. The agent waits for the hook, so it ends within two seconds.

use std::{
    io::{self, Read},
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    CliError,
    credentials::{Credentials, LoginArguments},
    gateway_url::GatewayUrl,
    http_request::post,
};
use crate::config::Sources;

const TIMEOUT: Duration = Duration::from_millis(1800);
/// The gateway accepts no larger body.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Clone, Debug)]
pub struct HookArguments {
    pub url: Option<String>,
    pub login: LoginArguments,
}

/// Sends what standard input has. It prints nothing on standard output, because agents read the output as instructions.
pub async fn hook(arguments: HookArguments, sources: &Sources) -> Result<(), CliError> {
    let credentials = Credentials::of(&arguments.login, sources, "taskcast-hook", Some("events:write"))?;
    let gateway = GatewayUrl::of(arguments.url.as_deref(), sources)?;
    let token = credentials.token()?;
    let sent = async {
        let body = read_input().await.map_err(|reason| CliError::Refused(reason.to_owned()))?;
        let answer = post(&gateway, "/api/activity/hook", &token, "application/json", body).await;
        match answer {
            Ok(answer) if answer.status == 202 => Ok(()),
            Ok(answer) => {
                Err(CliError::Refused(format!("{gateway} answers {}: {}", answer.status, answer.body)))
            }
            Err(error) => Err(CliError::Unwell(format!("{gateway} does not answer: {error}"))),
        }
    };
    let timed_out = || CliError::Unwell(format!("{gateway} did not answer in time"));
    tokio::time::timeout(TIMEOUT, sent).await.unwrap_or_else(|_| Err(timed_out()))
}

/// A thread reads the input, because the process must be able to end while the input is open.
async fn read_input() -> Result<Bytes, &'static str> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        let mut body = Vec::new();
        let read = io::stdin().take(MAX_BYTES + 1).read_to_end(&mut body);
        let _ = sender.send(match read {
            Ok(_) if body.len() as u64 > MAX_BYTES => Err("the hook is larger than 4 MiB"),
            Ok(_) => Ok(body.into()),
            Err(_) => Err("standard input can't be read"),
        });
    });
    receiver.await.unwrap_or(Err("standard input can't be read"))
}
