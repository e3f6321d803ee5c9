//! A fake cloud on a real socket: Keystone answers with tokens, the rest is a closure of the test.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{CloudConfig, Clouds, Session};

/// The password of the fake cloud's user. No error may show it.
pub(crate) const PASSWORD: &str = "pa55word-of-the-test";
const TOKENS: &str = "/v3/auth/tokens";

/// A request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
    fn is_login(&self) -> bool {
        self.target == TOKENS
    }
}

/// What the fake cloud does with a request.
pub(crate) enum Reply {
    /// Status, further headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Closes the connection without an answer.
    Close,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Reply {
        Reply::Answer(status, vec![], body.to_string().into_bytes())
    }
    pub(crate) fn status(status: u16) -> Reply {
        Reply::Answer(status, vec![], vec![])
    }
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        if let Reply::Answer(_, headers, _) = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

/// A cloud that is one socket.
#[derive(Clone)]
pub(crate) struct Fake {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Keystone gives tokens `token-1`, `token-2`, ... of one hour; `handler` answers the rest.
    pub(crate) async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Fake {
        let count = AtomicUsize::new(0);
        Fake::start_all(
            move |request, address| {
                if request.is_login() { token(&count, 3600, address) } else { handler(request) }
            },
        )
        .await
    }

    /// As [`Fake::start`], with tokens that last this long.
    pub(crate) async fn start_with_life(
        seconds: i64,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Fake {
        let count = AtomicUsize::new(0);
        Fake::start_all(
            move |request, address| {
                if request.is_login() { token(&count, seconds, address) } else { handler(request) }
            },
        )
        .await
    }

    /// `handler` answers everything; it is told the address of this cloud.
    pub(crate) async fn start_all(handler: impl Fn(&Request, &str) -> Reply + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let fake = Fake { address: address.clone(), requests: Arc::default() };
        let (requests, handler) = (Arc::clone(&fake.requests), Arc::new(handler));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, handler, address) = (Arc::clone(&requests), Arc::clone(&handler), address.clone());
                tokio::spawn(async move {
                    serve(stream, &requests, |request| handler(request, &address)).await;
                });
            }
        });
        fake
    }

    /// A session in a project of this cloud.
    pub(crate) fn session(&self) -> Session {
        Session::new(self.config("")).unwrap()
    }

    /// The configuration of this cloud, with further lines of YAML.
    pub(crate) fn config(&self, more: &str) -> CloudConfig {
        let home = tempfile::tempdir().unwrap();
        let text = format!(
            "clouds:\n  fake:\n    auth: {{auth_url: '{}', username: u, password: {PASSWORD}, project_name: p,\n      \
             user_domain_name: Default, project_domain_name: Default}}\n    region_name: r1\n{more}",
            self.address
        );
        std::fs::write(home.path().join("clouds.yaml"), text).unwrap();
        let nothing = |_: &str| None;
        Clouds::load_from(&nothing, Path::new(home.path())).unwrap().get("fake").unwrap()
    }

    /// The requests so far that were not for a token.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().iter().filter(|request| !request.is_login()).cloned().collect()
    }

    /// The requests for a token so far.
    pub(crate) fn logins(&self) -> Vec<Request> {
        self.requests.lock().unwrap().iter().filter(|request| request.is_login()).cloned().collect()
    }
}

/// Keystone's answer: a project, and an image service in region `r1` at the same address.
fn token(count: &AtomicUsize, seconds: i64, address: &str) -> Reply {
    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
    let issued: jiff::Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let expires = issued.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    let endpoint = |interface: &str, region: &str, url: String| json!({ "interface": interface, "region": region, "region_id": region, "url": url });
    let body = json!({ "token": {
        "issued_at": issued, "expires_at": expires, "project": { "id": "project-1", "name": "p" },
        "catalog": [{ "type": "image", "name": "glance", "endpoints": [
            endpoint("public", "r2", format!("{address}/wrong-region")),
            endpoint("internal", "r1", format!("{address}/internal/v2/")),
            endpoint("public", "r1", address.to_owned()),
        ]}, { "type": "compute", "endpoints": [endpoint("internal", "r1", format!("{address}/nova"))] }],
    }});
    Reply::json(201, &body).with("x-subject-token", format!("token-{number}"))
}

async fn serve(mut stream: TcpStream, requests: &Mutex<Vec<Request>>, handler: impl Fn(&Request) -> Reply) {
    let Some(request) = receive(&mut stream).await else { return };
    requests.lock().unwrap().push(request.clone());
    let Reply::Answer(status, headers, body) = handler(&request) else { return };
    let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
    if status != 204 && !headers.iter().any(|(name, _)| *name == "content-length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
    let _ = stream.shutdown().await;
}

async fn receive(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut request = Request { method, target, headers, body: bytes[end + 4..].to_vec() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while request.body.len() < length {
        if stream.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}
