//! How nodes of [`Profile::Stream`](super::Profile) learn which regions there are.
//!
//! AMQP cannot list the streams of a cache. So each node says which region it is of: when its publishing connection
//! begins, before it publishes anything else on it, and every [`EVERY`] from then on. A node that begins to listen asks
//! for it, and everybody answers the asker alone. A hello is a message without a body, on the cache's exchange, whose
//! routing keys no frame uses; it goes to a queue of its own, so that subscriptions never see one.
//!
//! A list kept at the broker (a stream of names, read from its start) was rejected: under federation each broker would
//! have its own, and a region that was given up would stay on it.

use std::{collections::VecDeque, time::Duration};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::topology::short;
use crate::node::NodeId;

/// How often a node says that it is there.
pub(super) const EVERY: Duration = Duration::from_secs(30);

/// How many askers wait for their answer at most; beyond, an asker waits for the next hello to everyone.
const ANSWERS_MAX: usize = 64;

/// The type of the message; a later form gets another number, and this one is then still understood.
const KIND: &str = "geocache.hello.1";

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) node: NodeId,
    /// Whether it wants to be told of the others.
    pub(super) ask: bool,
}

impl Hello {
    pub(super) fn properties(&self) -> BasicProperties {
        let mut headers = FieldTable::default();
        let text = |text: &str| AMQPValue::LongString(text.into());
        headers.insert("region".into(), text(self.node.region().as_str()));
        headers.insert("node".into(), text(self.node.name()));
        headers.insert("ask".into(), AMQPValue::Boolean(self.ask));
        BasicProperties::default().with_type(short(KIND)).with_headers(headers).with_delivery_mode(1)
    }

    /// The hello in a message's properties; `None` for anything else, which may be a stranger's.
    pub(super) fn read(properties: &BasicProperties) -> Option<Self> {
        if properties.kind().as_ref()?.as_str() != KIND {
            return None;
        }
        let headers = properties.headers().as_ref()?.inner();
        let text = |name: &str| match headers.get(name)? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            _ => None,
        };
        let node = NodeId::new(text("region")?.parse().ok()?, text("node")?).ok()?;
        let ask = matches!(headers.get("ask"), Some(AMQPValue::Boolean(true)));
        Some(Self { node, ask })
    }
}

/// To whom the next hello goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    Everyone { ask: bool },
    Node(NodeId),
}

/// The hellos that wait for the publishing connection: one to everyone, and a bounded number of answers.
#[derive(Debug, Default)]
pub(super) struct Greetings {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    everyone: Option<bool>,
    answers: VecDeque<NodeId>,
}

impl Greetings {
    /// Says to everyone that this node is there, and with `ask` wants to be told of them.
    pub(super) fn announce(&self, ask: bool) {
        let mut waiting = self.waiting.lock();
        waiting.everyone = Some(ask || waiting.everyone == Some(true));
        self.wake.notify_one();
    }

    /// Answers one who asked; `false` when too many wait.
    pub(super) fn answer(&self, node: NodeId) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.answers.contains(&node) {
            return true;
        }
        if waiting.answers.len() >= ANSWERS_MAX {
            return false;
        }
        waiting.answers.push_back(node);
        self.wake.notify_one();
        true
    }

    /// The next one to send.
    ///
    /// # Cancel safety
    /// Safe: one that was not returned still waits.
    pub(super) async fn next(&self) -> Greeting {
        loop {
            if let Some(greeting) = self.take() {
                return greeting;
            }
            self.wake.notified().await;
        }
    }

    fn take(&self) -> Option<Greeting> {
        let mut waiting = self.waiting.lock();
        if let Some(ask) = waiting.everyone.take() {
            return Some(Greeting::Everyone { ask });
        }
        waiting.answers.pop_front().map(Greeting::Node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new("ap-south".parse().unwrap(), name).unwrap()
    }

    #[test]
    fn what_is_said_is_understood() {
        for ask in [false, true] {
            let hello = Hello { node: node("n1"), ask };
            assert_eq!(Hello::read(&hello.properties()), Some(hello));
        }
    }

    #[test]
    fn a_strangers_message_is_no_hello() {
        let hello = Hello { node: node("n1"), ask: false }.properties();
        let with = |name: &str, value: AMQPValue| {
            let mut headers = hello.headers().clone().unwrap();
            headers.insert(name.into(), value);
            hello.clone().with_headers(headers)
        };
        let strangers = [
            BasicProperties::default(),
            BasicProperties::default().with_type(short(KIND)),
            hello.clone().with_type(short("order.created")),
            hello.clone().with_headers(FieldTable::default()),
            with("region", AMQPValue::LongString("Not A Region".into())),
            with("region", AMQPValue::LongString(vec![0xff_u8, 0xfe].into())),
            with("node", AMQPValue::Boolean(true)),
            with("node", AMQPValue::LongString("a/../b".into())),
        ];
        for stranger in strangers {
            assert_eq!(Hello::read(&stranger), None, "{stranger:?}");
        }
    }

    #[tokio::test]
    async fn hellos_to_everyone_become_one_and_answers_are_bounded() {
        let greetings = Greetings::default();
        greetings.announce(true);
        greetings.announce(false);
        assert!(greetings.answer(node("n1")) && greetings.answer(node("n1")));
        assert_eq!(greetings.next().await, Greeting::Everyone { ask: true });
        assert_eq!(greetings.next().await, Greeting::Node(node("n1")));
        assert_eq!(greetings.take(), None);
        let answered = (0..100).filter(|n| greetings.answer(node(&format!("n{n}")))).count();
        assert_eq!(answered, ANSWERS_MAX);
    }
}
