//! Makes the faults of an episode on a running fleet, and mends them.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    schedule::{Episode, Fault, Region},
    watch::Watch,
};
use crate::{
    broker::Broker,
    fleet::{Fleet, Member},
    proxy::{self, Direction, Proxy},
};

/// Until every node has everything, before a fault that needs that.
const CAUGHT_UP_BOUND: Duration = Duration::from_secs(120);
/// Between two looks at what an episode still has to do.
const LOOK: Duration = Duration::from_millis(50);
/// The broker's name among the watched processes.
pub(super) const BROKER: &str = "broker";

/// What faults are made on.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) broker: Broker,
    pub(super) fleet: Fleet,
    pub(super) watch: Watch,
    /// When this life of the broker began, since the start.
    pub(super) broker_since: Duration,
}

impl Stage {
    /// Plays an episode, from its calm until all is mended; when its faults began, since the start.
    pub(super) async fn play(&mut self, episode: &Episode) -> Result<Duration> {
        self.fleet.pass(episode.calm).await?;
        if episode.faults.iter().any(needs_everything) {
            self.fleet.caught_up(CAUGHT_UP_BOUND).await?;
        }
        let begun = self.watch.elapsed();
        for fault in &episode.faults {
            self.make(fault).await.with_context(|| format!("to make: {fault}"))?;
        }
        self.last(episode).await?;
        for fault in episode.faults.iter().rev() {
            self.mend(fault).await.with_context(|| format!("to mend: {fault}"))?;
        }
        Ok(begun)
    }

    /// Watches the broker's process, which is a new one after each start.
    pub(super) fn watch_broker(&mut self) -> Result<()> {
        let file = self.broker.folder().join("pid");
        let pid = std::fs::read_to_string(&file).with_context(|| {
            format!("no {}: only an installed broker can be watched, not one in a container", file.display())
        })?;
        let pid = pid.trim().parse().with_context(|| format!("no process id in {}", file.display()))?;
        self.watch.began(BROKER, pid);
        self.broker_since = self.watch.elapsed();
        Ok(())
    }

    /// Watches a region's node, which is a new process after its death. Its connections are reset once: what a process
    /// makes at its first lost connection and keeps for good (the broker's driver makes a runtime of its own, four
    /// descriptors and a thread) is then there at its first quiet moment, and what comes beyond that is a leak.
    pub(super) async fn watch_node(&self, region: Region) -> Result<()> {
        let node = self.fleet.node(self.index(region)?)?;
        self.watch.began(region, node.pid());
        let before = node.report().await?.reconnects;
        reset(self.proxy(region)?);
        let again = async |_: &Fleet| Ok(node.report().await?.reconnects > before);
        self.fleet.until("the node has connected again", CAUGHT_UP_BOUND, again).await.map(drop)
    }

    /// How long this life of the broker has lasted.
    pub(super) fn broker_lived(&self) -> Duration {
        self.watch.elapsed().saturating_sub(self.broker_since)
    }

    async fn make(&mut self, fault: &Fault) -> Result<()> {
        match *fault {
            Fault::BrokerKilled => {
                self.watch.ended(BROKER);
                self.broker.kill_9().await
            }
            Fault::BrokerStopped => {
                self.watch.ended(BROKER);
                self.broker.stop().await
            }
            Fault::BrokerRestarted => self.restart_broker().await,
            Fault::BrokerFrozen => self.broker.freeze().await,
            Fault::MemoryAlarm => self.watermark("1MB").await,
            Fault::ConnectionsClosed => self.broker.ctl(&["close_all_connections", "soak"]).await.map(drop),
            Fault::ExchangeDeleted => self.delete_exchange().await,
            Fault::QueueDeleted(region) => {
                let queue = self.fleet.node(self.index(region)?)?.report().await?.queue;
                self.broker.ctl(&["delete_queue", &queue]).await.map(drop)
            }
            Fault::NodeFrozen(region) => self.fleet.node(self.index(region)?)?.freeze(),
            Fault::NodeKilled(region) => {
                self.watch.ended(region);
                self.fleet.kill_9(self.index(region)?).await
            }
            _ => self.strike(fault),
        }
    }

