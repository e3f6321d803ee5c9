//! `--listen`: `/healthz`, `/readyz` and `/metrics` by HTTP. One request a connection, small and soon, so that a client
//! that gets stuck costs a moment and little memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};

use crate::scrape::Scrape;
use crate::vitals::Vitals;

/// How long a request may take to come.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// How long a connection lives, slow readers included.
const CONNECTION_TIME: Duration = Duration::from_secs(15);

/// Bytes of a request's head; the least that the server takes.
const HEADER_MAX: usize = 8192;

/// Connections at once. One more ends the oldest.
const CONNECTIONS_MAX: usize = 64;

/// After a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is told, and to whom it is asked.
pub(crate) struct Pages {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) scrape: Scrape,
}

/// Serve `pages` at `address` until the task is aborted.
///
/// # Errors
/// The address cannot be used: taken, not ours, not allowed.
pub(crate) async fn serve(address: SocketAddr, pages: Pages) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("--listen {address}"))?;
    let bound = listener.local_addr().with_context(|| format!("--listen {address}"))?;
    tracing::info!(address = %bound, "listening: /healthz, /readyz, /metrics");
    Ok(tokio::spawn(accept(listener, Arc::new(pages))))
}

async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= CONNECTIONS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        connections.push_back(tokio::spawn(timeout(CONNECTION_TIME, converse(stream, pages.clone()))).abort_handle());
    }
}

async fn converse(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(move |request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(pages.answer(&request).await) }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = conversation.await {
        tracing::debug!(%error, "a conversation broke off");
    }
}

impl Pages {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
            return page(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n");
        }
        if request.method() != Method::GET {
            let refusal = page(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            return with(refusal, ALLOW, "GET");
        }
        match path {
            "/healthz" => verdict(self.vitals.health()),
            "/readyz" => verdict(self.vitals.readiness()),
            _ => with(page(StatusCode::OK, self.scrape.text().await), CONTENT_TYPE, METRICS_TYPE),
        }
    }
}

fn verdict(fares: Result<(), &'static str>) -> Response<Full<Bytes>> {
    match fares {
        Ok(()) => page(StatusCode::OK, "ok\n"),
        Err(reason) => page(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn page(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    with(with(response, CONTENT_TYPE, "text/plain; charset=utf-8"), CACHE_CONTROL, "no-store")
}

fn with(mut response: Response<Full<Bytes>>, name: HeaderName, value: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
