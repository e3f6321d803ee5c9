//! Tokens, the catalog and connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::super::testing::{Fake, PASSWORD, Reply};
use super::super::{CloudErrorKind, Glance, Session};
use super::{list, no_images};

#[tokio::test]
async fn one_token_serves_ten_calls_at_once() {
    let fake = Fake::start(|_| no_images()).await;
    let session = fake.session();
    let calls = (0..10).map(|_| {
        tokio::spawn({
            let session = session.clone();
            async move { list(&session).await }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap(), 0);
    }
    assert_eq!(fake.logins().len(), 1);
    assert_eq!(fake.requests().len(), 10);
    assert!(fake.requests().iter().all(|request| request.header("x-auth-token") == Some("token-1")));
    let login = fake.logins()[0].json();
    assert_eq!(login["auth"]["identity"]["password"]["user"]["domain"]["name"], "Default");
    assert_eq!(login["auth"]["scope"]["project"], json!({ "name": "p", "domain": { "name": "Default" } }));
    assert_eq!(session.project_id().await.unwrap(), "project-1");
    assert_eq!(session.accepted(), Some(true));
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_for_all_and_the_calls_repeated() {
    let fake = Fake::start(|request| match request.header("x-auth-token") {
        Some("token-1") => Reply::status(401),
        _ => no_images(),
    })
    .await;
    let session = fake.session();
    let calls = (0..10).map(|_| {
        tokio::spawn({
            let session = session.clone();
            async move { list(&session).await }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap(), 0);
    }
    assert_eq!(fake.logins().len(), 2);
}

#[tokio::test]
async fn a_service_that_refuses_every_token_is_asked_twice() {
    let fake = Fake::start(|_| Reply::status(401)).await;
    let error = list(&fake.session()).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Credentials);
    assert_eq!((fake.logins().len(), fake.requests().len()), (2, 2));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    // A fifth of five seconds remains after four.
    let fake = Fake::start_with_life(5, |_| no_images()).await;
    let session = fake.session();
    list(&session).await.unwrap();
    list(&session).await.unwrap();
    assert_eq!(fake.logins().len(), 1);
    tokio::time::sleep(Duration::from_millis(4100)).await;
    list(&session).await.unwrap();
    assert_eq!(fake.logins().len(), 2);
}

#[tokio::test]
async fn an_upload_wants_more_of_a_tokens_life_than_a_call() {
    // Ten minutes, or of so short a life four fifths.
    let fake = Fake::start_with_life(5, |request| match request.method.as_str() {
        "PUT" => Reply::status(204),
        _ => no_images(),
    })
    .await;
    let session = fake.session();
    list(&session).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    list(&session).await.unwrap();
    assert_eq!(fake.logins().len(), 1);
    Glance::new(session).upload("id", 4, "four".into()).await.unwrap();
    assert_eq!(fake.logins().len(), 2);
}

#[tokio::test]
async fn keystone_refusing_is_credentials_and_said_once_to_all_who_wait() {
    let fake = Fake::start_all(|request, _| {
        // As a careless proxy would: the secret comes back in the text.
        let text = format!("not authorized: {}", String::from_utf8_lossy(&request.body));
        Reply::json(401, &json!({ "error": { "code": 401, "message": text, "title": "Unauthorized" } }))
            .with("x-openstack-request-id", "req-7")
    })
    .await;
    let session = fake.session();
    let calls = (0..10).map(|_| {
        tokio::spawn({
            let session = session.clone();
            async move { list(&session).await }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!((error.kind, error.status), (CloudErrorKind::Credentials, Some(401)));
        assert_eq!(error.operation, "POST /v3/auth/tokens");
        assert_eq!(error.request_id.as_deref(), Some("req-7"));
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
    }
    assert!(fake.logins().len() < 10, "{} requests for a token", fake.logins().len());
    assert_eq!(session.accepted(), Some(false));
    let before = fake.logins().len();
    list(&session).await.unwrap_err();
    assert_eq!(fake.logins().len(), before + 1, "a later caller tries again");
}

#[tokio::test]
async fn a_call_without_an_answer_is_repeated_once_if_it_may_be() {
    let refused = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start({
        let refused = Arc::clone(&refused);
        move |_| if refused.fetch_add(1, Ordering::SeqCst) == 0 { Reply::Close } else { no_images() }
    })
    .await;
    assert_eq!(list(&fake.session()).await.unwrap(), 0);

    let fake = Fake::start(|_| Reply::Close).await;
    let error = list(&fake.session()).await.unwrap_err();
    assert_eq!((error.kind, error.status), (CloudErrorKind::Unreachable, None));
    assert_eq!(fake.requests().len(), 2);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut config = fake.config("");
    config.auth_url = format!("http://{address}/").parse().unwrap();
    let error = list(&Session::new(config).unwrap()).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Unreachable);
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn the_catalog_is_read_by_region_and_interface() {
    let fake = Fake::start(|_| no_images()).await;
    let session = fake.session();
    list(&session).await.unwrap();
    assert_eq!(fake.requests()[0].target, "/v2/images?sort=created_at%3Adesc%2Cid%3Adesc&limit=1000");
    assert!(session.has_service("image").await.unwrap());
    assert!(session.has_service("compute").await.unwrap(), "there, though only inside");
    assert!(!session.has_service("network").await.unwrap());

    list(&Session::new(fake.config("    interface: internalURL\n")).unwrap()).await.unwrap();
    assert!(fake.requests()[1].target.starts_with("/internal/v2/images?"));
    let mut config = fake.config("    image_interface: internal\n");
    list(&Session::new(config.clone()).unwrap()).await.unwrap();
    assert!(fake.requests()[2].target.starts_with("/internal/v2/images?"));

    config.region = Some("nowhere".to_owned());
    let session = Session::new(config.clone()).unwrap();
    let error = list(&session).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Config);
    assert!(error.to_string().contains("region nowhere"), "{error}");
    assert!(!session.has_service("compute").await.unwrap());

    let over = format!("    image_endpoint_override: {}/over/v2.1/\n", config.auth_url.as_str().trim_end_matches('/'));
    list(&Session::new(fake.config(&over)).unwrap()).await.unwrap();
    assert!(fake.requests()[3].target.starts_with("/over/v2/images?"));
}

#[tokio::test]
async fn a_redirect_does_not_carry_the_token_away() {
    let stolen = Arc::new(AtomicBool::new(false));
    let thief = Fake::start_all({
        let stolen = Arc::clone(&stolen);
        move |_, _| {
            stolen.store(true, Ordering::SeqCst);
            Reply::status(200)
        }
    })
    .await;
    let to = thief.config("").auth_url.to_string();
    let fake = Fake::start(move |_| Reply::status(307).with("location", to.clone())).await;
    assert_eq!(list(&fake.session()).await.unwrap_err().kind, CloudErrorKind::Protocol);
    assert!(!stolen.load(Ordering::SeqCst));
}

#[test]
fn nothing_shows_a_secret() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let fake = Fake::start(|_| no_images()).await;
        let session = fake.session();
        list(&session).await.unwrap();
        let shown = format!("{:?} {:?} {:?}", fake.config(""), session, Glance::new(session.clone()));
        assert!(!shown.contains(PASSWORD) && !shown.contains("token-1"), "{shown}");
    });
}

#[test]
fn files_for_tls_that_cannot_be_used_are_said_at_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let fake = Fake::start(|_| no_images()).await;
        let mut config = fake.config("");
        config.cacert = Some("/nonexistent/ca.pem".into());
        let error = Session::new(config.clone()).err().unwrap();
        assert_eq!(error.kind, CloudErrorKind::Config);
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
        config.cacert = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into());
        assert_eq!(Session::new(config).err().unwrap().kind, CloudErrorKind::Config);
    });
}
