//! What answers become.

use std::time::Duration;

use serde_json::json;

use super::super::testing::{Fake, PASSWORD, Reply};
use super::super::{CloudError, CloudErrorKind};
use super::list;

/// The error of one call to a cloud that always answers so.
async fn error_of(reply: impl Fn() -> Reply + Send + Sync + 'static) -> CloudError {
    let fake = Fake::start(move |_| reply()).await;
    let error = list(&fake.session()).await.unwrap_err();
    assert_eq!(error.cloud, "fake");
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains(PASSWORD) && !text.contains("token-1"), "{text}");
        assert!(!text.contains("sort="), "the query is shown: {text}");
    }
    error
}

#[tokio::test]
async fn other_answers_of_keystone_are_about_the_configuration_or_the_server() {
    for (status, kind) in [
        (400, CloudErrorKind::Config),
        (403, CloudErrorKind::Credentials),
        (404, CloudErrorKind::Config),
        (429, CloudErrorKind::Busy),
        (503, CloudErrorKind::Server),
        (302, CloudErrorKind::Protocol),
    ] {
        let fake = Fake::start_all(move |_, _| Reply::status(status)).await;
        assert_eq!(list(&fake.session()).await.unwrap_err().kind, kind, "{status}");
    }
    let fake = Fake::start_all(|_, _| Reply::json(201, &json!({ "token": {} })).with("x-subject-token", "t")).await;
    assert_eq!(list(&fake.session()).await.unwrap_err().kind, CloudErrorKind::Protocol);
}

#[tokio::test]
async fn statuses_become_kinds() {
    let busy = || Reply::status(429).with("retry-after", "17");
    let error = error_of(busy).await;
    assert_eq!((error.kind, error.retry_after), (CloudErrorKind::Busy, Some(Duration::from_secs(17))));

    let later = || {
        Reply::status(503)
            .with("date", "Wed, 21 Oct 2026 07:28:00 GMT")
            .with("retry-after", "Wed, 21 Oct 2026 07:30:00 GMT")
            .with("x-openstack-request-id", "req-5ad5b3b3-0000-4000-8000-000000000000")
    };
    let error = error_of(later).await;
    assert_eq!((error.kind, error.retry_after), (CloudErrorKind::Server, Some(Duration::from_secs(120))));
    assert_eq!(error.request_id.as_deref(), Some("req-5ad5b3b3-0000-4000-8000-000000000000"));
    assert_eq!(
        error.to_string(),
        "GET /v2/images on cloud fake: status 503: service unavailable (request req-5ad5b3b3-0000-4000-8000-000000000000)"
    );

    let words = |status: u16, text: &'static str| move || Reply::Answer(status, vec![], text.as_bytes().to_vec());
    let cases = [
        (
            413,
            "Image exceeds the storage quota: The size of the data 9 will exceed the limit. 2 bytes remaining.",
            CloudErrorKind::Busy,
        ),
        (
            413,
            "Resource image_size_total is over limit of 10 due to current usage 9 and delta 2.",
            CloudErrorKind::Busy,
        ),
        (
            413,
            "Request Entity Too Large: Denying attempt to upload image larger than 8 bytes.",
            CloudErrorKind::Rejected,
        ),
        (
            403,
            r#"{"forbidden": {"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"}}"#,
            CloudErrorKind::Busy,
        ),
        (403, "You are not permitted to delete this image.", CloudErrorKind::Forbidden),
        (
            409,
            r#"{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['port'].", "detail": ""}}"#,
            CloudErrorKind::Busy,
        ),
        (409, "Image status transition from active to saving is not allowed", CloudErrorKind::Conflict),
        (410, "", CloudErrorKind::Gone),
        (415, "Image content did not match disk_format", CloudErrorKind::Rejected),
        (400, "", CloudErrorKind::Rejected),
        (404, "", CloudErrorKind::NotFound),
        (500, "", CloudErrorKind::Server),
        (300, "", CloudErrorKind::Protocol),
        (302, "", CloudErrorKind::Protocol),
    ];
    for (status, text, kind) in cases {
        assert_eq!(error_of(words(status, text)).await.kind, kind, "{status} {text}");
    }
}

#[tokio::test]
async fn the_text_of_an_answer_is_made_fit_to_show() {
    let html = "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  <h1>404 Not Found</h1>\n  \
                Failed to find image &lt;x&#x27;&#233;&gt; &co; for token-1 at https://me:secret@h.example:8774/v2?sig=abc.<br /><br />\n\n </body>\n</html>";
    let error = error_of(move || Reply::Answer(404, vec![], html.as_bytes().to_vec())).await;
    assert_eq!(error.message, "Failed to find image <x'é> &co; for [redacted] at https://h.example:8774/v2?...");
    let fernet = format!("token gAAAAAB{} \u{1b}[31m", "x".repeat(180));
    let error = error_of(move || Reply::Answer(400, vec![], fernet.clone().into_bytes())).await;
    assert_eq!(error.message, "token [redacted] [31m");
    let error = error_of(|| Reply::Answer(400, vec![], "é".repeat(100_000).into_bytes())).await;
    assert_eq!(error.message.chars().count(), 500);
    let error = error_of(|| Reply::Answer(200, vec![], b"<html>a login page</html>".to_vec())).await;
    assert_eq!(error.kind, CloudErrorKind::Protocol);
}
