//! `taskcast tail`: a small Socket.IO client that prints the events that it receives.
//!
//! When the connection is lost, the client reconnects. For each room it asks for the events after the last event that it
//! printed, so that no event is missed or printed twice.

mod outcome;
mod packet;
mod printer;
mod rooms;
mod session;

use std::{io::Write, time::Duration};

use crate::{backoff::Backoff, config::Sources};

use super::{
    CliError,
    credentials::{Credentials, LoginArguments},
    gateway_url::GatewayUrl,
};
use outcome::Outcome;
use printer::Printer;
use rooms::Rooms;
use session::Session;

#[derive(Clone, Debug)]
pub struct TailArguments {
    pub task: Option<String>,
    pub url: Option<String>,
    pub login: LoginArguments,
    pub json: bool,
}

/// Between two attempts to connect.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));

/// Prints events until the output is closed, or until the gateway refuses and a retry would not help. The caller stops this
/// function on Ctrl-C.
pub async fn tail(arguments: TailArguments, sources: &Sources, out: impl Write) -> Result<(), CliError> {
    let credentials = Credentials::of(&arguments.login, sources, "taskcast-tail", None)?;
    if let Some(user) = credentials.user_without_org() {
        eprintln!("only tasks of the user {user:?} are shown: use --org to see those of an organisation");
    }
    let gateway = GatewayUrl::of(arguments.url.as_deref(), sources)?;
    let client = Tail {
        gateway,
        credentials,
        rooms: Rooms::new(arguments.task),
        printer: Printer::new(out, arguments.json),
        backoff: BACKOFF,
    };
    client.run().await
}

struct Tail<W> {
    gateway: GatewayUrl,
    credentials: Credentials,
    rooms: Rooms,
    printer: Printer<W>,
    backoff: Backoff,
}

impl<W: Write> Tail<W> {
    async fn run(mut self) -> Result<(), CliError> {
        let mut failures = 0;
        loop {
            let token = self.credentials.token()?;
            let outcome = match Session::open(&self.gateway, &token).await {
                Ok(mut session) => {
                    failures = 0;
                    self.printer.note(&format!("connected to {}", self.gateway));
                    session.run(&mut self.rooms, &mut self.printer).await
                }
                Err(outcome) => outcome,
            };
            let pause = self.backoff.pause(failures);
            failures = failures.saturating_add(1);
            match outcome {
                Outcome::Lost(reason) => {
                    let shown = humantime::format_duration(pause);
                    self.printer.note(&format!("{reason}; trying again in {shown}"));
                }
                Outcome::Refused(reason) => return Err(CliError::Refused(reason)),
                Outcome::OutputClosed => return Ok(()),
                Outcome::OutputFailed(error) => return Err(CliError::Output(error)),
            }
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests;
