//! An accepted TCP connection. It ends when its peer reads too little for too long, and other tasks can end it. When it is a
//! WebSocket, every task can write to it.

use std::{
    future::Future,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::Shutdown,
    pin::Pin,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use crate::edge::Slot;
use crate::{
    address::QuotaPermit,
    metrics::{CutReason, Metrics, RejectReason},
    rate_limited_log::rate_limited_log,
};

/// By default, the kernel would hold megabytes for each client that reads nothing. Meanwhile, the server could not see that the
/// client does not read.
const SEND_BUFFER: usize = 128 * 1024;
/// While the kernel's buffer is full, the server tries to write this many times in `SLOW_CLIENT_TIMEOUT`.
const WRITE_RETRIES: u32 = 4;
/// A peer that accepts fewer bytes than this in `SLOW_CLIENT_TIMEOUT` counts as one that accepts none. Otherwise a client could keep its
/// queue in memory for ever by reading a byte now and then.
const MIN_PROGRESS: usize = 4096;
/// After its last answer, the server reads for this long what the peer still sends. The kernel resets a connection that is closed
/// with unread bytes, and a client that is refused in the middle of a large body would not get the reason.
const LINGER: Duration = Duration::from_secs(1);

/// The side of a connection that its own task holds: it reads, writes and closes.
#[derive(Debug)]
pub struct TcpConnection {
    tcp: Arc<Tcp>,
    stall_timeout: Duration,
    /// Runs while the peer accepts nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs after the last answer.
    lingering: Option<Pin<Box<Sleep>>>,
    /// The slot is free again when the connection ends, no matter which task holds the connection then.
    _slot: Option<Slot>,
    metrics: Option<Arc<Metrics>>,
}

/// The connection itself, shared by all tasks that write to it or end it.
#[derive(Debug)]
pub struct Tcp {
    stream: TcpStream,
    /// When the peer last made progress, in milliseconds of [`CLOCK`].
    last_progress: AtomicU64,
    /// How many bytes the peer has accepted since then. They are not progress yet: see [`MIN_PROGRESS`].
    bytes_since_progress: AtomicU32,
    /// How many more bytes are read from the peer. [`UNLIMITED`] means that there is no limit.
    allowance: AtomicUsize,
    /// A permit from the quota of the peer's address for connections without a token.
    quota_permit: Mutex<Option<QuotaPermit>>,
    /// When the first byte since the last reset was read, in milliseconds of [`CLOCK`]. 0 means that none was read.
    first_byte: AtomicU64,
}

/// An allowance without a limit.
const UNLIMITED: usize = usize::MAX;

static CLOCK: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Controls a connection from other tasks, without keeping it alive.
#[derive(Clone, Debug, Default)]
pub struct TcpHandle(Weak<Tcp>);

impl TcpHandle {
    pub fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub fn shut(&self) {
        if let Some(tcp) = self.0.upgrade() {
            tcp.shut();
        }
    }

    /// From now on, only this many bytes are read from the peer.
    pub fn allow(&self, bytes: usize) {
        if let Some(tcp) = self.0.upgrade() {
            tcp.allowance.store(bytes, Ordering::Relaxed);
        }
    }

    /// The client has shown a token. This removes the limit on what is read, and returns the quota permit.
    pub fn trust(&self) {
        if let Some(tcp) = self.0.upgrade() {
            tcp.allowance.store(UNLIMITED, Ordering::Relaxed);
            tcp.quota_permit.lock().take();
        }
    }

    /// Returns whether the connection holds a permit from the quota of its address for connections without a token.
    pub fn has_quota_permit(&self) -> bool {
        self.0.upgrade().is_some_and(|tcp| tcp.quota_permit.lock().is_some())
    }

    /// Takes this permit from the connection.
    pub fn take_quota_permit(&self) -> Option<QuotaPermit> {
        self.0.upgrade()?.quota_permit.lock().take()
    }

    /// Ends the connection, unless bytes have come that are not read yet. Returns whether the connection has ended.
    pub fn shut_if_no_unread(&self) -> bool {
        let Some(tcp) = self.0.upgrade() else { return true };
        let is_quiet = !tcp.has_unread();
        if is_quiet {
            tcp.shut();
        }
        is_quiet
    }

    /// Resets the time of the first byte: the next byte that is read counts as the first one of a request.
    pub fn forget_first_byte(&self) {
        if let Some(tcp) = self.0.upgrade() {
            tcp.first_byte.store(0, Ordering::Relaxed);
        }
    }

    /// When the peer last accepted bytes.
    pub fn last_progress(&self) -> Option<Instant> {
        self.0.upgrade().map(|tcp| tcp.last_progress_at())
    }
}

impl Tcp {
    /// Writes as much as the kernel accepts.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match slices {
            [one] => self.stream.try_write(one),
            many => self.stream.try_write_vectored(many),
        }?;
        self.record_written(written, slices.iter().map(|slice| slice.len()).sum());
        Ok(written)
    }

    /// Writes as much as the kernel accepts, even if the runtime has not noticed that there is room.
    pub fn write_directly(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = SockRef::from(&self.stream).send_vectored(slices)?;
        self.record_written(written, slices.iter().map(|slice| slice.len()).sum());
        Ok(written)
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Returns whether bytes have come that have not been read, even if the runtime has not noticed yet.
    pub fn has_unread(&self) -> bool {
        SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0)
    }

    /// Ends the connection now.
    pub fn shut(&self) {
        // An error means that the connection is already closed.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    /// When the first byte since the last reset was read.
    pub fn first_byte(&self) -> Option<Instant> {
        let at = self.first_byte.load(Ordering::Relaxed);
        (at > 0).then(|| *CLOCK + Duration::from_millis(at))
    }

    fn record_first_byte(&self) {
        if self.first_byte.load(Ordering::Relaxed) == 0 {
            let now = CLOCK.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
            self.first_byte.store(now.max(1), Ordering::Relaxed);
        }
    }

    /// Subtracts what was read from the allowance. Returns whether the allowance was large enough. Only one task reads, and a
    /// concurrent [`TcpHandle::trust`] stays in effect.
    fn is_allowed(&self, read: usize) -> bool {
        let left = |allowance: usize| match allowance {
            UNLIMITED => None,
            limited => Some(limited.saturating_sub(read)),
        };
        match self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
            Err(_) => true,
            Ok(before) => before >= read,
        }
    }

    /// When the peer last accepted bytes.
    pub fn last_progress_at(&self) -> Instant {
        *CLOCK + Duration::from_millis(self.last_progress.load(Ordering::Relaxed))
    }

    /// Records that the kernel has accepted `written` of the `offered` bytes. Returns whether this is progress of the peer. Only one
    /// task writes at a time.
    fn record_written(&self, written: usize, offered: usize) -> bool {
        let bytes_since_progress = self.bytes_since_progress.load(Ordering::Relaxed) as usize + written;
        let is_progress = written >= offered || bytes_since_progress >= MIN_PROGRESS;
        self.bytes_since_progress
            .store(if is_progress { 0 } else { bytes_since_progress as u32 }, Ordering::Relaxed);
        if is_progress {
            self.record_progress();
        }
        is_progress
    }

    fn record_progress(&self) {
        let now = CLOCK.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.last_progress.store(now, Ordering::Relaxed);
    }
}

