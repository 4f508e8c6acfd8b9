//! What a broker has: who is connected, what is declared and what waits in it.
//!
//! Two counts of one broker, taken when all is well, tell whether what went wrong between them left anything behind.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use super::Broker;

/// What a broker has at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Queues and streams, by name.
    pub queues: BTreeMap<String, Queue>,
    /// Exchanges, the broker's own among them.
    pub exchanges: BTreeSet<String>,
    /// Bindings: from which exchange to which queue by which key.
    pub bindings: BTreeSet<[String; 3]>,
    /// Connections of clients.
    pub connections: u64,
    /// Their channels.
    pub channels: u64,
    /// What these channels read: a queue or stream each.
    pub consumers: u64,
    /// Erlang processes, of which each connection, channel and queue has some.
    pub processes: u64,
    /// What Erlang has allocated and not freed, in bytes, messages and what awaits its collection included.
    pub memory_bytes: u64,
}

/// What a queue has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// Who reads it. The broker counts those of quorum queues some seconds late, and those of streams some minutes.
    pub consumers: u64,
    /// What waits in it, delivered and not acknowledged included; of a stream, what it keeps.
    pub messages: u64,
}

/// One call for all: each call to the broker's tool takes more than a second. A queue that is just being deleted has no
/// figures and is left out.
const ASK: &str = "
    [io:format(\"queue\\t~s\\t~w\\t~w~n\", [N, C, M])
        || Q <- rabbit_amqqueue:list(),
           {resource, _, _, N} <- [amqqueue:get_name(Q)],
           [{consumers, C}, {messages, M}] <- [catch rabbit_amqqueue:info(Q, [consumers, messages])]],
    [io:format(\"exchange\\t~s~n\", [element(4, element(2, X))]) || X <- rabbit_exchange:list(<<\"/\">>)],
    [io:format(\"binding\\t~s\\t~s\\t~s~n\", [element(4, element(2, B)), element(4, element(4, B)), element(3, B)])
        || B <- rabbit_binding:list(<<\"/\">>)],
    io:format(\"connections\\t~w~n\", [length(rabbit_networking:connections())]),
    io:format(\"channels\\t~w~n\", [length(rabbit_channel:list())]),
    io:format(\"consumers\\t~w~n\",
        [lists:sum([C || [{consumer_count, C}] <- rabbit_channel:info_all([consumer_count])])]),
    io:format(\"processes\\t~w~n\", [erlang:system_info(process_count)]),
    io:format(\"memory\\t~w~n\", [erlang:memory(total)]),
    ok.";

/// What nobody reads goes, and what is free is freed. Of streams nothing goes.
const REST: &str = "
    [catch rabbit_amqqueue:purge(Q)
        || Q <- rabbit_amqqueue:list(),
           [{consumers, 0}] <- [catch rabbit_amqqueue:info(Q, [consumers])]],
    [erlang:garbage_collect(P) || P <- erlang:processes()],
    ok.";

impl Broker {
    /// Counts what it has in its default virtual host. Takes 1.5 s, as all that asks it.
    ///
    /// # Errors
    /// What `rabbitmqctl` printed when it failed, or that what it printed cannot be read.
    pub async fn census(&self) -> Result<Census> {
        Census::read(&self.ctl(&["eval", ASK]).await?)
    }

    /// Empties the queues that nobody reads, as those of killed nodes which wait there to expire, and has every process
    /// collect its garbage; then counts. What memory is in use after that is in use for something that is still there.
    ///
    /// # Errors
    /// As [`census`](Self::census).
    pub async fn census_at_rest(&self) -> Result<Census> {
        self.ctl(&["eval", REST]).await?;
        self.census().await
    }
}

impl Census {
    fn read(printed: &str) -> Result<Self> {
        let mut census = Self::default();
        let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text:?} is no number"));
        for line in printed.lines().filter(|line| !line.is_empty() && *line != "ok") {
            match line.split('\t').collect::<Vec<_>>()[..] {
                ["queue", name, consumers, messages] => {
                    let queue = Queue { consumers: number(consumers)?, messages: number(messages)? };
                    census.queues.insert(name.to_owned(), queue);
                }
                ["exchange", name] => {
                    census.exchanges.insert(name.to_owned());
                }
                ["binding", from, to, key] => {
                    census.bindings.insert([from, to, key].map(str::to_owned));
                }
                ["connections", count] => census.connections = number(count)?,
                ["channels", count] => census.channels = number(count)?,
                ["consumers", count] => census.consumers = number(count)?,
                ["processes", count] => census.processes = number(count)?,
                ["memory", bytes] => census.memory_bytes = number(bytes)?,
                _ => bail!("the broker counted what is unknown here: {line:?}"),
            }
        }
        if census.exchanges.is_empty() || census.memory_bytes == 0 {
            bail!("the broker counted nothing: {printed:?}");
        }
        Ok(census)
    }

    /// What this one has beyond `before`, in words; memory and processes, which vary by themselves, are left out.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let mut beyond: Vec<String> = Vec::new();
        let queues = self.queues.iter().filter(|(name, _)| !before.queues.contains_key(*name));
        beyond.extend(queues.map(|(name, queue)| format!("the queue {name} ({} messages)", queue.messages)));
        let exchanges = self.exchanges.difference(&before.exchanges);
        beyond.extend(exchanges.map(|name| format!("the exchange {name}")));
        let bindings = self.bindings.difference(&before.bindings);
        beyond.extend(bindings.map(|[from, to, key]| format!("the binding of {to} to {from} by {key}")));
        for (what, now, then) in [
            ("connections", self.connections, before.connections),
            ("channels", self.channels, before.channels),
            ("consumers", self.consumers, before.consumers),
        ] {
            if now > then {
                beyond.push(format!("{now} {what}, {then} before"));
            }
        }
        beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "queue\tgeocache.a\t1\t7\nexchange\t\nexchange\tgeocache\nbinding\t\tgeocache.a\tgeocache.a\n\
        binding\tgeocache\tgeocache.a\tall.#\nconnections\t2\nchannels\t3\nconsumers\t1\nprocesses\t400\nmemory\t90000000\nok\n";

    #[test]
    fn what_the_broker_prints_is_counted_and_what_is_unknown_is_refused() {
        let census = Census::read(PRINTED).unwrap();
        assert_eq!(census.queues["geocache.a"], Queue { consumers: 1, messages: 7 });
        assert_eq!((census.exchanges.len(), census.bindings.len()), (2, 2));
        assert_eq!((census.connections, census.channels, census.consumers), (2, 3, 1));
        assert_eq!((census.processes, census.memory_bytes), (400, 90_000_000));
        assert!(Census::read("ok\n").is_err(), "nothing is no count");
        assert!(Census::read(&PRINTED.replace("connections", "nonsense")).is_err());
    }

    #[test]
    fn whatever_is_left_behind_is_told_and_what_is_gone_is_not() {
        let before = Census::read(PRINTED).unwrap();
        for (from, to) in [
            ("queue\tgeocache.a", "queue\tgeocache.b\t0\t0\nqueue\tgeocache.a"),
            ("consumers\t1", "consumers\t2"),
            ("exchange\tgeocache\n", "exchange\tgeocache\nexchange\tleft\n"),
            ("all.#", "all.*"),
            ("connections\t2", "connections\t3"),
            ("channels\t3", "channels\t4"),
        ] {
            let after = Census::read(&PRINTED.replace(from, to)).unwrap();
            assert_eq!(after.beyond(&before).len(), 1, "{to:?}: {:?}", after.beyond(&before));
        }
        assert_eq!(
            Census { queues: BTreeMap::new(), ..before.clone() }.beyond(&before),
            Vec::<String>::new()
        );
    }
}
