//! HTTP to one cloud: two clients, the rules of sending, and an answer that was read to its end.
//!
//! Connections are never reused: servers that close after each answer (uWSGI) race with a pool, and a
//! handshake is nothing beside what our calls do. Redirects are not followed: they would carry the token
//! to another host.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::header::{CONNECTION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Identity, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use super::config::CloudConfig;
use super::error::{self, CloudError, CloudErrorKind, Place};
use crate::http_time;

/// Before a call is repeated that found no connection.
const REPEAT_AFTER: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole call that carries no image: connection, answer and body.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A page of 1000 images is about 2 MiB; an image may carry large properties.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
const ERROR_BODY_MAX: usize = 64 * 1024;
const USER_AGENT: &str = concat!("imagewright/", env!("CARGO_PKG_VERSION"));

/// The two clients of a cloud.
pub(super) struct Clients {
    /// For calls: limited in time.
    pub(super) api: Client,
    /// For images: HTTP/1.1, and no limit in time, for a time-out of reqwest runs on while a body is being
    /// sent. Whoever transfers watches for a stall.
    pub(super) data: Client,
}

impl Clients {
    pub(super) fn new(config: &CloudConfig) -> Result<Clients, CloudError> {
        let place = Place { cloud: config.name.clone(), operation: "prepare TLS".to_owned() };
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let build = |builder: ClientBuilder| builder.build().map_err(|error| unusable(&error, &place));
        Ok(Clients {
            api: build(builder(config, &place)?.timeout(CALL_TIMEOUT))?,
            data: build(builder(config, &place)?.http1_only().default_headers(headers))?,
        })
    }
}

fn builder(config: &CloudConfig, place: &Place) -> Result<ClientBuilder, CloudError> {
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none());
    if !config.verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else if let Some(path) = &config.cacert {
        let authorities = Certificate::from_pem_bundle(&read(path, "cacert", place)?)
            .ok()
            .filter(|authorities| !authorities.is_empty())
            .ok_or_else(|| pem_error(place, "cacert", path))?;
        builder = builder.tls_certs_only(authorities);
    }
    if let Some((cert, key)) = &config.client_cert {
        let mut pem = read(cert, "cert", place)?;
        if let Some(key) = key {
            pem.push(b'\n');
            pem.extend(read(key, "key", place)?);
        }
        let identity = Identity::from_pem(&pem).map_err(|_| pem_error(place, "cert (with key)", cert))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// The usual reason is a machine without certificate authorities.
fn unusable(error: &reqwest::Error, place: &Place) -> CloudError {
    let mut error = place.transport(error);
    error.message.push_str("; install the system's ca-certificates, or set cacert in clouds.yaml");
    error
}

fn read(path: &Path, key: &str, place: &Place) -> Result<Vec<u8>, CloudError> {
    std::fs::read(path).map_err(|error| {
        place.error(CloudErrorKind::Config, format!("{key} of clouds.yaml, {}: {error}", path.display()))
    })
}

fn pem_error(place: &Place, key: &str, path: &Path) -> CloudError {
    let text = format!("{key} of clouds.yaml, {}, is not such a PEM file", path.display());
    place.error(CloudErrorKind::Config, text)
}

/// An answer of success, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    body: Bytes,
    place: Place,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, CloudError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // Category and place alone: the text of a serde error may quote a value.
            let text = format!("the answer is not understood (line {}, column {})", error.line(), error.column());
            self.protocol(text)
        })
    }

    /// An answer that lacks what the API reference promises.
    pub(crate) fn protocol(&self, text: impl Into<String>) -> CloudError {
        let mut error = self.place.error(CloudErrorKind::Protocol, text);
        error.request_id = error::request_id(&self.headers);
        error
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The server's clock when it answered, where it says so: uWSGI alone sends no `Date`.
    pub(crate) fn date(&self) -> Option<Timestamp> {
        http_time::date(&self.headers)
    }
}

/// Why there is no answer of success. Kept apart until it is clear whether to repeat the call.
enum Failure {
    Transport(reqwest::Error),
    Refused(CloudError),
}

impl Failure {
    fn at(self, place: &Place) -> CloudError {
        match self {
            Failure::Transport(error) => place.transport(&error),
            Failure::Refused(error) => error,
        }
    }
}

/// Sends and reads the answer; an error status is an error. What finds or loses its connection is sent once
/// more if it is `repeatable`, but not what took too long.
pub(super) async fn send(
    request: &(dyn Fn() -> RequestBuilder + Sync),
    repeatable: bool,
    place: &Place,
    secrets: &[&str],
) -> Result<Answer, CloudError> {
    let first = send_once(request(), place, secrets).await;
    let result = match first {
        Err(Failure::Transport(error)) if repeatable && !error.is_timeout() && !error.is_builder() => {
            tokio::time::sleep(REPEAT_AFTER).await;
            send_once(request(), place, secrets).await
        }
        first => first,
    };
    result.map_err(|failure| failure.at(place))
}

async fn send_once(request: RequestBuilder, place: &Place, secrets: &[&str]) -> Result<Answer, Failure> {
    let response = answered(request, place, secrets).await?;
    let headers = response.headers().clone();
    let (body, complete) = read_body(response, ANSWER_MAX).await.map_err(Failure::Transport)?;
    let answer = Answer { headers, body, place: place.clone() };
    if complete { Ok(answer) } else { Err(Failure::Refused(answer.protocol("the answer is longer than 64 MiB"))) }
}

/// Sends once and returns when the answer begins; an error status is an error.
pub(super) async fn begin(request: RequestBuilder, place: &Place, secrets: &[&str]) -> Result<Response, CloudError> {
    answered(request, place, secrets).await.map_err(|failure| failure.at(place))
}

async fn answered(request: RequestBuilder, place: &Place, secrets: &[&str]) -> Result<Response, Failure> {
    let response = request.send().await.map_err(Failure::Transport)?;
    let status = response.status();
    tracing::debug!(
        cloud.name = %place.cloud,
        http.operation = %place.operation,
        http.status = status.as_u16(),
        cloud.request_id = error::request_id(response.headers()).as_deref(),
        "a cloud answered"
    );
    if status.is_success() {
        return Ok(response);
    }
    Err(Failure::Refused(refusal(response, status, place, secrets).await))
}

async fn refusal(response: Response, status: StatusCode, place: &Place, secrets: &[&str]) -> CloudError {
    let headers = response.headers().clone();
    // The status says enough if the connection breaks now, or stalls: the data client has no time-out.
    let body = tokio::time::timeout(CONNECT_TIMEOUT, read_body(response, ERROR_BODY_MAX)).await;
    let body = body.ok().and_then(Result::ok).map(|(body, _)| body).unwrap_or_default();
    place.answer(status, &headers, &body, secrets)
}

/// At most `limit` bytes of the body, and whether that is all of it.
async fn read_body(mut response: Response, limit: usize) -> Result<(Bytes, bool), reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body.freeze(), false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body.freeze(), true))
}
