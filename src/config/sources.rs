//! Reads settings from their sources: flags, then the environment, then `.env`.

use std::{collections::HashMap, ffi::OsString, fmt, io, path::Path};

use super::{
    ConfigError, Problem, Setting,
    dotenv::{self, Entry, ValueWarning},
    table,
};

/// The texts of all settings, by source. An empty text counts as unset.
#[derive(Clone, Default)]
pub struct Sources {
    flags: HashMap<String, String>,
    /// `None` means that the value is not UTF-8.
    env: HashMap<String, Option<String>>,
    dotenv: HashMap<String, Entry>,
}

/// An error names at most this many unreadable lines.
const MAX_NAMED_LINES: usize = 10;

/// The value of a setting, and where it was found. `text` is `None` if the value is not UTF-8.
pub(super) struct Found<'a> {
    pub(super) text: Option<&'a str>,
    pub(super) source: SourceKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    Flag,
    Environment,
    DotEnv,
}

impl Sources {
    /// Takes flags as pairs of a setting's name and its value.
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

    /// Reads `.env` as Node's dotenv does, if the file exists. The process's environment is not changed. The last line
    /// of a name counts.
    pub fn with_dotenv(mut self, path: &Path) -> Result<Self, ConfigError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self),
            Err(error) => return Err(dotenv_problem(format!("can't be read: {}", error.kind()))),
        };
        // No message contains a part of the file, because the file contains secrets.
        let entries =
            dotenv::parse(text_of(&bytes)?).map_err(|lines| dotenv_problem(unreadable(&lines.0)))?;
        self.dotenv.extend(entries.into_iter().map(|entry| (entry.name.clone(), entry)));
        Ok(self)
    }

    /// Warnings about values in `.env` that are probably not what the author intended.
    pub(super) fn dotenv_warnings(&self) -> Vec<String> {
        self.setting_entries()
            .flat_map(|entry| entry.warnings.iter().filter_map(|warning| warning_text(entry, *warning)))
            .collect()
    }

    /// Names and lines of the settings in `.env` that a dotenv library with substitution reads differently.
    pub fn literal_in_dotenv(&self) -> Vec<(&str, usize)> {
        let literal = self.setting_entries().filter(|entry| entry.warnings.contains(&ValueWarning::Literal));
        literal.map(|entry| (&*entry.name, entry.line)).collect()
    }

    /// The entries that are settings of taskcast, in the order of the file. Other entries are for other programs.
    fn setting_entries(&self) -> impl Iterator<Item = &Entry> {
        let settings = table::all().flat_map(|setting| [Some(setting.name), setting.alias]).flatten();
        let mut entries: Vec<&Entry> = settings.filter_map(|name| self.dotenv.get(name)).collect();
        entries.sort_unstable_by_key(|entry| entry.line);
        entries.into_iter()
    }

    pub(super) fn find(&self, setting: &Setting) -> Option<Found<'_>> {
        let names = || std::iter::once(setting.name).chain(setting.alias);
        let in_flags =
            names().filter_map(|name| self.flags.get(name)).map(|text| (Some(text), SourceKind::Flag));
        let in_env = names()
            .filter_map(|name| self.env.get(name))
            .map(|text| (text.as_ref(), SourceKind::Environment));
        let in_dotenv = names()
            .filter_map(|name| self.dotenv.get(name))
            .map(|entry| (Some(&entry.value), SourceKind::DotEnv));
        in_flags
            .chain(in_env)
            .chain(in_dotenv)
            .map(|(text, source)| Found { text: text.map(String::as_str), source })
            .find(|found| found.text.is_none_or(|text| !text.trim().is_empty()))
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, ConfigError> {
    std::str::from_utf8(bytes).map_err(|error| {
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return dotenv_problem("the file is UTF-16: save it as UTF-8".to_owned());
        }
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        dotenv_problem(format!("line {line} is not UTF-8: save the file as UTF-8"))
    })
}

fn unreadable(lines: &[usize]) -> String {
    let named: Vec<String> = lines.iter().take(MAX_NAMED_LINES).map(usize::to_string).collect();
    let (named, more) = (named.join(", "), lines.len().saturating_sub(MAX_NAMED_LINES));
    let which = match (lines.len(), more) {
        (1, _) => format!("line {named} is"),
        (_, 0) => format!("lines {named} are"),
        _ => format!("lines {named} and {more} more are"),
    };
    format!(
        "{which} not NAME=value; a comment begins with #, and a value of several lines needs quotes around it"
    )
}

/// The text says what is doubtful, and then what to do.
fn warning_text(entry: &Entry, warning: ValueWarning) -> Option<String> {
    let Entry { name, line, .. } = entry;
    match warning {
        ValueWarning::Comment => Some(format!(
            "{name} in line {line} of .env ends before a #, which begins a comment; put the value in single quotes if the # belongs \
             to it, or a space before the # if it does not"
        )),
        ValueWarning::OpenQuote => Some(format!(
            "{name} in line {line} of .env begins with a quote that does not end it, so the quote is a part of the value; end the \
             value with the same quote, or put it in quotes of another kind"
        )),
        ValueWarning::Literal => None,
    }
}

fn dotenv_problem(text: String) -> ConfigError {
    ConfigError(vec![Problem { setting: ".env", text }])
}

/// Shows names without values.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("flags", &self.flags.keys())
            .field("dotenv", &self.dotenv.keys())
            .finish_non_exhaustive()
    }
}
