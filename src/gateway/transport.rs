//! An accepted TCP connection that ends when its peer takes no byte for too long, and that can be ended from
//! outside: the library's writer, once it waits for a peer that does not read, notices neither.

use std::{
    future::Future,
    io,
    net::Shutdown,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// The connection.
#[derive(Debug)]
pub struct Transport {
    stream: Arc<TcpStream>,
    stall_timeout: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// Ends a connection from outside.
#[derive(Clone, Debug, Default)]
pub struct TransportHandle(Weak<TcpStream>);

impl TransportHandle {
    pub fn shut(&self) {
        if let Some(stream) = self.0.upgrade() {
            // Already closed is as good.
            let _ = SockRef::from(&*stream).shutdown(Shutdown::Both);
        }
    }
}

impl Transport {
    /// Without `TCP_NODELAY` each message waits for the acknowledgement of the one before, some 40 ms; without
    /// `TCP_USER_TIMEOUT` a peer that vanished is noticed only after many minutes.
    pub fn accept(stream: TcpStream, stall_timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        SockRef::from(&stream).set_tcp_user_timeout(Some(stall_timeout))?;
        Ok(Self { stream: Arc::new(stream), stall_timeout, stalled: None })
    }

    pub fn handle(&self) -> TransportHandle {
        TransportHandle(Arc::downgrade(&self.stream))
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(cx)? {
                Poll::Pending => return self.poll_stalled(cx),
                Poll::Ready(()) => match write(&self.stream) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => {
                        self.stalled = None;
                        return Poll::Ready(done);
                    }
                },
            }
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let timeout = self.stall_timeout;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.stream.poll_read_ready(cx)? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => match self.stream.try_read(buf.initialize_unfilled()) {
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

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match SockRef::from(&*self.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }
}
