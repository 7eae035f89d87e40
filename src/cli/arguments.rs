//! Parses the command line. The flags of the settings come from the table of settings.

use std::{ffi::OsString, path::Path, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use clap_complete::Shell;

use crate::config::{GROUPS, Setting, Sources};

use super::{
    CheckArguments, CliError, EmitArguments, HealthArguments, LoginArguments, TailArguments, TokenArguments,
    hook::HookArguments,
};

#[derive(Clone, Debug)]
pub enum Command {
    Serve,
    Token(TokenArguments),
    Check(CheckArguments),
    Tail(TailArguments),
    Emit(EmitArguments),
    /// It reads the command line again, because nothing in it may end the command with an error.
    Hook,
    Health(HealthArguments),
    Completions(Shell),
}

/// The command to run, and the sources of the settings.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub command: Command,
    pub sources: Sources,
}

/// Reads the command line, the environment and `.env`. This function ends the process for `--help`, `--version` and
/// usage errors (exit code 2).
pub fn parse() -> Result<Invocation, CliError> {
    let (command, flags) = read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let sources = Sources::new(flags).with_env(std::env::vars_os()).with_dotenv(Path::new(".env"))?;
    Ok(Invocation { command, sources })
}

/// Reads the command line and the environment of `taskcast hook`.
pub(super) fn parse_hook() -> Result<(HookArguments, Sources), clap::Error> {
    let matches = grammar().try_get_matches_from(std::env::args_os())?;
    let (_, matches) = matches.subcommand().unwrap_or(("hook", &matches));
    let LoginArguments { token, .. } = login(matches);
    let arguments = HookArguments { url: matches.get_one::<String>("url").cloned(), token };
    Ok((arguments, Sources::new(flags(matches)).with_env(std::env::vars_os())))
}

type Flags = Vec<(String, String)>;

fn read(args: impl IntoIterator<Item = OsString>) -> Result<(Command, Flags), clap::Error> {
    let matches = grammar().try_get_matches_from(args)?;
    let (name, matches) = matches.subcommand().unwrap_or(("serve", &matches));
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let command = match name {
        "token" => Command::Token(TokenArguments {
            sub: text("sub").unwrap_or_default(),
            org: text("org"),
            name: text("name"),
            scopes: matches.get_many("scope").into_iter().flatten().cloned().collect(),
            ttl: matches.get_one("ttl").copied().unwrap_or_default(),
        }),
        "check" => Command::Check(CheckArguments { url: text("url") }),
        "health" => Command::Health(HealthArguments { ready: matches.get_flag("ready") }),
        "completions" => Command::Completions(matches.get_one("shell").copied().unwrap_or(Shell::Bash)),
        "tail" => Command::Tail(TailArguments {
            task: text("task"),
            url: text("url"),
            login: login(matches),
            json: matches.get_flag("json"),
        }),
        "emit" => Command::Emit(EmitArguments {
            event_type: text("type"),
            payload: text("payload"),
            ndjson: matches.get_flag("ndjson"),
            project: text("project"),
            source: text("source"),
            id: text("id"),
            url: text("url"),
            login: login(matches),
        }),
        "hook" => Command::Hook,
        _ => Command::Serve,
    };
    Ok((command, flags(matches)))
}

fn login(matches: &ArgMatches) -> LoginArguments {
    let text = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
    LoginArguments {
        token: text("token").or_else(|| std::env::var("TASKCAST_TOKEN").ok()).filter(|t| !t.is_empty()),
        sub: text("sub"),
        org: text("org"),
    }
}

fn flags(matches: &ArgMatches) -> Flags {
    let settings = GROUPS.iter().flat_map(|group| group.settings);
    settings
        .filter_map(|setting| {
            Some((setting.name.to_owned(), matches.get_one::<String>(setting.name)?.clone()))
        })
        .collect()
}

