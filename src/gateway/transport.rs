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

use super::Place;

/// The connection.
#[derive(Debug)]
pub struct Transport {
    stream: Arc<TcpStream>,
    stall_timeout: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Free again when the connection ends, whoever holds it then.
    place: Option<Place>,
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
        Ok(Self { stream: Arc::new(stream), stall_timeout, stalled: None, place: None })
    }

    pub fn with_place(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
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
            Poll::Ready(()) => {
                // The library's writer drops the packet whose write failed and goes on: the reader has to end, too.
                let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Both);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// The race: a client stalls a little longer than it may, a write fails, the library forgets that packet and
    /// goes on, and the client reads on. It must find the end of the connection after what was written before.
    #[tokio::test]
    async fn a_peer_that_took_nothing_for_too_long_finds_the_connection_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let mut transport = Transport::accept(accepted, Duration::from_millis(100)).unwrap();

        let mut written = 0;
        let error = loop {
            match transport.write(&[0; 64 * 1024]).await {
                Ok(n) => written += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let reading = tokio::spawn(async move {
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).await.map_or(0, |_| rest.len())
        });
        assert!(transport.write_all(b"later").await.is_err(), "what was lost is not followed by anything");
        assert_eq!(transport.read(&mut [0; 8]).await.unwrap_or(0), 0, "the reader ends");
        drop(transport);
        assert!(reading.await.unwrap() <= written);
    }
}
