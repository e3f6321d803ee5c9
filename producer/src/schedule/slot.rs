//! Time slots: what makes machines that know nothing of each other ask for the same job.
//!
//! Time is cut into slots as long as the interval, from the epoch. A job of a slot is asked for at the slot's beginning,
//! and that moment is part of its id: who asks again in the same slot asks for the same revision. What was stale when it
//! was looked at lies at least one interval back, so before the slot began: the slot's revision is the newer one. An
//! upload by hand within the slot was wanted later than the slot's revision, and stays the newest.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::Target;

/// The shortest interval: a slot in which nothing can be done is no slot.
pub(crate) const SHORTEST: SignedDuration = SignedDuration::from_mins(1);

/// The name space of the ids (RFC 9562, version 5). It may never change: other releases would do the work again.
const IDS: Uuid = Uuid::from_u128(0x5f0e_3c1a_9d3b_4c55_8a41_6f0b_52d7_c7e9);

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// When it began; the `asked_at` of its job.
    pub(crate) start: Timestamp,
    /// When the next one begins.
    pub(crate) end: Timestamp,
}

impl Slot {
    /// The slot that `now` lies in; `interval` is of whole seconds and not less than [`SHORTEST`].
    pub(crate) fn at(now: Timestamp, interval: SignedDuration) -> Slot {
        let length = interval.as_secs().max(1);
        let start = now.as_second() - now.as_second().rem_euclid(length);
        let at = |second| Timestamp::from_second(second).unwrap_or(now);
        Slot { start: at(start), end: at(start.saturating_add(length)) }
    }

    /// The id of the slot's job. No name holds a control character, so no two targets spell the same.
    pub(crate) fn job_id(self, namespace: &str, target: &Target) -> Uuid {
        let second = self.start.as_second();
        let Target { name, arch, cloud, .. } = target;
        let name = format!("{namespace}\n{name}\n{arch}\n{cloud}\n{second}");
        Uuid::new_v5(&IDS, name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::file;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn target(name: &str, arch: &str, cloud: &str) -> Target {
        let text =
            format!("images: [{{name: {name}, arch: {arch}, source: {{file: /f}}, clouds: [{cloud}], interval: 1d}}]");
        file::parse(&text).unwrap().remove(0)
    }

    #[test]
    fn a_slot_begins_with_its_first_second_and_ends_before_the_next() {
        let day = SignedDuration::from_hours(24);
        let slot = Slot::at(at("2026-11-23T10:00:00.5Z"), day);
        assert_eq!((slot.start, slot.end), (at("2026-11-23T00:00:00Z"), at("2026-11-24T00:00:00Z")));
        assert_eq!(Slot::at(slot.start, day), slot);
        assert_eq!(Slot::at(at("2026-11-23T23:59:59.999Z"), day), slot);
        assert_eq!(Slot::at(slot.end, day).start, slot.end);
        assert_eq!(Slot::at(at("1969-12-31T23:00:00Z"), day).end, Timestamp::UNIX_EPOCH);
    }

    /// `asked_at` is the slot's beginning, and stale means at least one interval old.
    #[test]
    fn what_is_asked_for_is_newer_than_whatever_was_stale_and_older_than_an_upload_by_hand_since() {
        for seconds in [60, 3600, 86_400, 604_800, 100_003] {
            let interval = SignedDuration::from_secs(seconds);
            for now in ["2026-11-23T10:00:00.123Z", "2026-11-23T00:00:00Z", "2026-11-22T23:59:59.999999999Z"].map(at) {
                let slot = Slot::at(now, interval);
                let newest_that_is_stale = now - interval;
                assert!(newest_that_is_stale < slot.start && slot.start <= now, "{now} {interval}");
            }
        }
    }

    #[test]
    fn an_id_is_the_same_everywhere_and_of_one_target_and_slot_alone() {
        let slot = Slot::at(at("2026-11-23T10:00:00Z"), SignedDuration::from_hours(24));
        let id = slot.job_id("imagewright", &target("noble", "amd64", "edge-1"));
        assert_eq!(id.to_string(), "bf177791-7877-5f4f-82f6-500d8fb71287");
        assert_eq!(id, slot.job_id("imagewright", &target("noble", "x86_64", "edge-1")));
        let next = Slot::at(slot.end, SignedDuration::from_hours(24));
        let others = [
            next.job_id("imagewright", &target("noble", "amd64", "edge-1")),
            slot.job_id("other", &target("noble", "amd64", "edge-1")),
            slot.job_id("imagewright", &target("jammy", "amd64", "edge-1")),
            slot.job_id("imagewright", &target("noble", "arm64", "edge-1")),
            slot.job_id("imagewright", &target("noble", "amd64", "edge-2")),
        ];
        assert!(!others.contains(&id));
    }
}
