//! Every statement about jobs and those who hold them.
//!
//! A job is ready (`holder` and `due_ns` null), waiting (`due_ns` set) or held (`holder` set). A holder is a
//! subscription; it lives as long as its lease is renewed, and `claim` tells its deliveries of one job apart.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Params, Row, ToSql, Transaction, named_params, params};

use super::clock;
use crate::queue::{Counts, Tap};

/// A job returned by dying holders this often is not given to a lane again. RabbitMQ's lanes are declared with the
/// same limit.
pub(super) const CRASHES_MAX: u32 = 20;

/// What a claim is fenced by: all three hold only for the delivery that was handed out last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) seq: i64,
    pub(super) claim: i64,
    pub(super) holder: i64,
}

/// A job that was just claimed.
pub(super) struct Claimed {
    pub(super) claim: Claim,
    pub(super) payload: Vec<u8>,
    pub(super) counts: Counts,
}

/// A job to be put in.
pub(super) struct Entry<'a> {
    pub(super) namespace: &'a str,
    pub(super) tap: String,
    pub(super) id: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) counts: &'a Counts,
    /// Which boot, and the time since then; ready at once when none.
    pub(super) due: Option<(&'a str, i64)>,
}

/// How a tap is written in the file and, behind the namespace, in [`super::desk`]'s names.
pub(super) fn word(tap: Tap) -> String {
    match tap {
        Tap::New(lane) => lane.to_string(),
        Tap::Started(lane) => format!("{lane}.started"),
        Tap::Lost => "lost".to_owned(),
    }
}

/// Nanoseconds since 1970, for reports only.
pub(super) fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(if at < Timestamp::UNIX_EPOCH { i64::MIN } else { i64::MAX })
}

pub(super) fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}

pub(super) fn put(tx: &Transaction<'_>, entry: &Entry<'_>) -> rusqlite::Result<()> {
    let (due_boot, due_ns) = entry.due.unzip();
    tx.prepare_cached(
        "INSERT INTO jobs (namespace, tap, id, payload, attempt, crashes, detached, first_at, last_error, due_boot, due_ns)
         VALUES (:namespace, :tap, :id, :payload, :attempt, :crashes, :detached, :first_at, :last_error, :due_boot, :due_ns)",
    )?
    .execute(named_params! {
        ":namespace": entry.namespace,
        ":tap": entry.tap,
        ":id": entry.id,
        ":payload": entry.payload,
        ":attempt": entry.counts.attempt,
        ":crashes": entry.counts.crashes,
        ":detached": entry.counts.detached,
        ":first_at": entry.counts.first_at.map(nanoseconds),
        ":last_error": entry.counts.last_error,
        ":due_boot": due_boot,
        ":due_ns": due_ns,
    })?;
    Ok(())
}

/// Whether a tap has a job to give.
pub(super) fn any_ready(tx: &Transaction<'_>, namespace: &str, tap: &str) -> rusqlite::Result<bool> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE namespace = ?1 AND tap = ?2 AND holder IS NULL AND due_ns IS NULL)",
    )?
    .query_row(params![namespace, tap], |row| row.get(0))
}

/// When the next wait ends, on the clock of this boot.
pub(super) fn next_due_ns(tx: &Transaction<'_>) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached("SELECT min(due_ns) FROM jobs WHERE due_ns IS NOT NULL")?.query_row([], |row| row.get(0))
}

/// The oldest ready job of a tap, for a subscription that still lives.
pub(super) fn claim(
    tx: &Transaction<'_>,
    namespace: &str,
    tap: &str,
    holder: i64,
) -> rusqlite::Result<Option<Claimed>> {
    tx.prepare_cached(
        "UPDATE jobs SET holder = :holder, claim = claim + 1
         WHERE seq = (SELECT seq FROM jobs
                      WHERE namespace = :namespace AND tap = :tap AND holder IS NULL AND due_ns IS NULL
                      ORDER BY seq LIMIT 1)
           AND EXISTS (SELECT 1 FROM subscriptions WHERE id = :holder AND lease_ns > :now)
         RETURNING seq, claim, payload, attempt, crashes, detached, first_at, last_error",
    )?
    .query_row(
        named_params! { ":holder": holder, ":namespace": namespace, ":tap": tap, ":now": clock::now_ns() },
        |row| claimed(row, holder),
    )
    .optional()
}

