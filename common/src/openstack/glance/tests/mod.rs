//! Glance's calls against a fake cloud on a real socket.

mod transfers;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::testing::{Fake, Reply, Request};
use super::super::{CloudErrorKind, Deletion, Glance, ImageQuery, ImageStatus, NewImage};

fn image(id: &str, name: &str) -> Value {
    json!({
        "id": id, "name": name, "status": "active", "owner": "project-1", "visibility": "private", "size": 9,
        "disk_format": "raw", "container_format": "bare", "checksum": "c", "os_hash_algo": "sha512",
        "os_hash_value": "h", "os_hidden": false, "protected": true, "min_disk": 0, "virtual_size": null, "tags": [],
        "created_at": "2030-01-01T00:00:00Z", "updated_at": "2030-01-01T00:00:05Z", "architecture": "x86_64",
        "imagewright_job": "j1", "self": "/v2/images/x", "file": "/v2/images/x/file", "schema": "/v2/schemas/image"
    })
}

fn dated(status: u16, body: &Value) -> Reply {
    Reply::json(status, body).with("date", "Tue, 01 Jan 2030 00:01:00 GMT")
}

async fn glance(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Fake, Glance) {
    let fake = Fake::start(handler).await;
    let glance = Glance::new(fake.session());
    (fake, glance)
}

#[tokio::test]
async fn an_image_is_read_with_the_clock_of_the_answer() {
    let (fake, glance) = glance(|_| dated(200, &image("i1", "n"))).await;
    let seen = glance.get("i1").await.unwrap();
    assert_eq!(fake.requests()[0].target, "/v2/images/i1");
    assert_eq!(seen.server_time.to_string(), "2030-01-01T00:01:00Z");
    let image = seen.value;
    assert_eq!((image.id.as_str(), &image.status, image.size), ("i1", &ImageStatus::Active, Some(9)));
    assert_eq!((image.protected, image.architecture.as_deref()), (true, Some("x86_64")));
    assert_eq!(image.properties, BTreeMap::from([("imagewright_job".to_owned(), "j1".to_owned())]));
}

#[tokio::test]
async fn without_a_date_the_clock_is_keystones() {
    let (_fake, glance) = glance(|_| Reply::json(200, &image("i1", "n"))).await;
    let seen = glance.get("i1").await.unwrap();
    let issued: jiff::Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let after = seen.server_time.duration_since(issued);
    assert!(after.as_secs() < 30 && !after.is_negative(), "{after}");
}

