//! Reads the messages of one WebSocket, without waiting. tungstenite decodes them.

use std::io::{self, Read, Write};

use tokio_tungstenite::tungstenite::{
    Error, Message, Utf8Bytes,
    error::ProtocolError,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext},
};

use super::{TcpConnection, disconnect_reason::DisconnectReason};

/// Each connection holds a buffer of this size as long as it lives.
const READ_BUFFER: usize = 512;

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidInput {
    TooLong,
    Malformed,
}

/// The result of one read of the WebSocket.
pub(super) enum ReadOutcome {
    Text(Utf8Bytes),
    Binary,
    Pong,
    Close(Option<CloseFrame>),
    /// A message that needs no handling here.
    Other,
    /// Everything that has come has been read.
    Drained,
    Invalid(InvalidInput),
    Failed(DisconnectReason),
}

pub(super) struct Decoder {
    context: WebSocketContext,
    /// The longest message that is read.
    limit: usize,
    /// Bytes received from the client.
    received: u64,
}

impl Decoder {
    /// `rest` contains bytes that have already been read behind the upgrade request.
    pub fn new(rest: Vec<u8>, limit: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        let context = WebSocketContext::from_partially_read(rest, Role::Server, Some(config));
        Self { context, limit, received: 0 }
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    /// Sets the length of the longest message that is read from now on.
    pub fn set_limit(&mut self, limit: usize) {
        if limit != self.limit {
            self.limit = limit;
            self.context.set_config(|config| {
                config.max_message_size = Some(limit);
                config.max_frame_size = Some(limit);
            });
        }
    }

    /// Reads one message. The frames with which the WebSocket protocol answers it are appended to `control_frames`.
    pub fn read(&mut self, tcp: &TcpConnection, control_frames: &mut Vec<u8>) -> ReadOutcome {
        let mut stream = Stream { tcp, received: &mut self.received, control_frames };
        match self.context.read(&mut stream) {
            Ok(Message::Text(text)) => ReadOutcome::Text(text),
            Ok(Message::Binary(_)) => ReadOutcome::Binary,
            Ok(Message::Pong(_)) => ReadOutcome::Pong,
            Ok(Message::Close(frame)) => {
                let _ = self.context.flush(&mut stream);
                ReadOutcome::Close(frame)
            }
            Ok(_) => ReadOutcome::Other,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => ReadOutcome::Drained,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                ReadOutcome::Failed(DisconnectReason::TransportClose)
            }
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                ReadOutcome::Failed(DisconnectReason::TransportError)
            }
            Err(Error::Capacity(_)) => ReadOutcome::Invalid(InvalidInput::TooLong),
            Err(Error::Protocol(_) | Error::Utf8(_)) => ReadOutcome::Invalid(InvalidInput::Malformed),
            Err(_) => ReadOutcome::Failed(DisconnectReason::TransportError),
        }
    }
}

/// The transport as the decoder sees it. Reads never wait, and writes are collected in `control_frames`, to be queued like other packets.
struct Stream<'a> {
    tcp: &'a TcpConnection,
    received: &'a mut u64,
    control_frames: &'a mut Vec<u8>,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.tcp.try_read(buffer)?;
        *self.received += read as u64;
        Ok(read)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.control_frames.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