fn claimed(row: &Row<'_>, holder: i64) -> rusqlite::Result<Claimed> {
    Ok(Claimed {
        claim: Claim { seq: row.get("seq")?, claim: row.get("claim")?, holder },
        payload: row.get("payload")?,
        counts: Counts {
            attempt: row.get("attempt")?,
            crashes: row.get("crashes")?,
            detached: row.get("detached")?,
            first_at: row.get::<_, Option<i64>>("first_at")?.and_then(timestamp),
            last_error: row.get("last_error")?,
        },
    })
}

/// Take a held job out, for whoever holds it; its id, or none when the claim is not the last one.
pub(super) fn take_out(tx: &Transaction<'_>, claim: Claim) -> rusqlite::Result<Option<String>> {
    tx.prepare_cached("DELETE FROM jobs WHERE seq = ?1 AND claim = ?2 AND holder = ?3 RETURNING id")?
        .query_row(params![claim.seq, claim.claim, claim.holder], |row| row.get(0))
        .optional()
}

/// Give back what nobody saw: it keeps its place and its counts.
pub(super) fn hand_back(tx: &Transaction<'_>, claim: Claim) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE jobs SET holder = NULL WHERE seq = ?1 AND claim = ?2 AND holder = ?3")?
        .execute(params![claim.seq, claim.claim, claim.holder])
        .map(drop)
}

/// Waits that are over make their jobs ready, behind those that are.
pub(super) fn end_due_waits(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    end_waits(tx, "due_ns <= ?1", params![clock::now_ns()])
}

pub(super) fn end_waits(tx: &Transaction<'_>, which: &str, values: impl Params + Clone) -> rusqlite::Result<()> {
    tx.prepare_cached(&format!(
        "INSERT INTO jobs (namespace, tap, id, payload, attempt, crashes, detached, first_at, last_error)
         SELECT namespace, tap, id, payload, attempt, crashes, detached, first_at, last_error FROM jobs
         WHERE due_ns IS NOT NULL AND {which} ORDER BY due_ns"
    ))?
    .execute(values.clone())?;
    tx.prepare_cached(&format!("DELETE FROM jobs WHERE due_ns IS NOT NULL AND {which}"))?.execute(values).map(drop)
}

const ABANDONED: &str = "holder IS NOT NULL AND holder NOT IN (SELECT id FROM subscriptions WHERE lease_ns > ?1)";

/// Whether somebody holds jobs whose lease ran out at `lapsed_ns` or before.
pub(super) fn any_abandoned(tx: &Transaction<'_>, lapsed_ns: i64) -> rusqlite::Result<bool> {
    tx.prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM jobs WHERE {ABANDONED})"))?
        .query_row(params![lapsed_ns], |row| row.get(0))
}

/// Take jobs from holders that are gone or whose lease ran out at `lapsed_ns` or before, counted as crashes.
pub(super) fn return_abandoned(tx: &Transaction<'_>, lapsed_ns: i64) -> rusqlite::Result<()> {
    crash(tx, ABANDONED, params![lapsed_ns])?;
    tx.execute("DELETE FROM subscriptions WHERE lease_ns <= ?1", params![lapsed_ns]).map(drop)
}

/// A subscription ended; what it held comes back, counted.
pub(super) fn end_subscription(tx: &Transaction<'_>, holder: i64) -> rusqlite::Result<()> {
    crash(tx, "holder = ?1", params![holder])?;
    tx.execute("DELETE FROM subscriptions WHERE id = ?1", params![holder]).map(drop)
}

/// One delivery was lost by its holder, which lives on.
pub(super) fn lose(tx: &Transaction<'_>, claim: Claim) -> rusqlite::Result<()> {
    crash(tx, "seq = ?1 AND claim = ?2 AND holder = ?3", params![claim.seq, claim.claim, claim.holder])
}

fn crash(tx: &Transaction<'_>, which: &str, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
    tx.prepare_cached(&format!(
        "UPDATE jobs SET holder = NULL, crashes = crashes + 1,
                         tap = CASE WHEN crashes + 1 >= {CRASHES_MAX} THEN 'lost' ELSE tap END
         WHERE {which}"
    ))?
    .execute(values)
    .map(drop)
}
