//! The log of transitions. Progress lies in the same table, marked as passing: so a follower sees both in the order in
//! which they were said, and whoever reads later sees none of it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Transaction, named_params, params};
use tokio::sync::watch;

use super::keeper::{Promise, write_now};
use super::pulse::Order;
use super::{Handle, Store, jobs};
use crate::event::Event;
use crate::queue::{About, Log, QueueError, Reader, Until};

/// How long the log is kept, counted back from its newest event.
const RETENTION: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The log is trimmed when it is opened and each time this many events were appended.
const TRIM_EVERY: usize = 10_000;

/// Progress is dropped after one to two of these.
const PASSING: Duration = Duration::from_secs(60);

/// Events read at once.
const PAGE: usize = 2000;

/// One event as it is kept.
pub(super) struct Line {
    namespace: String,
    at_ns: i64,
    passing: bool,
    event: String,
}

impl Line {
    fn of(namespace: &str, event: &Event, passing: bool) -> Result<Line, serde_json::Error> {
        let (namespace, at_ns) = (namespace.to_owned(), jobs::nanoseconds(event.at));
        Ok(Line { namespace, at_ns, passing, event: serde_json::to_string(event)? })
    }

    pub(super) fn write(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        tx.prepare_cached("INSERT INTO log (namespace, at_ns, passing, event) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![self.namespace, self.at_ns, self.passing, self.event])
            .map(drop)
    }
}

#[async_trait]
impl Log for Handle {
    async fn append(&self, event: &Event) -> Result<(), QueueError> {
        let store = &self.0;
        let line = Line::of(&store.namespace, event, false)
            .map_err(|error| QueueError::Refused(format!("an event that is no JSON: {error}")))?;
        store.writer.write(move |tx| line.write(tx)).await?;
        store.kick();
        if store.appended.fetch_add(1, Ordering::Relaxed) % TRIM_EVERY == TRIM_EVERY - 1
            && let Err(error) = trim(store).await
        {
            tracing::warn!(%error, "the log could not be trimmed");
        }
        Ok(())
    }

    async fn announce(&self, event: &Event) {
        if let Ok(line) = Line::of(&self.0.namespace, event, true) {
            self.0.order(Order::Say(line));
        }
    }

    async fn read_about(&self, about: About, since: Timestamp, until: Until) -> Result<Box<dyn Reader>, QueueError> {
        let store = self.0.clone();
        let follows = match until {
            Until::Now => None,
            Until::Ever | Until::Forever => Some(Follower::new(&store)),
        };
        let namespace = store.namespace.clone();
        let end = store.reader.read(last).await?;
        let since_ns = jobs::nanoseconds(since);
        let first = move |tx: &Transaction<'_>| {
            tx.prepare_cached("SELECT min(seq) FROM log WHERE namespace = ?1 AND at_ns >= ?2")?
                .query_row(params![namespace, since_ns], |row| row.get::<_, Option<i64>>(0))
        };
        let after = store.reader.read(first).await?.map_or(end, |first| (first - 1).min(end));
        let with_progress = until == Until::Forever;
        Ok(Box::new(LogReader { store, about, follows, with_progress, since_ns, end, after, page: Page::default() }))
    }
}

fn last(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
    tx.query_row("SELECT coalesce(max(seq), 0) FROM log", [], |row| row.get(0))
}

/// Counts itself while it lives, so that the watcher knows it is needed.
struct Follower {
    store: Arc<Store>,
    changes: watch::Receiver<()>,
}

