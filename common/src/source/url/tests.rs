use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;

use super::super::{DigestCache, Opened};
use super::*;
use crate::job::DiskFormat;

/// A server of plain http that answers by path, and remembers what it was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let log = asked.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection: TcpStream = connection.unwrap();
                let mut request = vec![0; 4096];
                let size = connection.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..size]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(request);
                // The client may have gone.
                connection.write_all(&answer(&path)).ok();
            }
        });
        Server { port, asked }
    }

    fn url(&self, rest: &str) -> Url {
        Url::parse(&format!("http://127.0.0.1:{}{rest}", self.port)).unwrap()
    }
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\n{headers}\r\n").as_bytes(), body].concat()
}

fn ok(body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("Content-Length: {}\r\n", body.len()), body)
}

fn client(hosts: &[&str]) -> UrlClient {
    let mut policy = UrlPolicy::new(hosts).unwrap();
    policy.plain_http = true;
    UrlClient::with_proxies(policy, Vec::new()).unwrap()
}

async fn failure(client: &UrlClient, url: &Url) -> SourceError {
    match client.get(url, FIELD).await {
        Ok(_) => panic!("taken"),
        Err(error) => error,
    }
}

#[track_caller]
fn refused(error: SourceError, word: &str) {
    let SourceError::Refused { field, reason } = error else { panic!("{error:?}") };
    assert_eq!(field, FIELD);
    assert!(reason.contains(word), "{reason:?} does not say {word:?}");
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

#[tokio::test]
async fn a_star_reaches_no_private_address_by_literal_name_or_redirect() {
    let server = Server::start(|_| ok(b"inner"));
    let port = server.port;
    let star = client(&["*"]);
    refused(failure(&star, &server.url("/")).await, "not public");
    for text in ["http://2130706433/", "http://0x7f.1/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/latest"]
    {
        refused(failure(&star, &url(text)).await, "not public");
    }
    // Resolved by the client itself, so that the refusal comes from the hook that it connects with.
    refused(failure(&star, &url(&format!("http://localhost:{port}/"))).await, "not public");
    assert!(server.asked.lock().unwrap().is_empty());
    let redirecting =
        Server::start(move |_| answer("302 Found", &format!("Location: http://localhost:{port}/\r\n"), b""));
    refused(failure(&client(&["127.0.0.1", "*"]), &redirecting.url("/")).await, "not public");
    assert!(server.asked.lock().unwrap().is_empty());
    let named = client(&["*", "localhost"]);
    assert_eq!(named.get(&url(&format!("http://localhost:{port}/")), FIELD).await.unwrap().length, 5);
}

#[tokio::test]
async fn a_proxy_is_nobodys_source() {
    let policy = UrlPolicy::new(&["*"]).unwrap();
    let names =
        policy::proxy_hosts(|name| (name == "https_proxy").then(|| "http://u:p@Proxy.internal:3128".to_owned()));
    assert_eq!(names, ["proxy.internal"]);
    let client = UrlClient::with_proxies(policy, names).unwrap();
    refused(failure(&client, &url("https://proxy.internal/")).await, "proxy");
    refused(failure(&client, &url("https://localhost/")).await, "not public");
}

#[tokio::test]
async fn redirects_are_followed_five_times_and_checked() {
    let server =
        Server::start(|path| match path.trim_start_matches('/').trim_end_matches("?s=secret").parse::<u32>() {
            Ok(0) => ok(b"there"),
            Ok(left) => answer("302 Found", &format!("Location: /{}?s=secret\r\nContent-Length: 0\r\n", left - 1), b""),
            Err(_) => match path {
                "/out" => answer("301 Moved", "Location: http://evil.example/?s=secret\r\n", b""),
                "/user" => answer("307 Temporary", "Location: http://u:secret@127.0.0.1/\r\n", b""),
                "/file" => answer("302 Found", "Location: file:///etc/secret\r\n", b""),
                "/none" => answer("302 Found", "Content-Length: 0\r\n", b""),
                _ => ok(b"start"),
            },
        });
    let client = client(&["127.0.0.1"]);
    assert_eq!(client.get(&server.url("/5"), FIELD).await.unwrap().length, 5);
    let text = client.text(&server.url("/2"), FIELD, 5).await.unwrap();
    let hops: Vec<&str> = text.hops.iter().map(Url::path).collect();
    assert_eq!((text.bytes.as_slice(), hops), (&b"there"[..], vec!["/2", "/1", "/0"]));
    let cases = [
        ("/6", "more than 5"),
        ("/out", "evil.example"),
        ("/user", "user name"),
        ("/file", "scheme"),
        ("/none", "nowhere"),
    ];
    for (path, word) in cases {
        let error = failure(&client, &server.url(path)).await;
        assert!(!error.to_string().contains("secret"), "{error}");
        refused(error, word);
    }
    assert!(server.asked.lock().unwrap()[0].to_lowercase().contains("accept-encoding: identity\r\n"));
}

#[tokio::test]
async fn answers_are_sorted_by_what_happens_next() {
    let server = Server::start(|path| match path {
        "/404" => answer("404 Not Found", "Content-Length: 0\r\n", b""),
        "/403" => answer("403 Forbidden", "Content-Length: 0\r\n", b""),
        "/410" => answer("410 Gone", "Content-Length: 0\r\n", b""),
        "/503" => answer("503 Busy", "Retry-After: 7\r\nContent-Length: 0\r\n", b""),
        "/429" => {
            let dates = "Date: Mon, 23 Nov 2026 10:00:00 GMT\r\nRetry-After: Mon, 23 Nov 2026 10:01:30 GMT\r\n";
            answer("429 Slow down", dates, b"")
        }
        "/chunked" => answer("200 OK", "Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        "/close" => answer("200 OK", "Connection: close\r\n", b"x"),
        "/empty" => ok(b""),
        "/gzip" => answer("200 OK", "Content-Encoding: gzip\r\nContent-Length: 1\r\n", b"x"),
        "/part" => answer("206 Partial", "Content-Length: 1\r\n", b"x"),
        _ => Vec::new(),
    });
    let client = client(&["127.0.0.1"]);
    let words = [
        ("/404", "404"),
        ("/403", "403"),
        ("/410", "410"),
        ("/chunked", "Content-Length"),
        ("/close", "Content-Length"),
        ("/empty", "empty"),
        ("/gzip", "compressed"),
        ("/part", "206"),
    ];
    for (path, word) in words {
        refused(failure(&client, &server.url(path)).await, word);
    }
    for (path, seconds) in [("/503?s=secret", None), ("/503", Some(7)), ("/429", Some(90)), ("/reset?s=secret", None)] {
        let SourceError::Transient { reason, retry_after } = failure(&client, &server.url(path)).await else {
            panic!("{path}")
        };
        assert!(!reason.contains("secret"), "{reason}");
        assert_eq!(retry_after, seconds.map(Duration::from_secs), "{path}: {reason}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = failure(&client, &url(&format!("http://127.0.0.1:{nobody}/?s=secret"))).await;
    assert!(matches!(&error, SourceError::Transient { reason, .. } if !reason.contains("secret")), "{error}");
}

#[tokio::test]
async fn a_limit_of_requests_is_waited_for_and_no_wait_is_shorter_than_a_second() {
    let date = "Date: Mon, 23 Nov 2026 10:00:00 GMT\r\nContent-Length: 0\r\n";
    let reset = "1795428600";
    let server = Server::start(move |path| match path {
        "/primary" => {
            let limit = format!("{date}x-ratelimit-remaining: 0\r\nx-ratelimit-reset: {reset}\r\n");
            answer("403 rate limit exceeded", &limit, b"")
        }
        "/too-many" => {
            let limit = format!("{date}x-ratelimit-remaining: 0\r\nx-ratelimit-reset: {reset}\r\n");
            answer("429 Too Many Requests", &limit, b"")
        }
        "/secondary" => answer("403 Forbidden", &format!("{date}Retry-After: 60\r\n"), b""),
        "/zero" => answer("503 Busy", "Retry-After: 0\r\nContent-Length: 0\r\n", b""),
        "/past" => answer("503 Busy", &format!("{date}Retry-After: Mon, 23 Nov 2026 09:59:00 GMT\r\n"), b""),
        _ => answer("403 Forbidden", &format!("{date}x-ratelimit-remaining: 59\r\n"), b""),
    });
    let client = client(&["127.0.0.1"]);
    for (path, seconds) in [("/primary", 600), ("/too-many", 600), ("/secondary", 60), ("/zero", 1), ("/past", 1)] {
        let error = failure(&client, &server.url(path)).await;
        let SourceError::Transient { retry_after, .. } = error else { panic!("{path}: {error:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(seconds)), "{path}");
    }
    refused(failure(&client, &server.url("/forbidden")).await, "403");
}

async fn drained(opened: Opened) -> (Vec<u8>, Result<super::super::Digests, SourceError>) {
    let (stream, ticket) = opened.into_stream();
    let mut stream = Box::pin(stream);
    let mut all = Vec::new();
    while let Some(Ok(chunk)) = stream.next().await {
        all.extend_from_slice(&chunk);
    }
    (all, ticket.finish().await)
}

#[tokio::test]
async fn the_last_byte_comes_only_if_the_digest_is_right() {
    let content = vec![5u8; 300_000];
    let served = content.clone();
    let server = Server::start(move |path| match path {
        "/short" => answer("200 OK", "Content-Length: 300000\r\n", &served[..200_000]),
        _ => ok(&served),
    });
    let client = client(&["127.0.0.1"]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("i"), &content).unwrap();
    let file = super::super::FileRoots::open_all(&[directory.path()]).unwrap();
    let file = file.open(directory.path().join("i").to_str().unwrap()).unwrap();
    let file = Opened::from_file(file, DiskFormat::Auto, &DigestCache::default()).await.unwrap();
    let sha256 = file.digest(super::super::HashAlgo::Sha256).await.unwrap();

    let opened = Opened::from_url(&client, &server.url("/"), &sha256.to_uppercase(), DiskFormat::Auto).await.unwrap();
    let (all, digests) = drained(opened).await;
    assert_eq!(all, content);
    assert_eq!(digests.unwrap().sha256, Some(sha256.clone()));

    let opened = Opened::from_url(&client, &server.url("/"), &"0".repeat(64), DiskFormat::Raw).await.unwrap();
    let (all, digests) = drained(opened).await;
    assert!(all.len() < content.len());
    let Err(SourceError::Refused { field, reason }) = digests else { panic!("{digests:?}") };
    assert!(field == "spec.source.sha256" && reason.contains(&sha256), "{field}: {reason}");

    let opened = Opened::from_url(&client, &server.url("/short"), &sha256, DiskFormat::Raw).await.unwrap();
    let (all, digests) = drained(opened).await;
    assert!(all.len() < content.len() && matches!(digests, Err(SourceError::Transient { .. })), "{digests:?}");

    let wrong = Opened::from_url(&client, &server.url("/"), &sha256, DiskFormat::Qcow2).await;
    assert!(matches!(wrong, Err(SourceError::Refused { field, .. }) if field == "spec.disk_format"));
}
