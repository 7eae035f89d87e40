//! `taskcast hook`: forwards the hook of a coding agent to a running gateway.
//!
//! The agent waits for the hook, and takes an exit code other than 0 as an instruction. The command therefore ends within two seconds and with
//! 0, whatever happens. It runs in the folder of somebody else's project, so it does not read `.env`, and needs a token that is given to it.

use std::{
    io::{self, Write},
    process, thread,
    time::Duration,
};

use super::{
    CliError, arguments::parse_hook, gateway_url::GatewayUrl, http_request::post, stdin::read_stdin,
};
use crate::config::Sources;

/// The whole command takes at most this long.
const LIMIT: Duration = Duration::from_millis(1900);

#[derive(Clone, Debug)]
pub struct HookArguments {
    pub url: Option<String>,
    pub token: Option<String>,
}

/// Returns whether the command line of this process is that of `taskcast hook`.
pub fn is_hook() -> bool {
    std::env::args_os().nth(1).is_some_and(|command| command == "hook")
}

/// Runs the command. Its problems appear on standard error. Nothing appears on standard output, because agents read it as instructions.
pub fn hook() {
    // The lookup of a host name, or a file of the settings on a network, may block for longer than the command may take.
    thread::spawn(|| {
        thread::sleep(LIMIT);
        note("there is no answer in time");
        process::exit(0);
    });
    let (arguments, sources) = match parse_hook() {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let sent = match &runtime {
        Ok(runtime) => runtime.block_on(send(arguments, &sources)).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = sent {
        note(&error);
    }
    if let Ok(runtime) = runtime {
        runtime.shutdown_background();
    }
}

async fn send(arguments: HookArguments, sources: &Sources) -> Result<(), CliError> {
    let token = arguments.token.ok_or_else(|| {
        CliError::Refused(
            "a token is needed: TASKCAST_TOKEN or --token; taskcast token --scope events:write prints one"
                .to_owned(),
        )
    })?;
    let gateway = GatewayUrl::of(arguments.url.as_deref(), sources)?;
    let body = read_stdin().await.map_err(|error| CliError::Refused(error.to_string()))?;
    match post(&gateway, "/api/activity/hook", &token, "application/json", body.into()).await {
        Ok(answer) if answer.status == 202 => Ok(()),
        Ok(answer) => Err(CliError::Refused(format!("{gateway} answers {}: {}", answer.status, answer.body))),
        Err(error) => Err(CliError::Unwell(format!("{gateway} does not answer: {error}"))),
    }
}

fn note(text: &str) {
    let _ = writeln!(io::stderr(), "taskcast hook: {text}");
}
