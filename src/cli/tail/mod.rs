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

use crate::{
    auth::{Grant, TokenSigner, UnixTime},
    backoff::Backoff,
    config::{Config, ServerConfig, Sources},
};

use super::{CliError, gateway_url::GatewayUrl};
use outcome::Outcome;
use printer::Printer;
use rooms::Rooms;
use session::Session;

#[derive(Clone, Debug)]
pub struct TailArguments {
    pub task: Option<String>,
    pub url: Option<String>,
    pub token: Option<String>,
    pub sub: Option<String>,
    pub org: Option<String>,
    pub json: bool,
}

/// Between two attempts to connect.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);

/// Prints events until the output is closed, or until the gateway refuses and a retry would not help. The caller stops this
/// function on Ctrl-C.
pub async fn tail(arguments: TailArguments, sources: &Sources, out: impl Write) -> Result<(), CliError> {
    let credentials = Credentials::of(&arguments, sources)?;
    let gateway = match &arguments.url {
        Some(url) => GatewayUrl::parse(url).ok_or(CliError::Url("--url"))?,
        None => {
            let server = ServerConfig::read_alone(sources)?;
            GatewayUrl::local(server.local_address(server.port))
        }
    };
    let client = Tail {
        gateway,
        credentials,
        rooms: Rooms::new(arguments.task),
        printer: Printer::new(out, arguments.json),
        backoff: BACKOFF,
    };
    client.run().await
}

/// The token that the client connects with.
enum Credentials {
    Given(String),
    /// A new token is signed for each connection, so that reconnecting never fails because of an expired token.
    Signed(Box<TokenSigner>, Grant),
}

impl Credentials {
    fn of(arguments: &TailArguments, sources: &Sources) -> Result<Self, CliError> {
        if let Some(token) = &arguments.token {
            return Ok(Self::Given(token.clone()));
        }
        let config = Config::read(sources)?;
        let signer = config.tokens()?.signer.ok_or(CliError::NoSecret)?;
        let grant = Grant {
            user: arguments.sub.clone().unwrap_or_else(|| "taskcast-tail".to_owned()),
            org: arguments.org.clone(),
            name: None,
            scope: None,
            ttl: TOKEN_TTL,
        };
        if grant.org.is_none() && config.store.default_org.0.is_none() {
            eprintln!(
                "only tasks of the user {:?} are shown: use --org to see those of an organisation",
                grant.user
            );
        }
        Ok(Self::Signed(Box::new(signer), grant))
    }

    fn token(&self) -> Result<String, CliError> {
        Ok(match self {
            Self::Given(token) => token.clone(),
            Self::Signed(signer, grant) => signer.sign(grant, UnixTime::now())?,
        })
    }
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
