//! Where settings are read: flags, then the environment, then `.env`.

use std::{collections::HashMap, ffi::OsString, fmt, io, path::Path};

use super::{ConfigError, Problem, Setting};

/// The texts of all settings, by source. An empty text counts as none.
#[derive(Clone, Default)]
pub struct Sources {
    flags: HashMap<String, String>,
    /// None: not UTF-8.
    env: HashMap<String, Option<String>>,
    dotenv: HashMap<String, String>,
}

/// The name that was found and what it holds.
pub(super) struct Found<'a> {
    pub(super) text: Option<&'a str>,
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Flag,
    Environment,
    DotEnv,
}

impl Sources {
    /// Flags by the names of their settings.
    pub fn new(flags: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { flags: flags.into_iter().collect(), ..Self::default() }
    }

    pub fn with_env(mut self, env: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.env = env
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok())))
            .collect();
        self
    }

    /// Reads `.env`, if it is there, without touching the process's environment. A later line of the same name
    /// wins, as with Node's dotenv.
    pub fn with_dotenv(mut self, path: &Path) -> Result<Self, ConfigError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self),
            Err(error) => return Err(dotenv_problem(format!("can't be read: {}", error.kind()))),
        };
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        for line in dotenvy::from_read_iter(text) {
            // Its error holds the line, and the line may hold a secret.
            let (name, value) = line.map_err(|_| {
                dotenv_problem("a line is not NAME=value (values with spaces or # need quotes)".to_owned())
            })?;
            self.dotenv.insert(name, value);
        }
        Ok(self)
    }

    pub(super) fn find(&self, setting: &Setting) -> Option<Found<'_>> {
        let names = || std::iter::once(setting.name).chain(setting.alias);
        let in_flags = names().filter_map(|name| self.flags.get(name)).map(|text| (Some(text), Place::Flag));
        let in_env =
            names().filter_map(|name| self.env.get(name)).map(|text| (text.as_ref(), Place::Environment));
        let in_dotenv =
            names().filter_map(|name| self.dotenv.get(name)).map(|text| (Some(text), Place::DotEnv));
        in_flags
            .chain(in_env)
            .chain(in_dotenv)
            .map(|(text, place)| Found { text: text.map(String::as_str), place })
            .find(|found| found.text.is_none_or(|text| !text.trim().is_empty()))
    }
}

fn dotenv_problem(text: String) -> ConfigError {
    ConfigError(vec![Problem { setting: ".env", text }])
}

/// Without values.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("flags", &self.flags.keys())
            .field("dotenv", &self.dotenv.keys())
            .finish_non_exhaustive()
    }
}
