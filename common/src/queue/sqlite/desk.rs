//! What an operator looks at.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Row, Transaction, params};

use super::jobs::Entry;
use super::{Handle, clock, jobs};
use crate::job::{Kind, Lane};
use crate::queue::{Burial, Counts, Dead, Depth, Desk, Fate, Judge, QueueError, Tap};

#[async_trait]
impl Desk for Handle {
    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        let namespace = self.0.namespace.clone();
        self.0.reader.read(move |tx| depths(tx, &namespace)).await
    }

    async fn dead(&self) -> Result<Vec<Dead>, QueueError> {
        let namespace = self.0.namespace.clone();
        let look =
            move |tx: &Transaction<'_>| Ok(all_dead(tx, &namespace)?.into_iter().map(|(_, dead)| dead).collect());
        self.0.reader.read(look).await
    }

    async fn judge_dead(&self, judge: Judge) -> Result<Vec<Dead>, QueueError> {
        let namespace = self.0.namespace.clone();
        let now = Timestamp::now();
        let carry_out = move |tx: &Transaction<'_>| {
            let mut settled = Vec::new();
            for (seq, dead) in all_dead(tx, &namespace)? {
                match judge(&dead) {
                    Fate::Keep => continue,
                    Fate::Discard => {}
                    Fate::Requeue { lane, id, payload } => {
                        let counts = Counts { first_at: Some(now), ..Counts::default() };
                        let tap = jobs::word(Tap::New(lane));
                        let (namespace, id, payload) = (namespace.as_str(), id.as_str(), payload.as_slice());
                        jobs::put(tx, &Entry { namespace, tap, id, payload, counts: &counts, due: None })?;
                    }
                }
                tx.execute("DELETE FROM dead WHERE seq = ?1", params![seq])?;
                settled.push(dead);
            }
            Ok(settled)
        };
        let settled = self.0.writer.write(carry_out).await?;
        self.0.kick();
        Ok(settled)
    }

    async fn paused(&self) -> Result<Vec<Kind>, QueueError> {
        let namespace = self.0.namespace.clone();
        self.0.reader.read(move |tx| paused(tx, &namespace)).await
    }

    async fn pause(&self, kind: Kind) -> Result<(), QueueError> {
        let namespace = self.0.namespace.clone();
        let mark = move |tx: &Transaction<'_>| {
            if paused(tx, &namespace)?.contains(&kind) {
                return Ok(());
            }
            let (tap, counts) = (pause(kind), Counts::default());
            jobs::put(tx, &Entry { namespace: &namespace, tap, id: "pause", payload: b"", counts: &counts, due: None })
        };
        self.0.writer.write(mark).await
    }

    async fn resume(&self, kind: Kind) -> Result<(), QueueError> {
        let namespace = self.0.namespace.clone();
        let remove = move |tx: &Transaction<'_>| {
            let sql = "DELETE FROM jobs WHERE namespace = ?1 AND tap = ?2";
            tx.execute(sql, params![namespace, pause(kind)]).map(drop)
        };
        self.0.writer.write(remove).await
    }
}

/// Where an entry lies while new jobs of `kind` are paused.
fn pause(kind: Kind) -> String {
    format!("pause.{kind}")
}

fn paused(tx: &Transaction<'_>, namespace: &str) -> rusqlite::Result<Vec<Kind>> {
    let mut paused = Vec::new();
    for kind in Kind::ALL {
        if jobs::any_ready(tx, namespace, &pause(kind))? {
            paused.push(kind);
        }
    }
    Ok(paused)
}

fn all_dead(tx: &Transaction<'_>, namespace: &str) -> rusqlite::Result<Vec<(i64, Dead)>> {
    let mut query = tx.prepare_cached(
        "SELECT seq, payload, attempts, first_at, last_at, burial FROM dead WHERE namespace = ?1 ORDER BY seq",
    )?;
    query.query_map(params![namespace], |row| Ok((row.get("seq")?, dead(row)?)))?.collect()
}

/// The rows are named as RabbitMQ's queues, except that all waits are one.
fn depths(tx: &Transaction<'_>, namespace: &str) -> rusqlite::Result<Vec<Depth>> {
    let now_ns = clock::now_ns();
    let ready = by_tap(
        tx,
        "SELECT tap, count(*) FROM jobs
         WHERE namespace = ?1 AND (due_ns IS NULL OR due_ns <= ?2)
           AND (holder IS NULL OR holder NOT IN (SELECT id FROM subscriptions WHERE lease_ns > ?2))
         GROUP BY tap",
        namespace,
        now_ns,
    )?;
    let consumers = by_tap(
        tx,
        "SELECT tap, count(*) FROM subscriptions
         WHERE namespace = ?1 AND tap IS NOT NULL AND lease_ns > ?2 GROUP BY tap",
        namespace,
        now_ns,
    )?;
    let waiting = tx.query_row(
        "SELECT count(*) FROM jobs WHERE namespace = ?1 AND due_ns > ?2",
        params![namespace, now_ns],
        |row| tally(row, 0),
    )?;
    let dead =
        tx.query_row("SELECT count(*) FROM dead WHERE namespace = ?1", params![namespace], |row| tally(row, 0))?;

    let row = |word: &str, ready: u64, consumers: u64| Depth { queue: format!("{namespace}.{word}"), ready, consumers };
    let count = |of: &HashMap<String, u64>, word: &str| of.get(word).copied().unwrap_or(0);
    let tap = |tap: Tap| {
        let word = jobs::word(tap);
        row(&word, count(&ready, &word), count(&consumers, &word))
    };
    let mut rows: Vec<Depth> =
        Lane::all().into_iter().flat_map(|lane| [tap(Tap::New(lane)), tap(Tap::Started(lane))]).collect();
    rows.extend([row("wait", waiting, 0), tap(Tap::Lost), row("dead", dead, 0)]);
    rows.extend(Kind::ALL.into_iter().map(pause).map(|word| row(&word, count(&ready, &word), 0)));
    Ok(rows)
}

fn by_tap(tx: &Transaction<'_>, sql: &str, namespace: &str, now_ns: i64) -> rusqlite::Result<HashMap<String, u64>> {
    let mut query = tx.prepare_cached(sql)?;
    query.query_map(params![namespace, now_ns], |row| Ok((row.get(0)?, tally(row, 1)?)))?.collect()
}

fn tally(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::unsigned_abs)
}

fn dead(row: &Row<'_>) -> rusqlite::Result<Dead> {
    let burial: String = row.get("burial")?;
    Ok(Dead {
        payload: row.get("payload")?,
        attempts: row.get("attempts")?,
        first_at: row.get::<_, Option<i64>>("first_at")?.and_then(jobs::timestamp),
        last_at: jobs::timestamp(row.get("last_at")?),
        // Written by a later version: shown as it is rather than hidden.
        burial: serde_json::from_str(&burial).unwrap_or_else(|_| Burial { reason: burial, ..Burial::default() }),
    })
}
