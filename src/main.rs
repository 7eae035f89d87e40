//! The entry point: parses the command line, reads the settings, and runs the command.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use taskcast::{
    app,
    auth::UnixTime,
    cli::{self, CliError, Command, Invocation, Level},
    config::{Config, Sources},
    telemetry,
};

/// This allocator returns memory to the system when many clients have disconnected. With most other allocators the
/// process stays near its limit.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long blocking calls may take at the end. A write to the embedded store needs much less.
const LAST_BLOCKING_CALLS: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    if cli::is_hook() {
        cli::hook();
        return ExitCode::SUCCESS;
    }
    match cli::parse().and_then(run) {
        Ok(code) => code,
        Err(error) => {
            // A closed stderr does not change the exit code.
            let _ = writeln!(io::stderr(), "taskcast: {error}");
            error.exit_code()
        }
    }
}

fn run(Invocation { command, sources }: Invocation) -> Result<ExitCode, CliError> {
    match command {
        Command::Serve => serve(&sources),
        Command::Token(arguments) => {
            let token = cli::token(arguments, &sources, UnixTime::now())?;
            print(&[token])
        }
        Command::Check(arguments) => {
            let findings = runtime()?.block_on(cli::check(arguments, &sources));
            print(&findings)?;
            let failed = findings.iter().any(|finding| finding.level == Level::Fail);
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Health(arguments) => print(&[runtime()?.block_on(cli::health(arguments, &sources))?]),
        Command::Completions(shell) => print(&[cli::completions(shell)]),
        Command::Emit(arguments) => runtime()?.block_on(async {
            tokio::select! {
                result = cli::emit(arguments, &sources) => print(&[result?]),
                result = tokio::signal::ctrl_c() => result.map(|()| ExitCode::FAILURE).map_err(CliError::Runtime),
            }
        }),
        Command::Hook => {
            cli::hook();
            Ok(ExitCode::SUCCESS)
        }
        Command::Tail(arguments) => runtime()?.block_on(async {
            tokio::select! {
                result = cli::tail(arguments, &sources, io::stdout()) => result.map(|()| ExitCode::SUCCESS),
                result = tokio::signal::ctrl_c() => result.map(|()| ExitCode::SUCCESS).map_err(CliError::Runtime),
            }
        }),
    }
}

fn serve(sources: &Sources) -> Result<ExitCode, CliError> {
    let config = Config::read(sources)?;
    telemetry::init(&config.logging)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(app::run(config));
    // The process does not wait for a blocking call that hangs, such as a DNS lookup.
    runtime.shutdown_timeout(LAST_BLOCKING_CALLS);
    ended?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)
}

/// Prints one item per line. A reader that closes the pipe is no error.
fn print<T: std::fmt::Display>(lines: &[T]) -> Result<ExitCode, CliError> {
    let mut out = io::stdout().lock();
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