impl TcpConnection {
    /// Without `TCP_NODELAY` each message waits for the acknowledgement of the one before, some 40 ms; without
    /// `TCP_USER_TIMEOUT` a peer that vanished is noticed only after many minutes.
    pub fn accept(stream: TcpStream, stall_timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        SockRef::from(&stream).set_tcp_user_timeout(Some(stall_timeout))?;
        SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
        let tcp = Tcp {
            stream,
            last_progress: AtomicU64::new(0),
            bytes_since_progress: AtomicU32::new(0),
            allowance: AtomicUsize::new(UNLIMITED),
            quota_permit: Mutex::default(),
            first_byte: AtomicU64::new(0),
        };
        tcp.record_progress();
        Ok(Self {
            tcp: Arc::new(tcp),
            stall_timeout,
            stalled: None,
            lingering: None,
            _slot: None,
            metrics: None,
        })
    }

    /// Gives the connection its slot, and a quota permit, which it holds until [`TcpHandle::trust`]. The metrics count
    /// it if its peer stalls.
    pub fn with_slot(self, slot: Slot, quota_permit: Option<QuotaPermit>, metrics: Arc<Metrics>) -> Self {
        *self.tcp.quota_permit.lock() = quota_permit;
        Self { _slot: Some(slot), metrics: Some(metrics), ..self }
    }

    pub fn handle(&self) -> TcpHandle {
        TcpHandle(Arc::downgrade(&self.tcp))
    }

    pub fn shared(&self) -> Arc<Tcp> {
        self.tcp.clone()
    }