impl Follower {
    fn new(store: &Arc<Store>) -> Follower {
        store.followers.fetch_add(1, Ordering::Relaxed);
        store.kick();
        Follower { store: store.clone(), changes: store.changes.subscribe() }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.store.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

struct LogReader {
    store: Arc<Store>,
    about: About,
    follows: Option<Follower>,
    with_progress: bool,
    since_ns: i64,
    /// The end of the log when this reader was opened. Progress said before is not for it; all that was written since
    /// is, whatever clock it was timed by.
    end: i64,
    /// The last line read.
    after: i64,
    page: Page,
}

impl LogReader {
    /// Read on; returns whether there was something.
    async fn turn(&mut self) -> Result<bool, QueueError> {
        let (namespace, since_ns, end, after) = (self.store.namespace.clone(), self.since_ns, self.end, self.after);
        let (passing, about) = (self.with_progress, self.about.clone());
        let until = if self.follows.is_some() { i64::MAX } else { end };
        let look = move |tx: &Transaction<'_>| {
            // By its place: the index of times would have each page sorted anew.
            let mut query = tx.prepare_cached(
                "SELECT seq, event FROM log NOT INDEXED
                 WHERE namespace = :namespace AND seq > :after AND seq <= :until
                   AND (passing = 0 OR (:passing AND seq > :end)) AND (seq > :end OR at_ns >= :since)
                 ORDER BY seq",
            )?;
            let values = named_params! {
                ":namespace": namespace, ":after": after, ":until": until, ":since": since_ns, ":end": end, ":passing": passing,
            };
            let mut lines = query.query(values)?;
            let mut page = Page::default();
            while page.ends.len() < PAGE
                && let Some(line) = lines.next()?
            {
                page.last = Some(line.get(0)?);
                let event = line.get_ref(1)?.as_bytes()?;
                if about.may_be(event) {
                    page.text.extend_from_slice(event);
                    page.ends.push_back(page.text.len());
                }
            }
            Ok(page)
        };
        let page = self.store.reader.read(look).await?;
        self.after = page.last.unwrap_or(self.after);
        let is_something = page.last.is_some();
        self.page = page;
        Ok(is_something)
    }
}

/// Some lines of the log. They are parsed where they are used: memory that one thread takes and another gives back costs
/// more than the parsing.
#[derive(Default)]
struct Page {
    text: Vec<u8>,
    /// Where each line that was not handed on yet ends.
    ends: VecDeque<usize>,
    /// Where the next one begins.
    begin: usize,
    /// The last line looked at.
    last: Option<i64>,
}

impl Page {
    /// The next line, parsed. One that a later version wrote may say what this one has no word for; it is passed over.
    fn next(&mut self) -> Option<Event> {
        while let Some(end) = self.ends.pop_front() {
            let line = self.text.get(self.begin..end).unwrap_or_default();
            self.begin = end;
            match serde_json::from_slice(line) {
                Ok(event) => return Some(event),
                Err(error) => tracing::warn!(%error, "an event of the log cannot be read"),
            }
        }
        None
    }
}

#[async_trait]
impl Reader for LogReader {
    async fn next(&mut self) -> Result<Option<Event>, QueueError> {
        loop {
            if let Some(event) = self.page.next() {
                return Ok(Some(event));
            }
            if let Some(follows) = &mut self.follows {
                // Before looking, so that what is written while we look wakes us.
                follows.changes.mark_unchanged();
            }
            if self.turn().await? {
                continue;
            }
            let Some(follows) = &mut self.follows else { return Ok(None) };
            if follows.changes.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

/// Drop what is older than the retention. Counted from the newest event as well as from now, so that a clock gone ahead
/// does not empty the log.
pub(super) async fn trim(store: &Store) -> Result<(), QueueError> {
    let now_ns = jobs::nanoseconds(Timestamp::now());
    let namespace = store.namespace.clone();
    let ends = move |tx: &Transaction<'_>| {
        // Apart, each is one look into the index.
        let of = "SELECT (SELECT min(at_ns) FROM log WHERE namespace = ?1),
                         (SELECT max(at_ns) FROM log WHERE namespace = ?1)";
        tx.query_row(of, params![namespace], |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?)))
    };
    let Some((oldest, newest)) = store.reader.read(ends).await? else { return Ok(()) };
    let horizon = newest.min(now_ns).saturating_sub(retention_ns());
    if oldest < horizon {
        let namespace = store.namespace.clone();
        let delete = "DELETE FROM log WHERE namespace = ?1 AND at_ns < ?2";
        store.writer.write(move |tx| tx.execute(delete, params![namespace, horizon])).await?;
    }
    Ok(())
}

fn retention_ns() -> i64 {
    i64::try_from(RETENTION.as_nanos()).unwrap_or(i64::MAX)
}

/// Drops progress by its place in the log, not by its time: what was there a minute ago.
#[derive(Default)]
pub(super) struct Trim {
    last: Option<(Instant, i64)>,
}

impl Trim {
    pub(super) fn is_needed(&self) -> bool {
        self.last.is_some_and(|(_, seq)| seq > 0)
    }

    pub(super) fn tick(&mut self, path: &Path, connection: &mut Connection) {
        if self.last.is_some_and(|(at, _)| at.elapsed() < PASSING) {
            return;
        }
        let before = self.last.map_or(0, |(_, seq)| seq);
        let trimmed = write_now(Promise::Fleeting, path, connection, |tx| {
            tx.execute("DELETE FROM log WHERE passing = 1 AND seq <= ?1", params![before])?;
            tx.query_row("SELECT coalesce(max(seq), 0) FROM log WHERE passing = 1", [], |row| row.get(0))
        });
        match trimmed {
            Ok(seq) => self.last = Some((Instant::now(), seq)),
            Err(error) => tracing::debug!(%error, "progress could not be trimmed"),
        }
    }
}
