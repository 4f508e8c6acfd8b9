//! A foreign application at the broker: it publishes what it likes, and reads what it finds.
//!
//! It names the AMQP client directly, which nothing else in this package may, because it must not share a line with the
//! transport that it disturbs.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

/// How long an answer of the broker may take.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection with one channel.
pub(crate) struct BareClient {
    connection: Connection,
    channel: Channel,
}

/// A message that was read.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) content_type: Option<String>,
    pub(crate) app_id: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Letter {
    /// The text of a header, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl BareClient {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = answered(Connection::connect(url, ConnectionProperties::default())).await.unwrap();
        let channel = answered(connection.create_channel()).await.unwrap();
        answered(channel.confirm_select(ConfirmSelectOptions::default())).await.unwrap();
        Self { connection, channel }
    }

    /// Publishes and waits for the broker's confirmation.
    pub(crate) async fn publish(&self, exchange: &str, key: &str, body: &[u8]) {
        self.publish_as(exchange, key, body, BasicProperties::default()).await;
    }

    /// Publishes as an application of this name, JSON by its own account.
    pub(crate) async fn publish_json(&self, exchange: &str, key: &str, body: &str, app_id: &str) {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_app_id(app_id.into());
        self.publish_as(exchange, key, body.as_bytes(), properties).await;
    }

    async fn publish_as(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions::default();
        let publish = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        answered(async { publish.await?.await }).await.unwrap();
    }

    /// Takes the next message out of a queue.
    pub(crate) async fn read(&self, queue: &str) -> Option<Letter> {
        let options = BasicGetOptions { no_ack: true };
        let message = answered(self.channel.basic_get(queue.into(), options)).await.unwrap()?;
        let properties = &message.delivery.properties;
        let headers = properties.headers().as_ref().map(FieldTable::inner);
        let headers = headers.into_iter().flatten().map(|(name, value)| (name.to_string(), shown(value)));
        Some(Letter {
            headers: headers.collect(),
            content_type: properties.content_type().as_ref().map(ToString::to_string),
            app_id: properties.app_id().as_ref().map(ToString::to_string),
            body: message.delivery.data.clone(),
        })
    }

    /// How many messages wait in a queue; `None` where there is no such queue.
    pub(crate) async fn waiting(&self, queue: &str) -> Option<u32> {
        // A channel of its own, since the refusal closes it.
        let channel = answered(self.connection.create_channel()).await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = answered(channel.queue_declare(queue.into(), options, FieldTable::default())).await;
        declared.ok().map(|queue| queue.message_count())
    }

    /// Declares a durable topic exchange to which nothing is bound.
    pub(crate) async fn declare_topic(&self, exchange: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default();
        let declare = self.channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, none);
        answered(declare).await.unwrap();
    }
}

async fn answered<T>(question: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let asked = Instant::now();
    let answer = tokio::time::timeout(ANSWER, question).await;
    answer.unwrap_or_else(|_| panic!("no answer of the broker within {:?}", asked.elapsed()))
}

fn shown(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}
