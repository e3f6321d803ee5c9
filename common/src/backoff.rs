//! How long to wait before the next attempt: exponential with full jitter.

use std::time::Duration;

/// The wait before attempt `failed + 1`: anything from zero to `base * 2^failed`, at most `cap`.
///
/// Full jitter spreads a crowd of waiters best (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
pub fn full_jitter(failed: u32, base: Duration, cap: Duration) -> Duration {
    let ceiling = base.saturating_mul(2u32.saturating_pow(failed.min(31))).min(cap);
    ceiling.mul_f64(fastrand::f64())
}

/// `base` to twice `base`: for reconnections, which should never come at once.
pub fn jitter(base: Duration) -> Duration {
    base.mul_f64(1.0 + fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_never_beyond() {
        let cap = Duration::from_secs(60);
        for failed in 0..100 {
            assert!(full_jitter(failed, Duration::from_secs(2), cap) <= cap);
        }
        assert!(full_jitter(0, Duration::from_secs(2), cap) <= Duration::from_secs(2));
    }
}
