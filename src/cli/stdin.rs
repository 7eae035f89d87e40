//! Reads all of standard input. A thread does it, because the process must be able to end while the input is open.

use std::{
    io::{self, Read},
    thread,
};

use tokio::sync::oneshot;

/// The gateway accepts no larger body.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum StdinError {
    #[error("standard input is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("standard input can't be read as UTF-8")]
    Unreadable,
}

pub(super) async fn read_stdin() -> Result<String, StdinError> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let read = io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text);
        let _ = sender.send(match read {
            Ok(_) if text.len() as u64 > MAX_BYTES => Err(StdinError::TooLarge),
            Ok(_) => Ok(text),
            Err(_) => Err(StdinError::Unreadable),
        });
    });
    receiver.await.unwrap_or(Err(StdinError::Unreadable))
}
