//! How the nodes of a cluster hear each other: by a hub, or by transports that the user makes.

use std::{error::Error as StdError, fmt, future::Future, pin::Pin, sync::Arc};

use replication::{NodeId, Transport, memory::Hub};

use crate::{builder::Builder, error::BuildError};

type Made = Result<Arc<dyn Transport>, Box<dyn StdError + Send + Sync>>;
type Connect = dyn Fn(NodeId) -> Pin<Box<dyn Future<Output = Made> + Send>> + Send + Sync;

/// Where a node's transport comes from.
#[derive(Clone, Default)]
pub(super) struct Transports {
    hub: Hub,
    /// In place of the hub, which joins nobody then.
    connect: Option<Arc<Connect>>,
}

impl Transports {
    pub(super) fn of_hub(hub: Hub) -> Self {
        Self { hub, connect: None }
    }

    pub(super) fn of<F, R, T, E>(connect: F) -> Self
    where
        F: Fn(NodeId) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Arc<T>, E>> + Send + 'static,
        T: Transport + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let connect = move |node| -> Pin<Box<dyn Future<Output = Made> + Send>> {
            let connecting = connect(node);
            Box::pin(async move {
                let transport: Arc<dyn Transport> = connecting.await.map_err(Into::into)?;
                Ok(transport)
            })
        };
        Self { hub: Hub::default(), connect: Some(Arc::new(connect)) }
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(super) fn are_of_hub(&self) -> bool {
        self.connect.is_none()
    }

    /// The node's builder with its transport, as one of the first of its cache. Over a hub nobody else can be there, and the node is
    /// ready at once; over a broker another process may have the cache already, unless the user says otherwise (`bootstrap`).
    pub(super) async fn begin(&self, node: Builder, id: &NodeId) -> Result<Builder, BuildError> {
        let node = if self.are_of_hub() { node.bootstrap(true) } else { node };
        self.joined(node, id).await
    }

    /// The same for a node that joins the others, whose state it lacks.
    pub(super) async fn again(&self, node: Builder, id: &NodeId) -> Result<Builder, BuildError> {
        self.joined(node.bootstrap(false), id).await
    }

    async fn joined(&self, node: Builder, id: &NodeId) -> Result<Builder, BuildError> {
        let Some(connect) = &self.connect else { return Ok(node.transport(self.hub.join(id.clone()))) };
        let transport = connect(id.clone()).await;
        let transport = transport.map_err(|source| BuildError::Transport { node: id.clone(), source })?;
        Ok(node.transport(transport))
    }
}

impl fmt::Debug for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.are_of_hub() { self.hub.fmt(f) } else { f.write_str("the user's own") }
    }
}