fn grammar() -> clap::Command {
    let settings = GROUPS
        .iter()
        .flat_map(|group| group.settings.iter().map(|setting| flag_of(setting).help_heading(group.title)));
    clap::Command::new("taskcast")
        .version(env!("TASKCAST_VERSION"))
        .about("A Socket.IO-compatible realtime gateway for tasks")
        .after_help(
            "Every setting is also an environment variable: --jwt-secret is JWT_SECRET. A flag overrides the \
             environment, and the environment overrides a file .env in the working directory. An empty value \
             counts as unset.\nOther users of the machine can see flags: put secrets into the environment.",
        )
        .args(settings)
        .subcommand(clap::Command::new("serve").about("Runs the gateway (the default)"))
        .subcommand(token_grammar())
        .subcommand(check_grammar())
        .subcommand(tail_grammar())
        .subcommand(emit_grammar())
        .subcommand(hook_grammar())
        .subcommand(health_grammar())
        .subcommand(completions_grammar())
}

fn flag_of(setting: &Setting) -> Arg {
    let secret = if setting.secret { " [secret]" } else { "" };
    let alias = setting.alias.map(|alias| format!(" [also: {alias}]")).unwrap_or_default();
    let arg = Arg::new(setting.name)
        .long(setting.flag())
        .value_name(setting.placeholder)
        .help(format!("{} [default: {}]{alias}{secret}", setting.help, setting.shown_default()))
        // A secret may begin with a dash, as a PEM does. If clap read the secret as a flag, the error message would show it.
        .allow_hyphen_values(true)
        .global(true);
    match setting.alias_flag() {
        Some(alias) => arg.alias(alias),
        None => arg,
    }
}

fn token_grammar() -> clap::Command {
    clap::Command::new("token")
        .about("Prints a JWT signed with the configured secret")
        .arg(Arg::new("sub").long("sub").value_name("USER").required(true).help("The user's id"))
        .arg(Arg::new("org").long("org").value_name("ORG").help("The user's organisation"))
        .arg(Arg::new("name").long("name").value_name("NAME").help("The user's name"))
        .arg(
            Arg::new("scope")
                .long("scope")
                .value_name("SCOPES")
                .action(ArgAction::Append)
                .help("What the user may do in addition to reading, such as tasks:write"),
        )
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .value_name("DURATION")
                .default_value("1h")
                .value_parser(parse_ttl)
                .help("How long the token is valid"),
        )
}

fn tail_grammar() -> clap::Command {
    clap::Command::new("tail")
        .about("Connects to a running gateway and prints events as they arrive")
        .arg(Arg::new("task").long("task").value_name("ID").help("Also follow this task"))
        .args(gateway_args("taskcast-tail"))
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print {event, payload} as JSON, with complete states"),
        )
}

/// The options of a command that talks to a running gateway. taskcast signs a token for `user`, unless one is given.
fn gateway_args(user: &'static str) -> [Arg; 4] {
    [
        Arg::new("url")
            .long("url")
            .value_name("URL")
            .help("The URL of the gateway [default: this machine, at the configured PORT]"),
        Arg::new("token")
            .long("token")
            .value_name("JWT")
            .allow_hyphen_values(true)
            .help("The token [default: TASKCAST_TOKEN, else one signed with the configured secret]"),
        Arg::new("sub")
            .long("sub")
            .value_name("USER")
            .help(format!("The user of the token that taskcast signs [default: {user}]")),
        Arg::new("org")
            .long("org")
            .value_name("ORG")
            .help("The organisation of the token that taskcast signs [default: DEFAULT_ORG]"),
    ]
}

fn emit_grammar() -> clap::Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).conflicts_with("ndjson").help(help)
    };
    clap::Command::new("emit")
        .about("Reports activity events to a running gateway")
        .arg(
            Arg::new("type")
                .value_name("TYPE")
                .required_unless_present("ndjson")
                .conflicts_with("ndjson")
                .help("The type of the event, such as agent.started"),
        )
        .arg(
            Arg::new("payload")
                .value_name("JSON")
                .conflicts_with("ndjson")
                .help("The payload, an object [default: read from standard input, as with -]"),
        )
        .arg(
            Arg::new("ndjson")
                .long("ndjson")
                .action(ArgAction::SetTrue)
                .help("Report one event for each line of standard input, until it ends"),
        )
        .arg(option("project", "ID", "The projectId of the event"))
        .arg(option("source", "NAME", "The source of the event"))
        .arg(option("id", "ID", "The idempotency key of the event [default: a new one]"))
        .args(gateway_args("taskcast-emit"))
}

