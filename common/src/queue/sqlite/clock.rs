//! The clock of this machine since boot. Leases and waits are measured on it: nobody sets it, and it goes on while the
//! machine sleeps. Its readings mean nothing after a reboot, so each is kept with the id of its boot.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::queue::QueueError;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

const NANOSECONDS_A_SECOND: i64 = 1_000_000_000;

/// Nanoseconds since boot.
pub(super) fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.saturating_mul(NANOSECONDS_A_SECOND).saturating_add(now.tv_nsec)
}

/// A duration in the unit of [`now_ns`].
pub(super) const fn ns(duration: Duration) -> i64 {
    let nanoseconds = duration.as_nanos();
    if nanoseconds > i64::MAX as u128 { i64::MAX } else { nanoseconds as i64 }
}

/// Which boot this is (random(4)).
pub(super) fn boot_id() -> Result<String, QueueError> {
    match std::fs::read_to_string(BOOT_ID) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(error) => Err(QueueError::Refused(format!("the embedded queue needs {BOOT_ID}: {error}; mount /proc"))),
    }
}
