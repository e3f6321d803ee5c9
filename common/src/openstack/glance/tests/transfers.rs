//! Images on the wire.

use std::io::{Read, Write};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::super::super::testing::{Fake, Reply};
use super::super::super::{CloudErrorKind, Glance, Session};
use super::glance;

#[tokio::test]
async fn an_upload_has_a_length_and_is_not_chunked() {
    let (fake, glance) = glance(|_| Reply::status(204)).await;
    let chunks = (0..3).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![7; 1 << 20])));
    glance.upload("i1", 3 << 20, reqwest::Body::wrap_stream(stream::iter(chunks))).await.unwrap();
    let request = &fake.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("PUT", "/v2/images/i1/file"));
    assert_eq!(request.header("content-length"), Some("3145728"));
    for absent in ["transfer-encoding", "expect"] {
        assert_eq!(request.header(absent), None, "{absent}");
    }
    assert_eq!(request.header("connection"), Some("close"));
    assert_eq!(request.header("content-type"), Some("application/octet-stream"));
    assert_eq!(request.header("user-agent"), Some(concat!("imagewright/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(request.body.len(), 3 << 20);
}

#[tokio::test]
async fn a_body_that_is_too_short_or_fails_does_not_complete_the_upload() {
    let (_fake, glance) = glance(|_| Reply::status(204)).await;
    let short = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"short"))]);
    let error = glance.upload("i1", 100, reqwest::Body::wrap_stream(short)).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Unreachable);
    let failing = stream::iter([Ok(Bytes::from_static(b"part")), Err(std::io::Error::other("stalled"))]);
    let error = glance.upload("i1", 100, reqwest::Body::wrap_stream(failing)).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Unreachable);
    assert!(error.to_string().contains("stalled"), "{error}");
}

#[tokio::test]
async fn an_upload_whose_token_is_refused_is_not_repeated_but_the_next_has_another() {
    let (fake, glance) = glance(|request| match request.header("x-auth-token") {
        Some("token-1") => Reply::status(401),
        _ => Reply::status(204),
    })
    .await;
    assert_eq!(glance.upload("i1", 4, "four".into()).await.unwrap_err().kind, CloudErrorKind::Credentials);
    assert_eq!(fake.requests().len(), 1);
    glance.upload("i1", 4, "four".into()).await.unwrap();
    assert_eq!(fake.logins().len(), 2);
}

#[tokio::test]
async fn a_connection_reset_in_the_body_is_unreachable() {
    let fake = Fake::start(|_| Reply::status(204)).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let over = format!("    image_endpoint_override: http://{}\n", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 1024]).unwrap();
        // Unread data make the kernel reset the connection.
        drop(stream);
    });
    let glance = Glance::new(Session::new(fake.config(&over)).unwrap());
    let chunks = stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![7; 1 << 20]))));
    let error = glance.upload("i1", 64 << 20, reqwest::Body::wrap_stream(chunks)).await.unwrap_err();
    assert_eq!((error.kind, error.status), (CloudErrorKind::Unreachable, None));
}

#[tokio::test]
async fn an_early_refusal_is_read_though_the_body_is_not_done() {
    let fake = Fake::start(|_| Reply::status(204)).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let over = format!("    image_endpoint_override: http://{}\n", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 1024]).unwrap();
        stream.write_all(b"HTTP/1.1 413 x\r\nContent-Length: 13\r\nConnection: close\r\n\r\nstorage quota").unwrap();
        std::thread::sleep(std::time::Duration::from_secs(2));
    });
    let glance = Glance::new(Session::new(fake.config(&over)).unwrap());
    let chunks = stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![7; 1 << 20]))));
    let error = glance.upload("i1", 64 << 20, reqwest::Body::wrap_stream(chunks)).await.unwrap_err();
    assert_eq!((error.kind, error.status), (CloudErrorKind::Busy, Some(413)));
}

#[tokio::test]
async fn a_download_has_a_length_and_never_ends_early_in_silence() {
    let (_fake, whole) = glance(|_| Reply::Answer(200, vec![], vec![7; 300_000])).await;
    let (length, data) = whole.download("i1").await.unwrap();
    let data: Vec<Bytes> = data.try_collect().await.unwrap();
    assert_eq!((length, data.iter().map(Bytes::len).sum::<usize>()), (300_000, 300_000));

    let (_fake, cut) = glance(|_| Reply::Answer(200, vec![("content-length", "100".to_owned())], vec![7; 30])).await;
    match cut.download("i1").await {
        Ok((_, data)) => assert!(data.collect::<Vec<_>>().await.iter().any(Result::is_err)),
        Err(error) => assert_eq!(error.kind, CloudErrorKind::Unreachable),
    }
    let (_fake, none) = glance(|_| Reply::status(204)).await;
    assert_eq!(none.download("i1").await.err().unwrap().kind, CloudErrorKind::Conflict);
}
