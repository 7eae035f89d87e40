//! The id of a client's request.

use std::{fmt, sync::Arc};

/// The id by which a client recognizes the answer to its request. The answer repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId {
    Number(u64),
    /// A string or a number, as the client wrote it in JSON. The transport limits its length.
    Json(Arc<str>),
}

impl From<u64> for RequestId {
    fn from(id: u64) -> Self {
        Self::Number(id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => id.fmt(f),
            Self::Json(json) => f.write_str(json),
        }
    }
}
