//! RabbitMQ passes the suite of the seam. `IMAGEWRIGHT_TEST_AMQP` names a real broker; without it every case fails, for
//! a queue that was not tried is not tested.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed case is a failed test")]
use async_trait::async_trait;
use imagewright_common::queue::conformance::Harness;
use imagewright_common::queue::{self, Address, Backend, Patience};
use imagewright_common::queue_conformance;
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};

struct RabbitHarness {
    url: String,
    namespace: String,
}

#[async_trait]
impl Harness for RabbitHarness {
    async fn fresh() -> Self {
        let url = std::env::var("IMAGEWRIGHT_TEST_AMQP")
            .expect("IMAGEWRIGHT_TEST_AMQP=amqp://... names the broker to test against; `tox -e unit` starts one");
        RabbitHarness { url, namespace: format!("case-{}", uuid::Uuid::new_v4()) }
    }

    async fn open(&self) -> Backend {
        let address: Address = self.url.parse().unwrap();
        queue::open(&address, &self.namespace, "conformance", Patience::Endless).await.unwrap()
    }

    async fn remove(&self) {
        let queues = self.open().await.desk.depths().await.unwrap();
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let names = queues.into_iter().map(|depth| depth.queue).chain([format!("{}.log", self.namespace)]);
        for name in names {
            channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
        }
    }
}

queue_conformance!(rabbitmq, RabbitHarness);
