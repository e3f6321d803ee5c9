//! The file: made, opened, and brought to this program's schema.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, MAIN_DB, OpenFlags, Transaction, TransactionBehavior, params};

use super::failure::{READ_ONLY, explain};
use super::keeper::patiently;
use super::{clock, jobs};
use crate::queue::QueueError;

/// Raised with each change of the schema; a file of a higher version is refused, never guessed at.
const VERSION: i64 = 2;

/// What to do about a file that is not there and cannot be.
const UNMADE: &str = "it cannot be made; this user needs write permission on its directory, or name another file";

/// "IMWQ": tells our files from those of other programs.
const APPLICATION: i64 = 0x494D_5751;

/// How long SQLite itself waits for a lock before it says so.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// `seq` is the order within a tap, and never given out twice: a job that comes back is put in anew, at the end.
const TABLES: &str = "
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace TEXT NOT NULL,
        tap TEXT NOT NULL,
        id TEXT NOT NULL,
        payload BLOB NOT NULL,
        attempt INTEGER NOT NULL,
        crashes INTEGER NOT NULL,
        first_at INTEGER,
        last_error TEXT,
        due_boot TEXT,
        due_ns INTEGER,
        claim INTEGER NOT NULL DEFAULT 0,
        holder INTEGER
    ) STRICT;
    CREATE INDEX jobs_ready ON jobs (namespace, tap, seq) WHERE holder IS NULL AND due_ns IS NULL;
    CREATE INDEX jobs_waiting ON jobs (due_ns) WHERE due_ns IS NOT NULL;
    CREATE INDEX jobs_held ON jobs (holder) WHERE holder IS NOT NULL;

    CREATE TABLE subscriptions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        process TEXT NOT NULL,
        namespace TEXT NOT NULL,
        tap TEXT,
        boot TEXT NOT NULL,
        lease_ns INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE dead (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace TEXT NOT NULL,
        id TEXT NOT NULL,
        payload BLOB NOT NULL,
        attempts INTEGER NOT NULL,
        first_at INTEGER,
        last_at INTEGER NOT NULL,
        burial TEXT NOT NULL
    ) STRICT;

    CREATE TABLE log (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        passing INTEGER NOT NULL,
        event TEXT NOT NULL
    ) STRICT;
    CREATE INDEX log_at ON log (namespace, at_ns);
    CREATE INDEX log_passing ON log (seq) WHERE passing = 1;
";

/// What each later version adds to the one before; a file is brought up one by one.
const CHANGES: [&str; 1] = ["ALTER TABLE jobs ADD COLUMN detached INTEGER NOT NULL DEFAULT 0"];

/// Make the file ready for use by this program, and take back what the last boot left behind.
pub(super) fn prepare(path: &Path) -> Result<(), QueueError> {
    create(path)?;
    let boot = clock::boot_id()?;
    let mut connection = connect(path)?;
    // Nothing is written before it is known whose file this is.
    patiently(path, || is_ours(&connection))??;
    patiently(path, || connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())))?;
    patiently(path, || {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = version(&tx)?;
        if found == 0 {
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "application_id", APPLICATION)?;
        }
        if found < VERSION {
            let known = usize::try_from(found.max(1) - 1).unwrap_or(0);
            CHANGES.iter().skip(known).try_for_each(|change| tx.execute_batch(change))?;
            tx.pragma_update(None, "user_version", VERSION)?;
        }
        forget_boots_before(&tx, &boot)?;
        tx.commit()
    })
}

/// The umask can only take from these modes; SQLite gives its side files the mode of the file.
fn create(path: &Path) -> Result<(), QueueError> {
    let refused = |error: std::io::Error| QueueError::Refused(format!("{}: {UNMADE} ({error})", path.display()));
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refused)?;
    }
    if !path.exists() {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(refused)?;
    }
    Ok(())
}

/// A connection to a file that is [`prepare`]d.
pub(super) fn connect(path: &Path) -> Result<Connection, QueueError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| explain(path, &error))?;
    connection.busy_timeout(LOCK_WAIT).map_err(|error| explain(path, &error))?;
    // SQLite opens what it may not write for reading, without a word.
    if connection.is_readonly(MAIN_DB).map_err(|error| explain(path, &error))? {
        return Err(QueueError::Refused(format!("{}: {READ_ONLY}", path.display())));
    }
    Ok(connection)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn is_ours(connection: &Connection) -> rusqlite::Result<Result<(), QueueError>> {
    // In one transaction: another process may be making the tables right now.
    let snapshot = connection.unchecked_transaction()?;
    let tables: i64 = snapshot.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = version(connection)?;
    let path = connection.path().unwrap_or_default();
    let refused = |text: &str| Ok(Err(QueueError::Refused(format!("{path}: {text}"))));
    if tables == 0 {
        return Ok(Ok(()));
    }
    if application != APPLICATION {
        return refused("it belongs to another program; name another file");
    }
    if version > VERSION {
        return refused(&format!(
            "it has schema version {version} and this program knows {VERSION}; upgrade every imagewright program of this machine"
        ));
    }
    Ok(Ok(()))
}

/// Times and leases of earlier boots cannot be compared with this one's clock: their waits are over, their holders dead.
fn forget_boots_before(tx: &Transaction<'_>, boot: &str) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM subscriptions WHERE boot <> ?1", params![boot])?;
    jobs::return_abandoned(tx, i64::MIN)?;
    jobs::end_waits(tx, "due_boot <> ?1", params![boot])
}
