//! A broker per region, linked by RabbitMQ's federation plugin.
//!
//! Each broker is a cluster of its own, with its own supervisor. A link goes one way: the broker that receives opens it
//! towards the one whose messages it wants, its *upstream*. So two regions have two links, three have six. The
//! settings are those of `docs/rabbitmq.md`.

use std::{fs, sync::Arc};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Broker, Footprint, Options, Order, Request, ask};
use crate::proxy::Proxy;

/// What the links pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// Nothing: they go straight to the upstream.
    #[default]
    Direct,
    /// A [`Proxy`] each, by which the link can be delayed, held or cut.
    Proxied,
}

/// Private brokers that federate the exchanges of all caches with each other; dropping it ends them.
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// use tests::broker::{Federation, Links, Options};
///
/// let federation = Federation::start(2, Links::Proxied, Options::default()).await?;
/// // … connect the nodes of each region to its broker's url() alone …
/// federation.link(0, 1).unwrap().cut(); // nothing of the first region reaches the second
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Federation {
    brokers: Vec<Broker>,
    /// By upstream, then by downstream.
    links: Vec<Vec<Option<Proxy>>>,
}

impl Federation {
    /// Starts `regions` brokers with these options and links each to each other one.
    ///
    /// # Errors
    /// As [`Broker::start`]; when a broker refuses the settings of its links; when there is only a container
    /// engine, whose containers do not reach each other on this machine's loopback.
    pub async fn start(regions: usize, links: Links, options: Options) -> Result<Self> {
        let options = options.plugin("rabbitmq_federation");
        let mut starting = JoinSet::new();
        for region in 0..regions {
            // Federation tells brokers apart by this name alone. Two with the same one would share the frames of a third.
            let options = options.clone().config(&format!("cluster_name = region-{region}"));
            starting.spawn(async move { (region, Broker::start(options).await) });
        }
        let mut brokers = Vec::new();
        while let Some(started) = starting.join_next().await {
            let (region, broker) = started?;
            brokers.push((region, broker.with_context(|| format!("the broker of region {region}"))?));
        }
        brokers.sort_by_key(|(region, _)| *region);
        let brokers: Vec<Broker> = brokers.into_iter().map(|(_, broker)| broker).collect();
        if let Some(engine) =
            brokers.iter().find_map(|broker| Footprint::of(broker.folder()).engine().map(str::to_owned))
        {
            bail!(
                "links between brokers need an installed rabbitmq-server, there is only {engine}: containers do not \
                 reach each other on this machine's loopback, and nothing else is opened"
            );
        }
        let mut federation = Self { brokers, links: Vec::new() };
        for upstream in &federation.brokers {
            let mut proxies = Vec::new();
            for _ in 0..regions {
                proxies.push(match links {
                    Links::Direct => None,
                    Links::Proxied => Some(Proxy::start(upstream.addr()).await?),
                });
            }
            federation.links.push(proxies);
        }
        let mut opening = JoinSet::new();
        for (downstream, broker) in federation.brokers.iter().enumerate() {
            let definitions = broker.folder().join("links.json");
            fs::write(&definitions, federation.definitions(downstream).to_string())?;
            let definitions = definitions.to_str().context("the broker's folder is not UTF-8")?.to_owned();
            let (supervisor, arguments) =
                (Arc::clone(&broker.supervisor), vec!["import_definitions".to_owned(), definitions]);
            opening.spawn(async move {
                let request = Request { members: vec![0], order: Order::Ctl { arguments } };
                ask(&supervisor, request).await
            });
        }
        while let Some(opened) = opening.join_next().await {
            opened??;
        }
        Ok(federation)
    }

    /// The broker of a region, by its number from 0.
    ///
    /// # Panics
    /// When there is no such region.
    pub fn broker(&self, region: usize) -> &Broker {
        &self.brokers[region]
    }

    /// What the link passes through that carries messages from one region to another; `None` where links are direct.
    ///
    /// # Panics
    /// When there is no such region.
    pub fn link(&self, from: usize, to: usize) -> Option<&Proxy> {
        self.links[from][to].as_ref()
    }

    /// What one broker imports: its upstreams, which exchanges follow them, and the bound of what waits for a link.
    fn definitions(&self, downstream: usize) -> Value {
        let others = self.brokers.iter().enumerate().filter(|(upstream, _)| *upstream != downstream);
        let upstreams = others.map(|(upstream, other)| {
            let link = self.link(upstream, downstream);
            json!({
                "vhost": "/",
                "component": "federation-upstream",
                "name": format!("region-{upstream}"),
                "value": {
                    "uri": link.map_or(other.url().to_owned(), |link| link.url(other.url())),
                    "ack-mode": "on-confirm",
                    "prefetch-count": 1000,
                    "expires": 3_600_000,
                    "reconnect-delay": 1,
                },
            })
        });
        json!({
            "parameters": upstreams.collect::<Vec<_>>(),
            "policies": [
                {
                    "vhost": "/",
                    "name": "geocache",
                    "apply-to": "exchanges",
                    "pattern": r"^geocache\.",
                    "definition": {"federation-upstream-set": "all"},
                    "priority": 0,
                },
                {
                    "vhost": "/",
                    "name": "geocache-links",
                    "apply-to": "queues",
                    "pattern": r"^federation: geocache\.",
                    "definition": {"max-length-bytes": 67_108_864, "overflow": "drop-head"},
                    "priority": 0,
                },
            ],
        })
    }
}
