//! The findings that `check` prints.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub text: String,
    /// The advice for the user.
    pub fix: Option<String>,
}

impl Finding {
    pub fn ok(text: impl Into<String>) -> Self {
        Self { level: Level::Ok, text: text.into(), fix: None }
    }

    pub fn warn(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Warn, text: text.into(), fix: Some(fix.into()) }
    }

    pub fn fail(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Fail, text: text.into(), fix: Some(fix.into()) }
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
        match &self.fix {
            Some(fix) => write!(f, "{level}: {text}; {}", fix.replace(['\r', '\n'], " ")),
            None => write!(f, "{level}: {text}"),
        }
    }
}
