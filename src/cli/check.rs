//! `taskcast check`: could the gateway start, and would it be well?

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::Path,
};

use crate::config::{Backend, Config, KeySource, Sources};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub text: String,
    /// What to do about it.
    pub mend: Option<String>,
}

impl Finding {
    pub fn ok(text: impl Into<String>) -> Self {
        Self { level: Level::Ok, text: text.into(), mend: None }
    }

    pub fn warn(text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Warn, text: text.into(), mend: Some(mend.into()) }
    }

    pub fn fail(text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Fail, text: text.into(), mend: Some(mend.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        let text = self.text.replace(['\r', '\n'], " ");
        match &self.mend {
            Some(mend) => write!(f, "{level}: {text}; {}", mend.replace(['\r', '\n'], " ")),
            None => write!(f, "{level}: {text}"),
        }
    }
}

/// Looks at everything and changes nothing.
pub fn check(sources: &Sources) -> Vec<Finding> {
    let config = match Config::read(sources) {
        Ok(config) => config,
        Err(error) => {
            let mend = "see --help or docs/configuration.md";
            return error.0.iter().map(|problem| Finding::fail(problem.to_string(), mend)).collect();
        }
    };
    let mut findings = vec![Finding::ok("the settings can be used")];
    for warning in &config.warnings {
        let (text, mend) = warning.split_once("; ").unwrap_or((warning, "see docs/configuration.md"));
        findings.push(Finding::warn(text, mend));
    }
    findings.push(check_keys(&config));
    match &config.store.backend {
        Backend::Embedded => findings.extend(check_data_dir(&config.store.data_dir)),
        Backend::Mongo(_) => {}
    }
    findings
}

fn check_keys(config: &Config) -> Finding {
    match &config.auth.keys {
        KeySource::Secret(_) => Finding::ok("tokens are checked with JWT_SECRET (HS256)"),
        KeySource::PublicKey(keys) => {
            Finding::ok(format!("tokens are checked with JWT_PUBLIC_KEY ({})", keys.algorithm()))
        }
        KeySource::Generated(path) if config.server.host.to_canonical().is_loopback() => {
            Finding::ok(format!("tokens are checked with the development secret in {}", path.display()))
        }
        KeySource::Generated(path) => Finding::warn(
            format!(
                "HOST can be reached from outside, and tokens are checked with the development secret in {}",
                path.display()
            ),
            "set JWT_SECRET or JWT_PUBLIC_KEY where others depend on it",
        ),
    }
}

fn check_data_dir(folder: &Path) -> Vec<Finding> {
    let shown = folder.display();
    let writable = match writable(folder) {
        Ok(()) => Finding::ok(format!("DATA_DIR ({shown}) can be written")),
        Err(error) => Finding::fail(
            format!("DATA_DIR ({shown}) can't be written: {}", error.kind()),
            "give its owner and mode to the user that runs taskcast, or set DATA_DIR to another folder",
        ),
    };
    let free = match is_locked(&folder.join("lock")) {
        false => Finding::ok("no other process uses DATA_DIR"),
        true => Finding::warn(
            format!("a process uses DATA_DIR ({shown}) right now"),
            "if that is not the gateway that you mean, stop it or set DATA_DIR to another folder",
        ),
    };
    vec![writable, free]
}

/// Tries it, in the folder or, where that is still to be made, in the nearest one above it.
fn writable(folder: &Path) -> io::Result<()> {
    let existing = folder.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = existing.join(format!(".taskcast-check-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    fs::remove_file(probe)
}

/// The embedded store holds a lock on this file for as long as it is open.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(pairs: &[(&str, &str)]) -> Vec<String> {
        let sources = Sources::new(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        check(&sources).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn bad_settings_are_findings() {
        let told = findings(&[("PORT", "hunter2"), ("SEND_QUEUE", "1")]);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.iter().all(|line| line.starts_with("fail: ") && !line.contains("hunter2")), "{told:?}");
    }

    #[test]
    fn a_short_secret_and_an_open_development_gateway_are_warnings() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("not/yet").display().to_string();
        let told = findings(&[("JWT_SECRET", "bench-secret"), ("DATA_DIR", &data)]);
        assert_eq!(told.iter().filter(|line| line.starts_with("warn: JWT_SECRET")).count(), 1, "{told:?}");
        let told = findings(&[("TASKCAST_DEV", "1"), ("DATA_DIR", &data)]);
        assert_eq!(told.iter().filter(|line| line.starts_with("warn: HOST")).count(), 1, "{told:?}");
        let told = findings(&[("HOST", "127.0.0.1"), ("DATA_DIR", &data)]);
        assert!(told.iter().all(|line| line.starts_with("ok: ")), "{told:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing was made");
    }

    #[test]
    fn a_folder_in_use_and_one_that_is_a_file_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = File::create(folder.path().join("lock")).expect("a file");
        lock.lock().expect("locked");
        let level =
            |path: &Path| check_data_dir(path).iter().map(|finding| finding.level).collect::<Vec<_>>();
        assert_eq!(level(folder.path()), [Level::Ok, Level::Warn]);
        drop(lock);
        assert_eq!(level(folder.path()), [Level::Ok, Level::Ok]);
        assert_eq!(level(&folder.path().join("lock")), [Level::Fail, Level::Ok]);
    }
}
