//! `imagewright dead list`

use imagewright_common::queue::Dead;
use imagewright_common::{status, wire};
use jiff::Timestamp;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::report::{self, Table};

/// One of the dead as it is listed.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) id: String,
    kind: Option<String>,
    name: Option<String>,
    cloud: Option<String>,
    reason: String,
    field: Option<String>,
    attempts: u32,
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    error: Option<String>,
    request_id: Option<String>,
    worker: Option<String>,
}

pub(super) async fn run(context: &Context) -> Result<Exit, Failure> {
    let dead = context.open().await?.desk.dead().await?;
    let rows: Vec<Row> = dead.iter().map(row).collect();
    if context.json {
        report::json(&rows)?;
    } else {
        report::result(&table(&rows).render())?;
    }
    Ok(Exit::Ok)
}

pub(super) fn row(dead: &Dead) -> Row {
    let glimpse = wire::glimpse(&dead.payload);
    let burial = dead.burial.clone();
    Row {
        id: status::message_id(&dead.payload),
        kind: glimpse.kind,
        name: glimpse.name,
        cloud: glimpse.cloud,
        reason: burial.reason,
        field: burial.field,
        attempts: dead.attempts,
        first_at: dead.first_at,
        last_at: dead.last_at,
        error: burial.error,
        request_id: burial.request_id,
        worker: burial.worker,
    }
}

pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["JOB", "KIND", "NAME", "CLOUD", "ATTEMPTS", "BURIED"]);
    for row in rows {
        let cells = vec![
            row.id.clone(),
            report::word(row.kind.as_deref()),
            report::word(row.name.as_deref()),
            report::word(row.cloud.as_deref()),
            row.attempts.to_string(),
            report::time(row.last_at),
        ];
        let field = row.field.as_deref().filter(|field| !row.reason.contains(field));
        let field = field.map(|field| format!("{field}: ")).unwrap_or_default();
        let error = row.error.as_deref().filter(|error| !row.reason.contains(error));
        let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
        table.row(cells, Some(format!("{field}{}{error}", row.reason)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use imagewright_common::queue::Burial;

    fn dead(payload: &str, burial: Burial) -> Dead {
        Dead { payload: payload.into(), attempts: 2, first_at: None, last_at: Some(Timestamp::UNIX_EPOCH), burial }
    }

    #[test]
    fn every_field_is_there_even_for_what_nobody_can_read() {
        let burial = Burial { reason: "not JSON".to_owned(), field: Some("message".to_owned()), ..Burial::default() };
        let row = row(&dead("{", burial));
        let shown = serde_json::to_value(&row).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({
                "id": "msg-021fb596db81", "kind": null, "name": null, "cloud": null, "reason": "not JSON",
                "field": "message", "attempts": 2, "first_at": null, "last_at": "1970-01-01T00:00:00Z",
                "error": null, "request_id": null, "worker": null
            })
        );
        assert!(table(&[row]).render().ends_with("    message: not JSON\n"));
    }

    #[test]
    fn a_readable_message_says_what_it_was() {
        let payload = r#"{"id":"0199A0C2-7c1e-7aaa-8bbb-3f2f6a1d9c55","spec":{"kind":"build","name":"n","cloud":"c"}}"#;
        let burial = Burial { reason: "gave up".to_owned(), error: Some("timed out".to_owned()), ..Burial::default() };
        let row = row(&dead(payload, burial));
        assert_eq!((row.id.as_str(), row.kind.as_deref()), ("0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55", Some("build")));
        assert!(table(&[row]).render().ends_with("    gave up (timed out)\n"));
    }
}
