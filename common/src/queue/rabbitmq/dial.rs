//! One connection to one host, from TCP to login, and its end.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use lapin::tcp::AsyncTcpStream;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::legible::{self, Legible};
use super::link::{Link, rpc, sorted};
use super::state::{State, follow};
use super::tls;
use super::topology::short;
use crate::queue::{AmqpHost, QueueError};

/// How often each side gives a sign of life, in seconds, unless the URL says `heartbeat=`. After two silent intervals a
/// side takes the other for gone: 30 s are shorter than the 45 s after which a silent transfer is taken over, and long
/// enough for a broker that pauses. Left alone, RabbitMQ's 60 would mean two minutes.
const HEARTBEAT_S: u16 = 15;

/// The largest frame, RabbitMQ's own default, unless the URL says `frame_max=`. Said beforehand, the client has its two
/// buffers of 32 frames from the start, as pages that the kernel gives only when they are used; grown when the broker
/// names a size they are written full of zeros, which makes 15 MiB of an idle worker with two connections. Not smaller: a
/// message whose headers somebody else filled would then break the connection of whoever takes it.
const FRAME_MAX: u32 = 131_072;

/// How long a goodbye may take: of a command that somebody waits for, and of a worker, whose jobs go back sooner by it.
pub(super) const GOODBYE: Duration = Duration::from_millis(500);
pub(super) const GOODBYE_OF_WORKER: Duration = Duration::from_secs(3);

/// An open connection. Dropped, it says goodbye by itself; [`Wire::end`] makes sure that nothing of it stays.
pub(super) struct Wire {
    connection: Connection,
    socket: Socket,
    following: Option<AbortHandle>,
    pub(super) host: String,
    pub(super) since: Instant,
}

impl Wire {
    /// Connect and log in within `limit`.
    pub(super) async fn dial(host: &AmqpHost, name: &str, limit: Duration) -> Result<Wire, QueueError> {
        // The parser's own words could hold a part of the address.
        let mut uri: AMQPUri = host.uri.parse().map_err(|_| {
            QueueError::Refused("a parameter of the address has no such value; heartbeat is in seconds".to_owned())
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        let secure = if host.secure() { Some(tls::connector(&host.tls)?) } else { None };
        let (runtime, connecting) = legible::runtime();
        let socket = Socket::default();
        let kept = socket.clone();
        let (name_of, port) = (host.name.clone(), host.port);
        let opening = Connection::connector(
            uri,
            runtime,
            async move |_, _| {
                let opened = timeout(limit, async {
                    let addresses = connecting.to_socket_addrs((name_of.clone(), port));
                    let mut stream = AsyncTcpStream::connect(&connecting, addresses).await?;
                    if let AsyncTcpStream::Plain(plain) = &stream {
                        kept.keep(plain.get_ref())?;
                    }
                    if let Some(connector) = &secure {
                        stream = stream.into_rustls(connector, &name_of).await?;
                    }
                    Ok(AsyncTcpStream::Plain(Legible::new(stream)))
                });
                Ok(opened.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).flatten()?)
            },
            ConnectionProperties::default().with_connection_name(name.into()),
        );
        // The client's own thread would wait for ever for a peer that says nothing.
        let hangup = Hangup(Some(socket.clone()));
        let connection = match timeout(limit, opening).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(failure(&error, host)),
            Err(_) => return Err(silent(limit)),
        };
        hangup.disarm();
        Ok(Wire { connection, socket, following: None, host: host.label.clone(), since: Instant::now() })
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// The broker is short of memory or disk and takes nothing more from those who publish.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Have what happens to it followed until it ends.
    pub(super) fn follow(&mut self, state: Arc<State>, link: Weak<Link>) {
        let (status, events) = (self.connection.status().clone(), self.connection.events_listener());
        let following = tokio::spawn(follow(state, link, self.host.clone(), status, events));
        self.following = Some(following.abort_handle());
    }

    pub(super) fn raw(&self) -> &Connection {
        &self.connection
    }

    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        rpc("channel.open", self.connection.create_channel()).await
    }

    /// Say goodbye, and hang up if nobody answers within `limit`; at once where the broker lets nothing be written.
    pub(super) async fn end(self, limit: Duration) {
        if let Some(following) = &self.following {
            following.abort();
        }
        let limit = if self.connection.status().blocked() { Duration::ZERO } else { limit };
        let goodbye = timeout(limit, self.connection.close(200, short("done"))).await;
        tracing::debug!(host = self.host, ?goodbye, "connection ended");
        self.socket.hang_up();
    }
}

/// A second handle on the socket, to end what the client's thread waits for.
#[derive(Clone, Default)]
struct Socket(Arc<OnceLock<TcpStream>>);

impl Socket {
    fn keep(&self, stream: &tokio::net::TcpStream) -> io::Result<()> {
        let again = stream.as_fd().try_clone_to_owned()?;
        drop(self.0.set(again.into()));
        Ok(())
    }

    fn hang_up(&self) {
        if let Some(socket) = self.0.get()
            && let Err(error) = socket.shutdown(Shutdown::Both)
        {
            tracing::trace!(%error, "the socket was closed already");
        }
    }
}

/// Hangs up unless disarmed: on a failure, and when connecting is given up half-way.
struct Hangup(Option<Socket>);

impl Hangup {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Hangup {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            socket.hang_up();
        }
    }
}

fn silent(limit: Duration) -> QueueError {
    QueueError::Unavailable(format!("no answer within {:.0} s", limit.as_secs_f64()))
}

fn failure(error: &lapin::Error, host: &AmqpHost) -> QueueError {
    if matches!(error.kind(), ErrorKind::ParsingError(_)) {
        let guess = if host.secure() { "" } else { "; if this is the broker's port of TLS, write amqps://" };
        return QueueError::Refused(format!("what answers there does not speak AMQP{guess}"));
    }
    let ErrorKind::IOError(io) = error.kind() else { return sorted("log in", error) };
    if let Some(reason) = tls::failure(io, &host.tls, &host.name) {
        return QueueError::Refused(reason);
    }
    QueueError::Unavailable(match (io.kind(), host.secure()) {
        (io::ErrorKind::TimedOut, _) => "no answer in time".to_owned(),
        (io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof, secure) => {
            let guess = match (secure, &host.tls.cert) {
                (false, _) => "if this is its port of TLS, write amqps://",
                (true, None) => "perhaps it asks for a client certificate: ?certfile=FILE&keyfile=FILE",
                (true, Some(_)) => "perhaps it does not accept certfile; its own log says why",
            };
            format!("the broker hung up before the login; {guess}")
        }
        _ => io.to_string(),
    })
}
