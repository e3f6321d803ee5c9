//! Reading an event in one pass. A derived reader would keep each field aside until it knows the word of the event, which
//! takes most of the time of reading a long log.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use uuid::Uuid;

use super::{Event, What};

/// The fields of all events. Those that a later version adds are passed over.
#[derive(Deserialize)]
struct Fields<'a> {
    at: Timestamp,
    id: String,
    parent: Option<Uuid>,
    #[serde(default)]
    run: u32,
    kind: Option<String>,
    name: Option<String>,
    arch: Option<String>,
    cloud: Option<String>,
    by: String,
    #[serde(borrow)]
    event: Cow<'a, str>,
    attempt: Option<u32>,
    alone: Option<bool>,
    until: Option<Timestamp>,
    why: Option<String>,
    detached: Option<bool>,
    error: Option<String>,
    step: Option<String>,
    request_id: Option<String>,
    result: Option<Value>,
    field: Option<String>,
    message: Option<String>,
    text: Option<String>,
    bytes: Option<u64>,
    total: Option<u64>,
    rate: Option<u64>,
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Event, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let Fields { at, id, parent, run, kind, name, arch, cloud, by, .. } = fields;
        let what = match &*fields.event {
            "queued" => What::Queued,
            "started" => {
                What::Started { attempt: needed("attempt", fields.attempt)?, alone: fields.alone.unwrap_or_default() }
            }
            "waiting" => What::Waiting {
                until: needed("until", fields.until)?,
                why: needed("why", fields.why)?,
                attempt: needed("attempt", fields.attempt)?,
                detached: fields.detached.unwrap_or_default(),
            },
            "retrying" => What::Retrying {
                until: needed("until", fields.until)?,
                error: needed("error", fields.error)?,
                attempt: needed("attempt", fields.attempt)?,
                step: fields.step,
                request_id: fields.request_id,
            },
            // Nothing can be a result as well.
            "succeeded" => What::Succeeded { result: fields.result.unwrap_or_default() },
            "failed" => What::Failed {
                error: needed("error", fields.error)?,
                field: fields.field,
                attempt: needed("attempt", fields.attempt)?,
                step: fields.step,
                request_id: fields.request_id,
            },
            "cancel_requested" => What::CancelRequested,
            "cancelled" => What::Cancelled,
            "warning" => What::Warning { message: needed("message", fields.message)? },
            "output" => What::Output { step: needed("step", fields.step)?, text: needed("text", fields.text)? },
            "progress" => What::Progress {
                bytes: needed("bytes", fields.bytes)?,
                total: needed("total", fields.total)?,
                rate: needed("rate", fields.rate)?,
            },
            other => return Err(de::Error::custom(format_args!("no event is called {other:?}"))),
        };
        Ok(Event { at, id, parent, run, kind, name, arch, cloud, by, what })
    }
}

fn needed<T, E: de::Error>(field: &'static str, value: Option<T>) -> Result<T, E> {
    value.ok_or_else(|| E::missing_field(field))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn every_kind() -> Vec<What> {
        let until: Timestamp = "2026-11-23T10:00:50Z".parse().unwrap();
        let text = |text: &str| text.to_owned();
        vec![
            What::Queued,
            What::Started { attempt: 2, alone: false },
            What::Started { attempt: 0, alone: true },
            What::Waiting { until, why: text("a \"quota\" is full"), attempt: 1, detached: true },
            What::Waiting { until, why: text("ö"), attempt: 0, detached: false },
            What::Retrying { until, error: text("503"), attempt: 1, step: Some(text("send")), request_id: None },
            What::Succeeded { result: json!({"children": [], "size": 5}) },
            What::Succeeded { result: Value::Null },
            What::Failed {
                error: text("no"),
                field: Some(text("spec.arch")),
                attempt: 3,
                step: None,
                request_id: Some(text("req-1")),
            },
            What::CancelRequested,
            What::Cancelled,
            What::Warning { message: text("look") },
            What::Output { step: text("script"), text: text("a line\n") },
            What::Progress { bytes: 1, total: 2, rate: 3 },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for what in every_kind() {
            let event = Event {
                at: "2026-11-23T10:00:00.5Z".parse().unwrap(),
                id: "msg-0123456789ab".to_owned(),
                parent: Some(Uuid::from_u128(7)),
                run: 1,
                kind: Some("upload".to_owned()),
                name: None,
                arch: Some("arm64".to_owned()),
                cloud: None,
                by: "h/1".to_owned(),
                what,
            };
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
        }
    }

    #[test]
    fn what_another_version_says_is_read_or_refused() {
        let said = |more: Value| {
            let mut value = json!({"at": "2026-11-23T10:00:00Z", "id": "a", "by": "h/1"});
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<Event>(value).map(|event| event.what).map_err(|error| error.to_string())
        };
        assert_eq!(said(json!({"event": "queued", "later": {"a": [1]}})), Ok(What::Queued));
        assert_eq!(said(json!({"event": "started", "attempt": 1})), Ok(What::Started { attempt: 1, alone: false }));
        assert_eq!(said(json!({"event": "started"})), Err("missing field `attempt`".to_owned()));
        assert_eq!(said(json!({"event": "dreaming"})), Err("no event is called \"dreaming\"".to_owned()));
        assert_eq!(said(json!({})), Err("missing field `event`".to_owned()));
    }
}