    /// Makes a fault of a link.
    fn strike(&self, fault: &Fault) -> Result<()> {
        let proxy = match fault.region() {
            Some(region) => self.proxy(region)?,
            None => bail!("{fault} is no fault of a link"),
        };
        match *fault {
            Fault::LinkHeld(_) => proxy.hold(),
            Fault::LinkCut(_) => proxy.cut(),
            Fault::LinkSlow(_, delay) => proxy.delay(delay),
            Fault::LinkOneWay(_, lost, true) => proxy.fault(proxy::Fault::SwallowOneWay(lost)),
            Fault::LinkOneWay(_, lost, false) => proxy.fault(proxy::Fault::HoldOneWay(lost)),
            Fault::LinkHalfOpen(_, Some(left)) => proxy.strand(left),
            Fault::LinkHalfOpen(_, None) => proxy.fault(proxy::Fault::HalfOpen),
            Fault::LinkNarrow(_, bytes_per_s) => {
                for direction in Direction::BOTH {
                    proxy.bandwidth(direction, NonZeroU64::new(bytes_per_s));
                }
            }
            Fault::HandshakesDie(_, how) => {
                proxy.kill_handshakes(how);
                proxy.cut();
                proxy.fault(proxy::Fault::None);
            }
            // Its cuts come while it lasts.
            Fault::LinkFlaps(..) => {}
            _ => bail!("{fault} is no fault of a link"),
        }
        Ok(())
    }

    /// Lets an episode's time pass, with what comes again and again in it.
    async fn last(&self, episode: &Episode) -> Result<()> {
        let begun = Instant::now();
        let flaps = episode.faults.iter().find_map(|fault| match *fault {
            Fault::LinkFlaps(region, between) => Some((region, between)),
            _ => None,
        });
        let mut cuts = 0;
        while begun.elapsed() < episode.lasts {
            if let Some((region, between)) = flaps
                && begun.elapsed() >= between * cuts
            {
                reset(self.proxy(region)?);
                cuts += 1;
            }
            self.fleet.pass(LOOK).await?;
        }
        Ok(())
    }

    async fn mend(&mut self, fault: &Fault) -> Result<()> {
        match *fault {
            Fault::BrokerKilled | Fault::BrokerStopped => self.restart_broker().await,
            Fault::BrokerFrozen => self.broker.thaw().await,
            Fault::MemoryAlarm => self.watermark("2GB").await,
            Fault::NodeFrozen(region) => self.fleet.node(self.index(region)?)?.thaw(),
            Fault::NodeKilled(region) => {
                self.fleet.revive(self.index(region)?, Duration::ZERO).await?;
                self.watch_node(region).await
            }
            // These happen at one moment; the nodes mend them.
            Fault::BrokerRestarted
            | Fault::ConnectionsClosed
            | Fault::ExchangeDeleted
            | Fault::QueueDeleted(_) => Ok(()),
            _ => {
                if let Some(region) = fault.region() {
                    self.proxy(region)?.heal();
                }
                Ok(())
            }
        }
    }

    async fn restart_broker(&mut self) -> Result<()> {
        self.watch.ended(BROKER);
        self.broker.restart().await?;
        self.watch_broker()
    }

    async fn watermark(&self, absolute: &str) -> Result<()> {
        self.broker.ctl(&["set_vm_memory_high_watermark", "absolute", absolute]).await.map(drop)
    }

    async fn delete_exchange(&self) -> Result<()> {
        let name = format!("rabbit_misc:r(<<\"/\">>, exchange, <<\"geocache.{}\">>)", self.fleet.cache());
        let said = self
            .broker
            .ctl(&["eval", &format!("rabbit_exchange:delete({name}, false, <<\"soak\">>).")])
            .await?;
        if !said.contains("ok") {
            bail!("the exchange was not deleted: {said}");
        }
        Ok(())
    }

    fn index(&self, region: Region) -> Result<usize> {
        let mut members = self.fleet.members().iter();
        members
            .position(|member| member.region == region)
            .with_context(|| format!("there is no region {region}"))
    }

    fn proxy(&self, region: Region) -> Result<&Proxy> {
        let member: &Member = &self.fleet.members()[self.index(region)?];
        Ok(&member.proxy)
    }
}

/// Resets every connection once.
fn reset(proxy: &Proxy) {
    proxy.cut();
    proxy.heal();
}

/// What a killed node had told nobody is rightly gone, and what is deleted has to be there.
fn needs_everything(fault: &Fault) -> bool {
    matches!(fault, Fault::NodeKilled(_) | Fault::QueueDeleted(_) | Fault::ExchangeDeleted)
}
