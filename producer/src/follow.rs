//! `--wait`: stay with a tree of jobs until all of it has ended.

use std::time::{Duration, Instant};

use imagewright_common::event::Event;
use imagewright_common::queue::{Backend, QueueError, Reader, Until};
use imagewright_common::status::JobStatus;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::display::Display;
use crate::exit::{Exit, Failure};
use crate::watch::Watch;
use crate::{report, story};

/// When nobody took a job for so long, say what may be missing.
const UNTOUCHED: Duration = Duration::from_secs(30);

/// How long a queue that went away is waited for.
const AWAY_MAX: Duration = Duration::from_secs(60);

const AGAIN_EVERY: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Followed {
    jobs: Vec<JobStatus>,
    #[serde(flatten)]
    also: Map<String, Value>,
}

/// For whom jobs are followed.
#[derive(Debug)]
pub(crate) enum Audience {
    /// Whoever enqueued them and waits for the result, progress beside it; the JSON document says `also` that.
    Result { also: Map<String, Value> },
    /// Whoever watches: what happens is the result.
    Watch,
}

/// Follow the jobs of `watch`, whose events begin after `since`.
pub(crate) async fn run(
    context: &Context,
    backend: Backend,
    mut reader: Box<dyn Reader>,
    since: Timestamp,
    mut watch: Watch,
    audience: Audience,
) -> Result<Exit, Failure> {
    let told_apart = matches!(audience, Audience::Watch) && (context.json || watch.is_everything());
    let mut display = Display::new(context.quiet || told_apart);
    // The reader lives on its connection.
    let mut backend = backend;
    let followed = loop {
        match listen(context, &mut watch, &mut *reader, &mut display, told_apart).await {
            Ok(exit) => break Ok(exit),
            Err(Broken::Output(failure)) => break Err(failure),
            Err(Broken::Queue(error)) => {
                display.note(&format!("warning: {error}; the jobs go on; trying to reach the queue again"));
                match again(context, since).await {
                    Ok(fresh) => (backend, reader) = fresh,
                    Err(failure) => break Err(failure),
                }
            }
        }
    };
    display.finish();
    drop(backend);
    if context.json
        && let Audience::Result { also } = audience
    {
        report::json(&Followed { jobs: watch.jobs(), also })?;
    }
    let look =
        format!("the jobs go on; see them with: imagewright status {}", watch.roots().join(" ")).trim_end().to_owned();
    match followed {
        Ok(Exit::Interrupted) => {
            report::note(&format!("interrupted; {look}"));
            Ok(Exit::Interrupted)
        }
        Ok(_) => {
            let ending = watch.ending();
            ending.lines.iter().for_each(|line| report::note(line));
            Ok(ending.exit)
        }
        Err(failure) => Err(failure.and(&look)),
    }
}

/// Until all has ended, Ctrl-C, or the queue goes away.
async fn listen(
    context: &Context,
    watch: &mut Watch,
    reader: &mut dyn Reader,
    display: &mut Display,
    told_apart: bool,
) -> Result<Exit, Broken> {
    let interrupt = tokio::signal::ctrl_c();
    let untouched = tokio::time::sleep(UNTOUCHED);
    tokio::pin!(interrupt, untouched);
    let mut hinted = false;
    while !watch.is_over() {
        tokio::select! {
            event = reader.next() => match event.map_err(Broken::Queue)? {
                Some(event) => {
                    if told_apart && watch.concerns(&event) {
                        tell(context, &event).map_err(Broken::Output)?;
                    }
                    if let Some(news) = watch.take(&event) {
                        display.show(&news);
                    }
                }
                None => return Err(Broken::Queue(QueueError::Unavailable("the log ended".to_owned()))),
            },
            _ = &mut interrupt => return Ok(Exit::Interrupted),
            () = &mut untouched, if !hinted => {
                hinted = true;
                if watch.is_untouched() {
                    display.note("no worker has taken a job yet: does an imagewright-worker run for this queue, kind and arch? is the kind paused (imagewright resume)?");
                }
            }
        }
    }
    Ok(Exit::Ok)
}

/// What ends listening early.
enum Broken {
    Queue(QueueError),
    Output(Failure),
}

fn tell(context: &Context, event: &Event) -> Result<(), Failure> {
    if context.json { report::json_line(event) } else { report::result(&(story::line_of_many(event) + "\n")) }
}

/// The queue and the log anew, unless Ctrl-C comes first. Events that come a second time change nothing.
async fn again(context: &Context, since: Timestamp) -> Result<(Backend, Box<dyn Reader>), Failure> {
    tokio::select! {
        opened = reopen(context, since) => opened,
        _ = tokio::signal::ctrl_c() => Err(Failure { exit: Exit::Interrupted, text: "interrupted".to_owned() }),
    }
}

async fn reopen(context: &Context, since: Timestamp) -> Result<(Backend, Box<dyn Reader>), Failure> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(AGAIN_EVERY).await;
        let failure = match context.open().await {
            Ok(backend) => match backend.log.read(since, Until::Forever).await {
                Ok(reader) => return Ok((backend, reader)),
                Err(error) => Failure::from(error),
            },
            Err(failure) => failure,
        };
        if failure.exit != Exit::Unreachable || begun.elapsed() > AWAY_MAX {
            return Err(failure);
        }
    }
}
