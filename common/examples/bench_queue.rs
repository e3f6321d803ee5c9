//! The queue alone, as `tests/bench` measures it: jobs that do nothing. `bench_queue publish URL NAMESPACE COUNT WINDOW`
//! puts prune jobs on their lane, so many unconfirmed at once, and prints the rate; `bench_queue work URL NAMESPACE
//! IN_FLIGHT [quiet]` takes them, says of each that it started and succeeded (not if quiet), and settles it, for ever.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use imagewright_common::event::{Event, What};
use imagewright_common::job::{Kind, Lane, Message};
use imagewright_common::queue::{self, Backend, Delivery, Patience, QueueError, Tap, Verdict};
use imagewright_common::wire;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (role, url, namespace) = match words.as_slice() {
        [role, url, namespace, ..] => (*role, *url, *namespace),
        _ => return Err("usage: bench_queue (publish | work) URL NAMESPACE ...".into()),
    };
    let backend = queue::open(&url.parse()?, namespace, "bench", Patience::Endless).await?;
    let lane = Lane::of(Kind::Prune, &[]).into_iter().next().ok_or("no lane")?;
    match (role, words.get(3..).unwrap_or_default()) {
        ("publish", [count, window]) => publish(&backend, lane, count.parse()?, window.parse()?).await?,
        ("work", [in_flight]) => work(backend, lane, in_flight.parse()?, true).await?,
        ("work", [in_flight, "quiet"]) => work(backend, lane, in_flight.parse()?, false).await?,
        _ => return Err("usage: publish COUNT WINDOW, or work IN_FLIGHT [quiet]".into()),
    }
    Ok(())
}

async fn publish(backend: &Backend, lane: Lane, count: u32, window: usize) -> Result<(), Failure> {
    let began = Instant::now();
    let mut sent = stream::iter(0..count).map(|_| one(backend, lane)).buffer_unordered(window);
    while let Some(sent) = sent.next().await {
        sent?;
    }
    writeln!(std::io::stdout(), "{}", f64::from(count) / began.elapsed().as_secs_f64())?;
    Ok(())
}

async fn one(backend: &Backend, lane: Lane) -> Result<(), Failure> {
    let id = Uuid::now_v7();
    let spec = serde_json::json!({ "kind": "prune", "name": "bench", "cloud": "none", "keep": 5 });
    let message = serde_json::json!({ "version": 1, "id": id, "asked_at": Timestamp::now(), "spec": spec });
    backend.queue.publish(lane, &id.to_string(), message.to_string().as_bytes()).await?;
    Ok(())
}

async fn work(backend: Backend, lane: Lane, in_flight: u16, speaks: bool) -> Result<(), Failure> {
    let mut consumer = backend.queue.consume(Tap::New(lane), in_flight).await?;
    let (backend, room) = (Arc::new(backend), Arc::new(Semaphore::new(usize::from(in_flight))));
    loop {
        let delivery = consumer.next().await?;
        let (backend, place) = (backend.clone(), room.clone().acquire_owned().await?);
        tokio::spawn(async move {
            let done = nothing(&backend, delivery, speaks).await;
            drop(place);
            done
        });
    }
}

/// What a worker does of a job, without the job.
async fn nothing(backend: &Backend, delivery: Delivery, speaks: bool) -> Result<(), QueueError> {
    let read = wire::decode(&delivery.payload, Timestamp::now());
    if let (true, Ok(message)) = (speaks, &read) {
        say(backend, message, What::Started { attempt: 0, alone: false }).await?;
        say(backend, message, What::Succeeded { result: serde_json::json!({}) }).await?;
    }
    delivery.settle(Verdict::Done).await
}

async fn say(backend: &Backend, message: &Message, what: What) -> Result<(), QueueError> {
    backend.log.append(&Event::of(message, "bench", what)).await
}
