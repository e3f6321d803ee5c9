//! What the AMQP client cannot read is made legible before it gets there.
//!
//! Strangers may publish to our exchange, and RabbitMQ hands on what stands around a message as it came. Short strings
//! should be UTF-8 (AMQP 0-9-1, 4.2.5.3), tables may lie in one another without end. lapin takes a short string of other
//! bytes for a broken connection, and reads tables by recursion until its stack is full. Either way one message would
//! stop every worker that takes it, again and again.

mod frame;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio, TokioRuntime};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::AsyncTcpStream;

use frame::Frames;

/// Bytes taken from the connection at once.
const INPUT: usize = 16 * 1024;

/// A connection, its TLS included, that is read frame by frame.
pub(super) struct Legible<S> {
    inner: S,
    input: Vec<u8>,
    frames: Frames,
}

impl<S> Legible<S> {
    pub(super) fn new(inner: S) -> Legible<S> {
        Legible { inner, input: vec![0; INPUT], frames: Frames::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Legible<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        let Legible { inner, input, frames } = self.get_mut();
        loop {
            let given = frames.give(target);
            if given > 0 || target.is_empty() {
                return Poll::Ready(Ok(given));
            }
            let taken = ready!(Pin::new(&mut *inner).poll_read(context, input))?;
            match input.get(..taken).filter(|taken| !taken.is_empty()) {
                Some(taken) => frames.take(taken),
                None if frames.end() => {}
                None => return Poll::Ready(Ok(0)),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Legible<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(context)
    }
}

/// The client's own kind of connection on tokio.
type Stranger = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// Tokio, with connections that are legible.
#[derive(Clone, Debug)]
pub(super) struct LegibleTokio(Tokio);

/// The runtime that the client is given, and the one that connects.
pub(super) fn runtime() -> (Runtime<RuntimeParts<Tokio, LegibleTokio>>, TokioRuntime) {
    let parts = RuntimeParts::new(Tokio::current(), LegibleTokio(Tokio::current()));
    (Runtime::new(parts), TokioRuntime::tokio_current())
}

impl Reactor for LegibleTokio {
    type TcpStream = Legible<Stranger>;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Neither the client nor we have sockets of other kinds.
    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(Legible::new(AsyncTcpStream::Plain(connecting.await?))) }
    }
}
