//! What the gateway's answer to a report means.

use serde::Deserialize;

use crate::{cli::http_request::Answer, http_client::RequestError};

#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Stored {
        accepted: u64,
        duplicates: u64,
    },
    /// Some event of the request is wrong.
    Refused(String),
    /// A later attempt may succeed.
    Temporary(String),
    /// No request can succeed.
    Fatal(String),
}

#[derive(Deserialize)]
struct Stored {
    accepted: u64,
    duplicates: u64,
}

#[derive(Deserialize)]
struct Failed {
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    path: String,
    message: String,
}

impl Outcome {
    pub(super) fn of(answer: Result<Answer, RequestError>) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Self::Temporary(error.to_string()),
        };
        let status = answer.status;
        if status == 202 {
            return match serde_json::from_str(&answer.body) {
                Ok(Stored { accepted, duplicates }) => Self::Stored { accepted, duplicates },
                Err(_) => Self::Fatal("the answer is not that of a taskcast gateway".to_owned()),
            };
        }
        let reason = reason(&answer.body).unwrap_or_else(|| format!("the answer has the status {status}"));
        match status {
            400 | 409 | 413 | 422 => Self::Refused(reason),
            408 | 429 | 500.. => Self::Temporary(reason),
            _ => Self::Fatal(reason),
        }
    }
}

/// The problems that the answer names, or its message.
fn reason(body: &str) -> Option<String> {
    let Failed { error } = serde_json::from_str(body).ok()?;
    let details = error.details.iter().map(|Detail { path, message }| format!("{path} {message}"));
    let details = details.collect::<Vec<_>>().join("; ");
    Some(if details.is_empty() { error.message } else { details })
}