    /// Reads what has come. If that is more than the peer may send before it has shown a token, this ends the connection.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.tcp.stream.try_read(buffer)?;
        if read > 0 {
            self.tcp.record_first_byte();
        }
        if self.tcp.is_allowed(read) {
            return Ok(read);
        }
        if let Some(metrics) = &self.metrics {
            metrics.clients.rejected.inc(RejectReason::UnauthenticatedBytes);
        }
        rate_limited_log!(
            warn,
            "closed a WebSocket that sent too much before it had shown a token; MAX_TOKEN_BYTES raises this limit"
        );
        self.tcp.shut();
        Err(io::ErrorKind::FileTooLarge.into())
    }

    /// The deadline of a peer that accepts nothing.
    pub fn stall_deadline(&self) -> Instant {
        self.tcp.last_progress_at() + self.stall_timeout
    }

    /// How long to wait before a write is tried although the kernel's buffer is full. The runtime reports room late.
    pub fn write_retry_interval(&self) -> Duration {
        self.stall_timeout / WRITE_RETRIES
    }

    /// Ends the connection, because the peer has accepted nothing for too long.
    pub fn abort_stalled(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.clients.cut.inc(CutReason::Stalled);
        }
        self.tcp.shut();
    }

    fn poll_write_slices(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.tcp.stream.poll_write_ready(cx)? {
                Poll::Pending => return self.poll_stalled(cx, slices),
                Poll::Ready(()) => match self.tcp.try_write(slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => {
                        self.stalled = None;
                        return Poll::Ready(done);
                    }
                },
            }
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let pause = self.write_retry_interval();
        loop {
            let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(timer.as_mut().poll(cx));
            self.stalled = None;
            match self.tcp.write_directly(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            if self.stall_deadline() <= Instant::now() {
                self.abort_stalled();
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.tcp.stream.poll_read_ready(cx)? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => match self.try_read(buf.initialize_unfilled()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(n) => {
                        buf.advance(n);
                        return Poll::Ready(Ok(()));
                    }
                },
            }
        }
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            if SockRef::from(&self.tcp.stream).shutdown(Shutdown::Write).is_err() {
                return Poll::Ready(Ok(()));
            }
            self.lingering = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        // The timer is checked first, because a peer that never stops sending always has more data to read.
        if let Some(timer) = &mut self.lingering
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        let mut rest = [0; 4096];
        while self.tcp.stream.poll_read_ready(cx)?.is_ready() {
            match self.tcp.stream.try_read(&mut rest) {
                Ok(0) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Ok(())),
                _ => {}
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A client stalls a little longer than it may, a write fails, and then the client continues to read. It must find the end of
    /// the connection after the bytes that were written before.
    #[tokio::test]
    async fn a_peer_that_took_nothing_for_too_long_finds_the_connection_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let mut connection = TcpConnection::accept(accepted, Duration::from_millis(100)).unwrap();

        let mut written = 0;
        let error = loop {
            match connection.write(&[0; 64 * 1024]).await {
                Ok(n) => written += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let reading = tokio::spawn(async move {
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).await.map_or(0, |_| rest.len())
        });
        assert!(connection.write_all(b"later").await.is_err(), "nothing follows the lost bytes");
        assert_eq!(connection.read(&mut [0; 8]).await.unwrap_or(0), 0, "the reader ends");
        drop(connection);
        assert!(reading.await.unwrap() <= written);
    }

    /// The server sends a refusal and closes the connection while the peer still sends its body. A reset would overtake the refusal.
    #[tokio::test]
    async fn a_peer_that_is_still_sending_receives_the_last_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let mut connection = TcpConnection::accept(accepted, Duration::from_secs(5)).unwrap();
        peer.write_all(&[0; 64 * 1024]).await.unwrap();

        connection.write_all(b"too large").await.unwrap();
        let closing = tokio::spawn(async move {
            connection.shutdown().await.unwrap();
            drop(connection);
        });
        peer.write_all(&vec![0; 8 << 20]).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut received = String::new();
        peer.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "too large");
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn a_few_bytes_now_and_then_are_no_progress() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let tcp = TcpConnection::accept(accepted, Duration::from_secs(60)).unwrap().shared();
        assert!(tcp.record_written(1, 1), "everything that was offered");
        for _ in 1..MIN_PROGRESS {
            assert!(!tcp.record_written(1, 1_000_000));
        }
        assert!(tcp.record_written(1, 1_000_000), "enough bytes together");
        assert!(!tcp.record_written(MIN_PROGRESS - 1, 1_000_000));
        assert!(tcp.record_written(MIN_PROGRESS, MIN_PROGRESS));
        assert!(!tcp.record_written(MIN_PROGRESS - 1, 1_000_000), "the count starts again");
    }

    #[tokio::test]
    async fn a_shutdown_does_not_wait_for_a_peer_that_never_stops_sending() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let mut connection = TcpConnection::accept(accepted, Duration::from_secs(60)).unwrap();
        let peer = tokio::spawn(async move { while peer.write_all(&[0; 64 * 1024]).await.is_ok() {} });
        tokio::time::timeout(Duration::from_secs(20), connection.shutdown()).await.unwrap().unwrap();
        drop(connection);
        peer.await.unwrap();
    }
}
