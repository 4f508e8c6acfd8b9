//! Several brokers joined into one RabbitMQ cluster on this machine.
//!
//! One supervisor has them all, and one port mapper serves them all, so that whatever ends the test ends everything, and
//! the death of one member is that of one member alone. They pause in a minority, as a cluster across buildings should.
//!
//! A cluster takes about 22 s to form on two cores, since its members start at the same time and join one after another.

use std::{collections::BTreeMap, ops::Deref};

use anyhow::{Context, Result, bail};

use super::{Broker, Options, Order, Request, Supervisor, ask, blocking, refuse_if_url_only};

/// A private cluster; dropping it ends all members and removes their data. It is also the slice of its members.
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// use tests::broker::{Cluster, Options};
///
/// let cluster = Cluster::start(3, Options::default()).await?;
/// // … connect transports to all of cluster.urls() …
/// cluster[1].kill_9().await?;
/// cluster[1].restart().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Broker>,
}

impl Cluster {
    /// Starts `size` brokers with these options and returns when each answers AMQP and they are one cluster.
    ///
    /// # Errors
    /// As [`Broker::start`], within 60 s more a further member; when they did not join; when there is only a container
    /// engine.
    pub async fn start(size: usize, options: Options) -> Result<Self> {
        refuse_if_url_only()?;
        if size < 2 {
            bail!("a cluster has at least two members; for one broker use Broker::start");
        }
        let options = serde_json::to_string(&options)?;
        let cluster = blocking(move || {
            let members = size.to_string();
            let mut supervisor =
                Supervisor::spawn(&["--private", "--members", &members, "--options", &options])?;
            let ready = supervisor.reply()?;
            let supervisor = std::sync::Arc::new(std::sync::Mutex::new(supervisor));
            let member = |(member, place): (usize, super::protocol::Place)| Broker {
                url: place.url,
                addr: place.addr,
                folder: place.folder,
                member,
                supervisor: supervisor.clone(),
            };
            Ok(Self { members: ready.members.into_iter().enumerate().map(member).collect() })
        })
        .await?;
        let running = cluster.running(0).await?;
        if running.len() != size {
            bail!("{size} brokers run, yet the first sees only {running:?} of them in its cluster");
        }
        Ok(cluster)
    }

    /// The AMQP URLs of all members.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    /// Kills these members with SIGKILL, one right after the other.
    ///
    /// # Errors
    /// As [`Broker::kill_9`].
    pub async fn kill_9(&self, members: &[usize]) -> Result<()> {
        self.order(members, Order::Kill).await
    }

    /// Starts these members again, all at once: those that stopped last may have to wait for each other.
    ///
    /// # Errors
    /// As [`Broker::restart`].
    pub async fn restart(&self, members: &[usize]) -> Result<()> {
        self.order(members, Order::Restart).await
    }

    /// Which members run as one cluster, as the member `asked` sees it. Costs a `rabbitmqctl`, 1.5 s.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn running(&self, asked: usize) -> Result<Vec<usize>> {
        let status = self.member(asked)?.ctl(&["cluster_status", "--formatter", "json"]).await?;
        let status: serde_json::Value =
            serde_json::from_str(&status).with_context(|| format!("not a status: {status}"))?;
        let nodes = status["running_nodes"].as_array().context("the status names no running nodes")?;
        Ok(nodes.iter().filter_map(|node| number(node.as_str()?)).collect())
    }

    /// Which member leads each queue whose name begins with `prefix`: the leader of a quorum queue, the host of a classic
    /// one. Queues that have neither at present are left out. Costs a `rabbitmqctl`, 1.5 s.
    ///
    /// # Errors
    /// When the member `asked` cannot be asked.
    pub async fn leaders(&self, prefix: &str, asked: usize) -> Result<BTreeMap<String, usize>> {
        // The command `list_queues` knows leaders of quorum queues only, and asks each queue, down or not.
        let ask = "[io:format(\"~s ~w~n\", [element(4, amqqueue:get_name(Q)), amqqueue:qnode(Q)]) \
                   || Q <- rabbit_amqqueue:list()], ok.";
        let listed = self.member(asked)?.ctl(&["eval", ask]).await?;
        let queues = listed.lines().filter_map(|line| line.trim().rsplit_once(' '));
        let queues = queues.filter(|(name, _)| name.starts_with(prefix));
        Ok(queues.filter_map(|(name, node)| Some((name.to_owned(), number(node)?))).collect())
    }

    fn member(&self, member: usize) -> Result<&Broker> {
        let count = self.members.len();
        self.members.get(member).with_context(|| format!("there is no member {member} of {count}"))
    }

    async fn order(&self, members: &[usize], order: Order) -> Result<()> {
        let request = Request { members: members.to_vec(), order };
        ask(&self.member(0)?.supervisor, request).await.map(drop)
    }
}

impl Deref for Cluster {
    type Target = [Broker];

    fn deref(&self) -> &[Broker] {
        &self.members
    }
}

/// The number of the member whose Erlang node this is, quoted or not.
fn number(node: &str) -> Option<usize> {
    let number: usize =
        node.trim_matches('\'').strip_prefix('c')?.strip_suffix("@localhost")?.parse().ok()?;
    number.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_number_is_read_from_its_node() {
        assert_eq!(number("c1@localhost"), Some(0));
        assert_eq!(number("'c3@localhost'"), Some(2));
        assert_eq!(number("geocache@localhost"), None);
        assert_eq!(number("none"), None);
    }
}
