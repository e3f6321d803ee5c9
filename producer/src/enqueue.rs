//! Jobs onto the queue: checked as a worker would check them, published one by one, each said to be queued.

use clap::Args;
use imagewright_common::event::{Event, What};
use imagewright_common::job::{CloudName, Message, Spec, VERSION};
use imagewright_common::queue::{Backend, QueueError, Until};
use imagewright_common::wire;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::{follow, report, time};

/// What every command that enqueues understands.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    /// Give the job up if it has not ended by then, such as 90m or 24h; 24h when not said.
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    deadline: Option<SignedDuration>,
    /// Stay until every job and the jobs it leads to have ended, and show how they come on.
    #[arg(long)]
    wait: bool,
}

/// A message, ready to go.
#[derive(Debug)]
struct Letter {
    message: Message,
    payload: Vec<u8>,
}

#[derive(Serialize)]
struct Enqueued {
    jobs: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: Uuid,
    kind: &'static str,
    cloud: CloudName,
}

/// Enqueue one job per spec, and follow them if that was asked.
pub(crate) async fn run(context: &Context, specs: Vec<Spec>, options: &Options) -> Result<Exit, Failure> {
    let begun = Timestamp::now();
    let letters = specs.into_iter().map(|spec| letter(spec, options, begun)).collect::<Result<Vec<_>, _>>()?;
    let backend = context.open().await?;
    // Attached before anything is published: no event of these jobs can be missed.
    let since = begun.checked_sub(SignedDuration::from_mins(1)).unwrap_or(begun);
    let reader = if options.wait { Some(backend.log.read(since, Until::Forever).await?) } else { None };
    let json_now = context.json && !options.wait;
    let published = publish(context, &backend, &letters).await;
    if json_now {
        let sent = letters.get(..published.sent).unwrap_or_default();
        report::json(&Enqueued { jobs: sent.iter().map(Letter::row).collect() })?;
    }
    if let Some(failure) = published.failure {
        return Err(failure);
    }
    match reader {
        Some(reader) => {
            let roots = letters.into_iter().map(|letter| letter.message.id.to_string()).collect();
            follow::run(context, backend, reader, since, roots).await
        }
        None => Ok(Exit::Ok),
    }
}

struct Published {
    sent: usize,
    failure: Option<Failure>,
}

async fn publish(context: &Context, backend: &Backend, letters: &[Letter]) -> Published {
    for (sent, letter) in letters.iter().enumerate() {
        let id = letter.message.id.to_string();
        let outcome = backend.queue.publish(letter.message.spec.lane(), &id, &letter.payload).await;
        if let Err(error) = outcome {
            return Published { sent, failure: Some(interrupted(error, letters, sent)) };
        }
        // Each as soon as it is true, so that nothing enqueued stays unnamed if the next one fails.
        if !context.json
            && let Err(failure) = report::result(&format!("{id}\n"))
        {
            return Published { sent: sent + 1, failure: Some(failure) };
        }
        let queued = Event::of(&letter.message, &context.by, What::Queued);
        if let Err(error) = backend.log.append(&queued).await {
            tracing::warn!(job.id = %id, %error, "enqueued, but the log does not say so until a worker takes it");
        }
    }
    Published { sent: letters.len(), failure: None }
}

/// What was enqueued before the queue went away, and what was not.
fn interrupted(error: QueueError, letters: &[Letter], sent: usize) -> Failure {
    let unsure = matches!(error, QueueError::Unknown(_));
    let name = |letter: &Letter| format!("{} ({})", letter.message.id, letter.message.spec.cloud());
    let list = |letters: Option<&[Letter]>| letters.unwrap_or_default().iter().map(name).collect::<Vec<_>>().join(", ");
    let mut failure = Failure::from(error);
    if sent > 0 {
        failure = failure.and(&format!("enqueued before that: {}", list(letters.get(..sent))));
    }
    let mut rest = sent;
    if unsure {
        failure = failure.and(&format!("perhaps enqueued: {}", list(letters.get(sent..=sent))));
        rest += 1;
    }
    let clouds: Vec<&str> = letters.iter().skip(rest).map(|letter| letter.message.spec.cloud().as_str()).collect();
    if clouds.is_empty() {
        return failure.and("`imagewright status` shows what arrived");
    }
    failure.and(&format!("not enqueued; repeat with --cloud {}", clouds.join(",")))
}

/// The job, its message, and the proof that a worker can read it.
fn letter(spec: Spec, options: &Options, now: Timestamp) -> Result<Letter, Failure> {
    let now = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
    let deadline = match options.deadline {
        Some(duration) => Some(now.checked_add(duration).map_err(|_| Failure::usage("--deadline is beyond all time"))?),
        None => None,
    };
    let id = Uuid::now_v7();
    let message = Message { version: VERSION, id, parent: None, asked_at: Some(now), deadline, spec, progress: None };
    let payload =
        wire::encode(&message).map_err(|error| Failure::internal(format!("the message is not JSON: {error}")))?;
    wire::decode(&payload, now).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Letter { message, payload })
}

impl Letter {
    fn row(&self) -> Row {
        let spec = &self.message.spec;
        Row { id: self.message.id, kind: spec.kind().as_str(), cloud: spec.cloud().clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imagewright_common::job::{Keep, PruneSpec};

    fn spec(cloud: &str) -> Spec {
        let keep = Keep::try_from(2).unwrap();
        Spec::Prune(PruneSpec { name: "n".parse().unwrap(), cloud: cloud.parse().unwrap(), keep, arch: None })
    }

    fn options(deadline: Option<&str>) -> Options {
        Options { deadline: deadline.map(|text| time::duration(text).unwrap()), wait: false }
    }

    #[test]
    fn a_deadline_is_counted_from_now() {
        let now: Timestamp = "2026-11-23T10:00:00.123456Z".parse().unwrap();
        let letter = letter(spec("c"), &options(Some("90m")), now).unwrap();
        assert_eq!(letter.message.asked_at.unwrap().to_string(), "2026-11-23T10:00:00.123Z");
        assert_eq!(letter.message.deadline.unwrap().to_string(), "2026-11-23T11:30:00.123Z");
        assert_eq!(letter.message.id.get_version_num(), 7);
    }

    #[test]
    fn a_queue_that_goes_away_leaves_nothing_unnamed() {
        let now = Timestamp::now();
        let letters: Vec<Letter> =
            ["a", "b", "c"].into_iter().map(|cloud| letter(spec(cloud), &options(None), now).unwrap()).collect();
        let text = interrupted(QueueError::Unavailable("reset".to_owned()), &letters, 1).text;
        assert!(text.contains(&format!("enqueued before that: {} (a)", letters[0].message.id)), "{text}");
        assert!(text.ends_with("not enqueued; repeat with --cloud b,c"), "{text}");
        let text = interrupted(QueueError::Unknown("reset".to_owned()), &letters, 2).text;
        assert!(text.contains(&format!("perhaps enqueued: {} (c)", letters[2].message.id)), "{text}");
    }
}