fn hook_grammar() -> clap::Command {
    clap::Command::new("hook")
        .about("Forwards a coding agent's hook from standard input to a running gateway; exit code 0 in any case")
        .args(gateway_args("taskcast-hook").into_iter().take(2))
}

fn check_grammar() -> clap::Command {
    clap::Command::new("check")
        .about("Checks the settings and the servers they name; exit code 0 if the gateway could start")
        .arg(
            Arg::new("url").long("url").value_name("URL").help(
                "Also test a running gateway at this URL, as clients reach it: WebSocket, polling, public metrics",
            ),
        )
}

fn health_grammar() -> clap::Command {
    clap::Command::new("health")
        .about("Asks the gateway on this machine, at the configured PORT, for its health; exit code 0 if it is alive")
        .arg(
            Arg::new("ready")
                .long("ready")
                .action(ArgAction::SetTrue)
                .help("Exit code 0 only if the gateway accepts clients: it is neither starting nor draining"),
        )
}

fn completions_grammar() -> clap::Command {
    clap::Command::new("completions")
        .about("Prints a completion script for a shell")
        .arg(Arg::new("shell").required(true).value_parser(value_parser!(Shell)).help("The shell"))
}

/// The completion script for this shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut grammar(), "taskcast", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn parse_ttl(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text) {
        Ok(ttl) if ttl >= Duration::from_secs(1) => Ok(ttl),
        _ => Err("a duration of at least 1s with its unit is expected, such as 10m, 1h or 30d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<(Command, Flags), clap::Error> {
        read(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
    }

    #[test]
    fn help_names_the_settings_of_the_table() {
        let help = grammar().render_help().to_string();
        let named: Vec<String> = help
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("--"))
            .filter_map(|line| line.split([' ', '=']).next())
            .map(|flag| flag.to_ascii_uppercase().replace('-', "_"))
            .filter(|name| !["HELP", "VERSION"].contains(&name.as_str()))
            .collect();
        let settings = || GROUPS.iter().flat_map(|group| group.settings);
        assert_eq!(named, settings().map(|setting| setting.name).collect::<Vec<_>>());
        for setting in settings() {
            assert!(
                help.contains(setting.help) && help.contains(setting.shown_default()),
                "{}",
                setting.name
            );
        }
    }

    #[test]
    fn serve_is_the_default_and_settings_go_before_or_after_a_command() {
        for line in ["taskcast --port 1", "taskcast serve --port 1", "taskcast --port=1 serve"] {
            let (command, flags) = args(line).expect("good");
            assert!(matches!(command, Command::Serve), "{line}");
            assert_eq!(flags, [("PORT".to_owned(), "1".to_owned())], "{line}");
        }
        let (_, flags) = args("taskcast check --frontend-url https://a.test").expect("good");
        assert_eq!(flags[0].0, "WEBSOCKET_CORS_ORIGIN");
        let (command, flags) =
            args("taskcast --data-dir d token --sub alice --scope a --scope b").expect("good");
        assert_eq!(flags[0].0, "DATA_DIR");
        let Command::Token(token) = command else { panic!("{command:?}") };
        assert_eq!((token.sub.as_str(), token.ttl), ("alice", Duration::from_secs(3600)));
        assert_eq!(token.scopes, ["a", "b"]);
    }

    #[test]
    fn usage_errors_show_no_secrets() {
        let (_, flags) = args("taskcast --jwt-secret --hunter2").expect("a secret may begin with dashes");
        assert_eq!(flags[0].1, "--hunter2");
        for line in [
            "taskcast --jwt-secret=hunter2 --jwt-secret=hunter2",
            "taskcast --jwt-secrets=hunter2",
            "taskcast token --jwt-secret=hunter2",
            "taskcast token --sub a --ttl 0s --jwt-secret hunter2",
            "taskcast --jwt-secret hunter2 nonsense",
        ] {
            let error = args(line).expect_err("bad usage");
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
