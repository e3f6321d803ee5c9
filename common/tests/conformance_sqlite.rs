//! The embedded queue passes the suite of the seam.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use async_trait::async_trait;
use imagewright_common::queue::conformance::Harness;
use imagewright_common::queue::{self, Address, Backend, Patience};
use imagewright_common::queue_conformance;
use tempfile::TempDir;

struct SqliteHarness {
    directory: TempDir,
}

#[async_trait]
impl Harness for SqliteHarness {
    async fn fresh() -> Self {
        SqliteHarness { directory: TempDir::new().unwrap() }
    }

    async fn open(&self) -> Backend {
        let address = Address::Sqlite(self.directory.path().join("state/queue.db"));
        queue::open(&address, "case", "conformance", Patience::Endless).await.unwrap()
    }
}

queue_conformance!(sqlite, SqliteHarness);
