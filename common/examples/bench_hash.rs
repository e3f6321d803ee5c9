//! How fast this machine computes a SHA-512, by each implementation that needs no system library: what
//! `tests/bench` holds transfers against. Prints bytes a second as JSON.

use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use sha2::Digest as _;

const CHUNK: usize = 256 * 1024;

fn main() -> std::io::Result<()> {
    let mebibytes: usize = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(512);
    let (chunk, times) = (vec![0x5a; CHUNK], mebibytes * 4);
    let sha2 = rate(times, || {
        let mut hasher = sha2::Sha512::new();
        (0..times).for_each(|_| hasher.update(black_box(&chunk)));
        black_box(hasher.finalize());
    });
    let aws_lc = rate(times, || {
        let mut hasher = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA512);
        (0..times).for_each(|_| hasher.update(black_box(&chunk)));
        black_box(hasher.finish());
    });
    let said = serde_json::json!({ "sha2": sha2, "aws-lc-rs": aws_lc });
    writeln!(std::io::stdout(), "{said}")
}

fn rate(times: usize, hash: impl FnOnce()) -> f64 {
    let began = Instant::now();
    hash();
    // Far below 2^52, so that nothing is rounded.
    (times * CHUNK) as f64 / began.elapsed().as_secs_f64()
}
