//! An event as a line for people.

use imagewright_common::event::{Event, What};

use crate::report;

/// `2026-11-23T10:00:00Z  retrying   attempt 2 failed in send: ... (host/123)`
pub(crate) fn line(event: &Event) -> String {
    let (at, word) = (report::time(Some(event.at)), event.what.word());
    let run = if event.run > 0 { format!("run {}  ", event.run) } else { String::new() };
    if let What::Output { step, text } = &event.what {
        let lines = text.lines().map(|line| format!("\n    {}", report::plain(line)));
        return format!("{at}  {word:9}  {run}{step}  ({}){}", event.by, lines.collect::<String>());
    }
    report::plain(&format!("{at}  {word:9}  {run}{}({})", detail(&event.what), event.by))
}

/// The same, where events of many jobs stand beside each other.
pub(crate) fn line_of_many(event: &Event) -> String {
    let word = |word: &Option<String>| report::word(word.as_deref());
    let arch = event.arch.as_deref().map(|arch| format!(" {arch}")).unwrap_or_default();
    let (at, what) = (report::time(Some(event.at)), event.what.word());
    let job = format!("{} {}{arch} on {}", word(&event.kind), word(&event.name), word(&event.cloud));
    report::plain(&format!("{at}  {}  {what:9}  {job}  {}({})", event.id, detail(&event.what), event.by))
}

fn detail(what: &What) -> String {
    let at_step = |step: &Option<String>| step.as_deref().map(|step| format!(" in {step}")).unwrap_or_default();
    let asked = |id: &Option<String>, error: &str| {
        id.as_deref().filter(|id| !error.contains(id)).map(|id| format!(" (request {id})")).unwrap_or_default()
    };
    match what {
        What::Queued | What::CancelRequested | What::Cancelled => String::new(),
        What::Started { attempt, alone } => {
            format!("attempt {}{}  ", attempt + 1, if *alone { ", alone" } else { "" })
        }
        What::Waiting { until, why, .. } => format!("until {}: {why}  ", report::time(Some(*until))),
        What::Retrying { until, error, attempt, step, request_id } => format!(
            "attempt {attempt} failed{}: {error}{}; again at {}  ",
            at_step(step),
            asked(request_id, error),
            report::time(Some(*until))
        ),
        What::Succeeded { result } => format!("{result}  "),
        What::Failed { error, field, step, request_id, .. } => {
            let field = field.as_deref().filter(|field| !error.contains(field)).map(|field| format!("{field}: "));
            format!("{}{error}{}{}  ", field.unwrap_or_default(), at_step(step), asked(request_id, error))
        }
        What::Warning { message } => format!("{message}  "),
        What::Output { step, text } => format!("{} bytes of {step}  ", text.len()),
        What::Progress { bytes, total, rate } => {
            format!("{} of {}, {}/s  ", report::size(*bytes), report::size(*total), report::size(*rate))
        }
    }
}