#[tokio::test]
async fn a_description_that_lacks_something_is_not_understood() {
    for missing in ["id", "status", "visibility", "created_at", "updated_at"] {
        let mut broken = image("i1", "n");
        broken.as_object_mut().unwrap().remove(missing);
        let (_fake, glance) = glance(move |_| dated(200, &broken)).await;
        let error = glance.get("i1").await.unwrap_err();
        assert_eq!(error.kind, CloudErrorKind::Protocol);
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[tokio::test]
async fn an_id_that_is_a_path_never_leaves() {
    let (fake, glance) = glance(|_| Reply::status(204)).await;
    for id in ["", "..", ".", "a/b", "a?b", "é", "%2e%2e"] {
        assert_eq!(glance.delete(id).await.unwrap_err().kind, CloudErrorKind::Rejected, "{id}");
    }
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn create_sends_what_was_asked_and_properties_replace_nothing() {
    let (fake, glance) =
        glance(
            |request| {
                if request.json()["name"] == "there" { Reply::status(409) } else { dated(201, &image("i1", "n")) }
            },
        )
        .await;
    let mut new = NewImage {
        id: Uuid::from_u128(7),
        name: "n".to_owned(),
        disk_format: "qcow2".to_owned(),
        container_format: "bare".to_owned(),
        visibility: "private".to_owned(),
        architecture: Some("x86_64".to_owned()),
        properties: BTreeMap::from([("visibility".to_owned(), "public".to_owned()), ("a".to_owned(), "b".to_owned())]),
    };
    glance.create(&new).await.unwrap();
    assert_eq!(
        fake.requests()[0].json(),
        json!({ "id": "00000000-0000-0000-0000-000000000007", "name": "n", "disk_format": "qcow2",
            "container_format": "bare", "visibility": "private", "architecture": "x86_64", "a": "b" })
    );
    new.name = "there".to_owned();
    assert_eq!(glance.create(&new).await.unwrap_err().kind, CloudErrorKind::Conflict);
}

#[tokio::test]
async fn create_is_not_repeated_when_nothing_comes_back() {
    let (fake, glance) = glance(|_| Reply::Close).await;
    let new = NewImage {
        id: Uuid::nil(),
        name: "n".to_owned(),
        disk_format: "raw".to_owned(),
        container_format: "bare".to_owned(),
        visibility: "private".to_owned(),
        architecture: None,
        properties: BTreeMap::new(),
    };
    assert_eq!(glance.create(&new).await.unwrap_err().kind, CloudErrorKind::Unreachable);
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn lists_follow_their_pages_and_filter_exactly() {
    let (fake, glance) = glance(|request| {
        let page = match request.target.contains("marker=") {
            // As behind a proxy that serves Glance beneath a path of its own.
            false => {
                json!({ "images": [image("i3", "n m"), image("i2", "N M")], "next": "/v2/images?marker=i2&limit=1000" })
            }
            true => json!({ "images": [image("i1", "n m")] }),
        };
        dated(200, &page)
    })
    .await;
    let query = ImageQuery {
        name: Some("n m".to_owned()),
        owner: Some("project-1".to_owned()),
        status: Some(ImageStatus::Active),
        property: vec![
            ("imagewright_job".to_owned(), "j1".to_owned()),
            ("architecture".to_owned(), "x86_64".to_owned()),
        ],
        hidden: false,
    };
    let list = glance.list(&query).await.unwrap();
    assert_eq!(list.value.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(), ["i3", "i1"]);
    assert_eq!(list.server_time.to_string(), "2030-01-01T00:01:00Z");
    let targets: Vec<String> = fake.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(
        targets,
        [
            "/v2/images?name=n+m&owner=project-1&status=active&imagewright_job=j1&architecture=x86_64\
          &sort=created_at%3Adesc%2Cid%3Adesc&limit=1000",
            "/v2/images?marker=i2&limit=1000"
        ]
    );
}

#[tokio::test]
async fn a_name_with_a_colon_is_no_operator() {
    let (fake, glance) = glance(|_| dated(200, &json!({ "images": [image("i1", "in:ubuntu:24.04")] }))).await;
    let query = ImageQuery { name: Some("in:ubuntu:24.04".to_owned()), ..ImageQuery::default() };
    assert_eq!(glance.list(&query).await.unwrap().value.len(), 1);
    assert!(fake.requests()[0].target.starts_with("/v2/images?name=eq%3Ain%3Aubuntu%3A24.04&"));
}

#[tokio::test]
async fn a_list_that_does_not_end_is_an_error() {
    let (fake, same) = glance(|_| dated(200, &json!({ "images": [], "next": "/v2/images?marker=x" }))).await;
    assert_eq!(same.list(&ImageQuery::default()).await.unwrap_err().kind, CloudErrorKind::Protocol);
    assert_eq!(fake.requests().len(), 2);

    let count = std::sync::atomic::AtomicUsize::new(0);
    let (_fake, more) = glance(move |_| {
        let count = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        dated(200, &json!({ "images": [], "next": format!("/v2/images?marker={count}") }))
    })
    .await;
    assert_eq!(more.list(&ImageQuery::default()).await.unwrap_err().kind, CloudErrorKind::Protocol);
}

#[tokio::test]
async fn an_error_on_a_later_page_is_an_error_of_the_list() {
    let (_fake, glance) = glance(|request| match request.target.contains("marker=") {
        false => dated(200, &json!({ "images": [image("i1", "n")], "next": "/v2/images?marker=i1" })),
        true => Reply::status(500),
    })
    .await;
    assert_eq!(glance.list(&ImageQuery::default()).await.unwrap_err().kind, CloudErrorKind::Server);
}

#[tokio::test]
async fn properties_are_patched() {
    let (fake, glance) = glance(|_| dated(200, &image("i1", "n"))).await;
    glance.set_properties("i1", &[("imagewright_beat", "3"), ("a/b~c", "é")]).await.unwrap();
    let request = &fake.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("PATCH", "/v2/images/i1"));
    assert_eq!(request.header("content-type"), Some("application/openstack-images-v2.1-json-patch"));
    assert_eq!(
        request.json(),
        json!([{ "op": "add", "path": "/imagewright_beat", "value": "3" }, { "op": "add", "path": "/a~1b~0c", "value": "é" }])
    );
}

#[tokio::test]
async fn deleting_what_is_gone_is_done() {
    for (status, expected) in [
        (204, Ok(Deletion::Deleted)),
        (404, Ok(Deletion::AlreadyGone)),
        (410, Ok(Deletion::AlreadyGone)),
        (403, Err(CloudErrorKind::Forbidden)),
        (409, Err(CloudErrorKind::Conflict)),
    ] {
        let (_fake, glance) = glance(move |_| Reply::status(status)).await;
        assert_eq!(glance.delete("i1").await.map_err(|error| error.kind), expected, "{status}");
    }
}

#[tokio::test]
async fn a_deletion_that_another_one_outran_is_done() {
    let gone = Ok(Deletion::AlreadyGone);
    for (found, status, expected) in
        [(404, "", gone), (200, "deleted", gone), (200, "active", Err(CloudErrorKind::Rejected))]
    {
        let (_fake, glance) = glance(move |request| match request.method.as_str() {
            "DELETE" => Reply::status(400),
            _ if found == 404 => Reply::status(404),
            _ => {
                let mut shown = image("i1", "n");
                shown["status"] = json!(status);
                dated(200, &shown)
            }
        })
        .await;
        assert_eq!(glance.delete("i1").await.map_err(|error| error.kind), expected, "{found} {status}");
    }
}
