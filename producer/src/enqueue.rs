//! Jobs onto the queue: checked as a worker would check them, published one by one, each said to be queued.

use clap::Args;
use imagewright_common::event::{Event, What};
use imagewright_common::job::{CloudName, Message, Spec, VERSION};
use imagewright_common::queue::{Backend, QueueError, Until};
use imagewright_common::wire;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::follow::{self, Audience};
use crate::watch::Watch;
use crate::{report, time};

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

/// One job to enqueue.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) asked_at: Timestamp,
    pub(crate) spec: Spec,
}

/// Jobs to enqueue together.
pub(crate) struct Batch {
    pub(crate) orders: Vec<Order>,
    /// No event of these jobs is older; `--wait` listens from then on.
    pub(crate) since: Timestamp,
    /// What else the JSON document says.
    pub(crate) also: Map<String, Value>,
    /// How to repeat the command when the queue went away.
    pub(crate) repeat: Repeat,
}

/// How to enqueue the rest of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// With `--cloud` for those clouds only: each run makes new ids.
    Clouds,
    /// As it was: the ids are the same.
    Whole,
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
    #[serde(flatten)]
    also: Map<String, Value>,
}

#[derive(Serialize)]
struct Row {
    id: Uuid,
    kind: &'static str,
    cloud: CloudName,
}

/// Enqueue one new job per spec, and follow them if that was asked.
pub(crate) async fn run(context: &Context, specs: Vec<Spec>, options: &Options) -> Result<Exit, Failure> {
    let since = Timestamp::now();
    let orders = specs.into_iter().map(|spec| Order { id: Uuid::now_v7(), asked_at: since, spec }).collect();
    send(context, None, Batch { orders, since, also: Map::new(), repeat: Repeat::Clouds }, options).await
}

/// Enqueue jobs whose ids and times are given, and follow them if that was asked. The queue is opened unless it is.
pub(crate) async fn send(
    context: &Context,
    opened: Option<Backend>,
    batch: Batch,
    options: &Options,
) -> Result<Exit, Failure> {
    let Batch { orders, since, also, repeat } = batch;
    let now = Timestamp::now();
    let letters = orders.into_iter().map(|order| letter(order, options, now)).collect::<Result<Vec<_>, _>>()?;
    let backend = match opened {
        Some(backend) => backend,
        None => context.open().await?,
    };
    // Attached before anything is published: no event of these jobs can be missed.
    let since = since.checked_sub(SignedDuration::from_mins(1)).unwrap_or(since);
    let reader = if options.wait { Some(backend.log.read(since, Until::Forever).await?) } else { None };
    let json_now = context.json && !options.wait;
    let published = publish(context, &backend, &letters, repeat).await;
    if json_now {
        let sent = letters.get(..published.sent).unwrap_or_default();
        report::json(&Enqueued { jobs: sent.iter().map(Letter::row).collect(), also: also.clone() })?;
    }
    if let Some(failure) = published.failure {
        return Err(failure);
    }
    match reader {
        Some(reader) => {
            let roots = letters.into_iter().map(|letter| letter.message.id.to_string()).collect();
            follow::run(context, backend, reader, since, Watch::new(roots), Audience::Result { also }).await
        }
        None => Ok(Exit::Ok),
    }
}

struct Published {
    sent: usize,
    failure: Option<Failure>,
}

async fn publish(context: &Context, backend: &Backend, letters: &[Letter], repeat: Repeat) -> Published {
    for (sent, letter) in letters.iter().enumerate() {
        let id = letter.message.id.to_string();
        let outcome = backend.queue.publish(letter.message.spec.lane(), &id, &letter.payload).await;
        if let Err(error) = outcome {
            return Published { sent, failure: Some(interrupted(error, letters, sent, repeat)) };
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
fn interrupted(error: QueueError, letters: &[Letter], sent: usize, repeat: Repeat) -> Failure {
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
    match repeat {
        Repeat::Whole => failure.and("run the same again for the rest: what was enqueued keeps its id"),
        Repeat::Clouds if clouds.is_empty() => failure.and("`imagewright status` shows what arrived"),
        Repeat::Clouds => failure.and(&format!("not enqueued; repeat with --cloud {}", clouds.join(","))),
    }
}

/// The job, its message, and the proof that a worker can read it.
fn letter(order: Order, options: &Options, now: Timestamp) -> Result<Letter, Failure> {
    let Order { id, asked_at, spec } = order;
    let now = in_milliseconds(now);
    let deadline = match options.deadline {
        Some(duration) => Some(now.checked_add(duration).map_err(|_| Failure::usage("--deadline is beyond all time"))?),
        None => None,
    };
    let asked_at = Some(in_milliseconds(asked_at));
    let message = Message { version: VERSION, id, parent: None, asked_at, deadline, spec, progress: None };
    let payload =
        wire::encode(&message).map_err(|error| Failure::internal(format!("the message is not JSON: {error}")))?;
    wire::decode(&payload, now).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Letter { message, payload })
}

fn in_milliseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
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

    fn order(cloud: &str, asked_at: Timestamp) -> Order {
        let keep = Keep::try_from(2).unwrap();
        let prune = PruneSpec { name: "n".parse().unwrap(), cloud: cloud.parse().unwrap(), keep, arch: None };
        Order { id: Uuid::now_v7(), asked_at, spec: Spec::Prune(prune) }
    }

    fn options(deadline: Option<&str>) -> Options {
        Options { deadline: deadline.map(|text| time::duration(text).unwrap()), wait: false }
    }

    #[test]
    fn a_deadline_is_counted_from_now() {
        let now: Timestamp = "2026-11-23T10:00:00.123456Z".parse().unwrap();
        let day = "2026-11-23T00:00:00Z".parse().unwrap();
        for (asked_at, shown) in [(now, "2026-11-23T10:00:00.123Z"), (day, "2026-11-23T00:00:00Z")] {
            let order = order("c", asked_at);
            let id = order.id;
            let letter = letter(order, &options(Some("90m")), now).unwrap();
            assert_eq!(letter.message.asked_at.unwrap().to_string(), shown);
            assert_eq!(letter.message.deadline.unwrap().to_string(), "2026-11-23T11:30:00.123Z");
            assert_eq!(letter.message.id, id);
        }
    }

    #[test]
    fn a_queue_that_goes_away_leaves_nothing_unnamed() {
        let now = Timestamp::now();
        let letters: Vec<Letter> =
            ["a", "b", "c"].into_iter().map(|cloud| letter(order(cloud, now), &options(None), now).unwrap()).collect();
        let away = || QueueError::Unavailable("reset".to_owned());
        let text = interrupted(away(), &letters, 1, Repeat::Clouds).text;
        assert!(text.contains(&format!("enqueued before that: {} (a)", letters[0].message.id)), "{text}");
        assert!(text.ends_with("not enqueued; repeat with --cloud b,c"), "{text}");
        let text = interrupted(away(), &letters, 1, Repeat::Whole).text;
        assert!(text.contains(" (a)") && text.contains("the same again") && !text.contains("--cloud"), "{text}");
        let text = interrupted(QueueError::Unknown("reset".to_owned()), &letters, 2, Repeat::Clouds).text;
        assert!(text.contains(&format!("perhaps enqueued: {} (c)", letters[2].message.id)), "{text}");
    }
}
