//! `taskcast check`: tests whether the gateway could start with these settings and would work well.

mod access;
mod clock;
mod finding;
mod folder;
mod gateway;
mod keys;
mod mongo;
mod redis;

use crate::config::{Backend, Config, KeySource, Sources, TaskApi};

use super::gateway_url::GatewayUrl;
pub use finding::{Finding, Level};

#[derive(Clone, Debug, Default)]
pub struct CheckArguments {
    /// The URL of a running gateway that is tested too.
    pub url: Option<String>,
}

/// Runs all checks. Nothing is changed.
pub async fn check(arguments: CheckArguments, sources: &Sources) -> Vec<Finding> {
    let config = match Config::read(sources) {
        Ok(config) => config,
        Err(error) => {
            let fix = "see --help or docs/configuration.md";
            return error.0.iter().map(|problem| Finding::fail(problem.to_string(), fix)).collect();
        }
    };
    let mut findings = vec![Finding::ok("the settings can be used")];
    for warning in &config.warnings {
        let (text, fix) = warning.split_once("; ").unwrap_or((warning, "see docs/configuration.md"));
        findings.push(Finding::warn(text, fix));
    }
    findings.extend(sources.literal_in_dotenv().into_iter().map(|(name, line)| {
        let text = format!(
            "{name} in line {line} of .env is read literally, as Node's dotenv does; other programs may replace $, \\ and ` in it"
        );
        Finding::warn(text, "put the value in single quotes if another program reads this file: then all programs read the same value")
    }));
    findings.extend(check_keys(&config).await);
    findings.extend(access::check_access(&config));
    match &config.store.backend {
        Backend::Embedded(store) => findings.extend(folder::check_data_dir(&store.data_dir)),
        Backend::Mongo(store) => {
            let writes = config.features.task_api == TaskApi::Full;
            findings.extend(mongo::check_mongo(store, writes).await);
        }
    }
    if let Some(redis) = &config.store.cluster {
        findings.extend(redis::check_redis(redis).await);
    }
    if let Some(url) = arguments.url {
        match GatewayUrl::parse(&url) {
            Some(gateway) => findings.extend(gateway::check_gateway(&gateway).await),
            None => {
                findings.push(Finding::fail("--url can't be used", "give http://host:port or https://host"))
            }
        }
    }
    findings
}

async fn check_keys(config: &Config) -> Vec<Finding> {
    let finding = match &config.auth.keys {
        KeySource::Fetched(url) => return keys::check_key_server(url).await,
        KeySource::Secret(_) => Finding::ok("tokens are checked with JWT_SECRET (HS256)"),
        KeySource::PublicKey(key) => {
            Finding::ok(format!("tokens are checked with JWT_PUBLIC_KEY ({})", key.algorithm()))
        }
        KeySource::Generated(path) if config.server.host.to_canonical().is_loopback() => {
            Finding::ok(format!("tokens are checked with the development secret in {}", path.display()))
        }
        KeySource::Generated(path) => Finding::warn(
            format!(
                "other machines can reach HOST, and tokens are checked with the development secret in {}",
                path.display()
            ),
            "set JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URL if other people use this gateway",
        ),
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn findings(pairs: &[(&str, &str)]) -> Vec<String> {
        let sources = Sources::new(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        check(CheckArguments::default(), &sources).await.iter().map(Finding::to_string).collect()
    }

    #[tokio::test]
    async fn bad_settings_are_findings() {
        let lines = findings(&[("PORT", "hunter2"), ("SEND_QUEUE", "1")]).await;
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines.iter().all(|line| line.starts_with("fail: ") && !line.contains("hunter2")),
            "{lines:?}"
        );
    }

    #[tokio::test]
    async fn a_secret_that_other_programs_may_read_differently_is_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        let data = folder.path().join("data").display().to_string();
        let secret = "hunter2$hunter2-hunter2-hunter2-hunter2";
        for (line, warned) in [
            (format!("JWT_SECRET=\"{secret}\""), 1),
            (format!("JWT_SECRET={secret}"), 1),
            (format!("JWT_SECRET='{secret}'"), 0),
            (format!("OTHER={secret}\nJWT_SECRET={}", secret.replace('$', "-")), 0),
        ] {
            fs::write(&path, format!("# secret\n{line}\n")).expect("written");
            let sources =
                Sources::new([("DATA_DIR".to_owned(), data.clone())]).with_dotenv(&path).expect("good");
            let lines: Vec<String> =
                check(CheckArguments::default(), &sources).await.iter().map(Finding::to_string).collect();
            let found =
                lines.iter().filter(|line| line.starts_with("warn: JWT_SECRET in line 2 of .env is read"));
            assert_eq!(found.count(), warned, "{lines:?}");
            assert!(lines.iter().all(|line| !line.contains("hunter2")), "{lines:?}");
        }
    }

    #[tokio::test]
    async fn a_short_secret_and_an_open_development_gateway_are_warnings() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("not/yet").display().to_string();
        let lines = findings(&[("JWT_SECRET", "bench-secret"), ("DATA_DIR", &data)]).await;
        assert_eq!(lines.iter().filter(|line| line.starts_with("warn: JWT_SECRET")).count(), 1, "{lines:?}");
        let lines = findings(&[("TASKCAST_DEV", "1"), ("DATA_DIR", &data)]).await;
        assert_eq!(lines.iter().filter(|line| line.contains("development secret")).count(), 1, "{lines:?}");
        let lines = findings(&[("HOST", "127.0.0.1"), ("DATA_DIR", &data)]).await;
        assert!(lines.iter().all(|line| line.starts_with("ok: ")), "{lines:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing was made");
    }
}
