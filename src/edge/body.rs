//! Reads the complete body of a polling request, up to a limit.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is too large")]
    TooLarge {
        /// The body has at least this many bytes.
        bytes: usize,
    },
    #[error("the body is incomplete")]
    Incomplete,
}

/// Copies each piece of the body. A piece is a slice of the connection's read buffer, and would keep that buffer in memory. The
/// buffer may be as large as a request head.
pub async fn read_body(mut body: Body, max: usize) -> Result<Bytes, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max {
        return Err(BodyError::TooLarge { bytes: announced });
    }
    let mut bytes = Vec::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Incomplete)?.into_data() else { continue };
        if bytes.len() + data.len() > max {
            return Err(BodyError::TooLarge { bytes: bytes.len() + data.len() });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}
