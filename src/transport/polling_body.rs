//! The bodies of polling requests and of their answers. Both implementations of Socket.IO use them.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The server reads at most this many bodies of one polling client at once. A client sends one after the other, but the next may
/// overtake the end of the one before.
const MAX_POSTS: usize = 2;
/// The server sends an answer in chunks of this size. The chunks show how fast the client reads, and whether it reads the whole answer.
const CHUNK_BYTES: usize = 16 * 1024;

/// The bodies of one polling client that are being read. Each holds a clone of the client's own guard.
#[derive(Debug, Default)]
pub(super) struct Posts(PostGuard);

/// Stands for a body that is being read, until it is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct PostGuard(Arc<()>);

impl Posts {
    /// `None` means that the client sends too many at once.
    pub fn begin(&self) -> Option<PostGuard> {
        // One reference is the client's own.
        (Arc::strong_count(&self.0.0) <= MAX_POSTS).then(|| self.0.clone())
    }

    /// Returns whether a body is being read.
    pub fn is_reading(&self) -> bool {
        Arc::strong_count(&self.0.0) > 1
    }
}

/// The client that an answer goes to.
pub(super) trait PollingClient: Send + Sync + 'static {
    /// So many bytes of the answer have left.
    fn record_sent(&self, _bytes: usize) {}

    /// The client has broken off the answer, and would not get the rest. The session has to end, so that nothing is lost silently.
    fn break_off(&self);
}

/// The body of the answer to a polling request.
pub(super) struct AnswerBody<C: PollingClient> {
    rest: Bytes,
    client: Option<Arc<C>>,
}

impl<C: PollingClient> AnswerBody<C> {
    /// `None` means that nothing is lost if the client does not get the answer.
    pub fn new(answer: Bytes, client: Option<Arc<C>>) -> Self {
        Self { rest: answer, client }
    }
}

impl<C: PollingClient> Drop for AnswerBody<C> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take().filter(|_| !self.rest.is_empty()) {
            client.break_off();
        }
    }
}

impl<C: PollingClient> Body for AnswerBody<C> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(CHUNK_BYTES);
        let chunk = self.rest.split_to(length);
        if let Some(client) = &self.client {
            client.record_sent(length);
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
