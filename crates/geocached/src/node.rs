//! Runs one node: of a region over RabbitMQ, or a standalone cache.
//!
//! In this order: the port (what is in use is known before a broker is dialled), the broker, the cache, the clients. What
//! waiting does not mend (refused credentials, a missing permission, a certificate that is not trusted) ends the node at
//! its start, with the reason. Brokers that are merely out of reach do not: the node serves alone and goes on dialling. Nor do
//! nodes that run with another kind of profile, which go as a deployment is changed: a supervisor would start this one over
//! and over until then. A node that is still warming serves: what it does not have yet it asks the nearest ready region
//! for, and the log says when it is ready. It ends at SIGTERM or SIGINT: no more clients, then what waits to leave is sent for up to [`CLOSE_WAIT`], then the rest is
//! counted and told; a second signal ends that wait. A signal while the broker is dialled ends the node at once.

use std::{fs, io, net::SocketAddr, path::Path, time::Duration};

use geo::NameError;
use geocache::{BuildError, Builder, Error, GeoCache};
use replication::{
    NodeId,
    rabbitmq::{self, ConnectError, Credentials, Pem, RabbitMq},
};
use tokio::sync::watch;

use crate::{
    cli::Profile,
    config::{Bound, Config, Region},
    descriptor,
    memcached::{self, BindError, Server},
    shutdown::Shutdown,
};

/// How long the end waits for records to be sent.
pub const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// The variables with the brokers' user and password. No option of the command line takes a password by itself: other users
/// of the machine can read it there.
pub const USER_VARIABLE: &str = "GEOCACHE_AMQP_USER";
/// See [`USER_VARIABLE`]; without that one, the password of the URI's user.
pub const PASSWORD_VARIABLE: &str = "GEOCACHE_AMQP_PASSWORD";

/// Why a node could not run, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The system does not tell of signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// The port cannot be had.
    #[error("{0}; choose another with --listen")]
    Listen(BindError),
    /// The node's name is none.
    #[error("--node: {0}")]
    Name(NameError),
    /// The brokers' user and password are in two places, or only half there.
    #[error("{0}")]
    Credentials(String),
    /// The broker cannot be used.
    #[error(transparent)]
    Broker(#[from] ConnectError),
    /// The cache cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The node had to stop.
    #[error(transparent)]
    Stopped(Error),
}

/// Runs the node until it is told to end.
///
/// # Errors
/// A [`RunError`]: why it could not start, or had to stop.
pub async fn run(mut config: Config) -> Result<(), RunError> {
    let mut shutdown = Shutdown::listen().map_err(RunError::Signals)?;
    let wanted = config.options.connections_max;
    config.options.connections_max = descriptor::make_room(wanted);
    if config.options.connections_max < wanted {
        tracing::warn!(
            wanted,
            allowed = config.options.connections_max,
            "fewer clients may be connected than --max-connections says: the system's limit of open files is too low; \
             raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    let listener = memcached::listen(config.listen).await.map_err(RunError::Listen)?;
    let address = listener.local_addr().unwrap_or(config.listen);
    warn_if_open(address);
    let cache = tokio::select! {
        cache = build(&config) => cache?,
        // No client was served and no record made: there is nothing to send.
        () = shutdown.requested() => {
            tracing::info!("ended before the broker was reached");
            return Ok(());
        }
    };
    if config.region.is_some() {
        tracing::info!(node = %cache.node(), cache = %config.cache, %address, "serving memcached clients");
    } else {
        tracing::info!(%address, "serving memcached clients, standalone");
    }
    let server = Server::new(listener, cache.clone(), config.options);
    serve(server, cache, shutdown).await
}

async fn build(config: &Config) -> Result<GeoCache, RunError> {
    let builder = GeoCache::builder().cache(&config.cache).value_bytes_max(config.options.value_bytes_max);
    let builder = bounded(builder, config.bound);
    let Some(region) = &config.region else { return Ok(builder.build().await?) };
    let builder = match region.compress_above {
        Some(bytes) => builder.compress_above(bytes),
        None => builder,
    };
    let settings = transport(region, config)?;
    let transport = match RabbitMq::connect(settings.clone()).await {
        Err(error @ ConnectError::Unreachable { .. }) => {
            tracing::error!(%error, "serving alone until a broker is reached; it is dialled on and on");
            RabbitMq::dial(settings).map_err(ConnectError::from)?
        }
        Err(error @ ConnectError::ProfileConflict { .. }) => {
            tracing::error!(%error, "serving alone until the others are gone; the broker is asked every half minute");
            RabbitMq::dial(settings).map_err(ConnectError::from)?
        }
        connected => connected?,
    };
    Ok(builder.transport(transport).build().await?)
}

/// The cache's capacity.
pub(crate) fn bounded(builder: Builder, bound: Bound) -> Builder {
    match bound {
        Bound::Memory(bytes) => builder.capacity_bytes(bytes),
        Bound::Entries(entries) => builder.capacity(entries),
    }
}

/// What the transport is told.
pub(crate) fn transport(region: &Region, config: &Config) -> Result<rabbitmq::Config, RunError> {
    let node = NodeId::new(region.name.clone(), &region.node).map_err(RunError::Name)?;
    let uris = region.amqp.iter().map(|uri| uri.expose().to_owned()).collect();
    let profile = match region.profile {
        Profile::Fast => rabbitmq::Profile::Fast,
        Profile::Durable => rabbitmq::Profile::Durable,
        Profile::Stream => rabbitmq::Profile::Stream,
    };
    let mut settings = rabbitmq::Config::new(node, uris).cache(&config.cache).profile(profile);
    if let Some(bytes) = region.stream_bytes_max {
        settings = settings.stream_bytes_max(bytes);
    }
    if let Some(age) = region.stream_age_max {
        settings = settings.stream_age_max(age);
    }
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let file = region.credentials_file.as_deref();
    if let Some(credentials) = credentials(file, is_set(USER_VARIABLE), is_set(PASSWORD_VARIABLE))? {
        settings = settings.credentials(credentials);
    }
    if let Some(ca) = &region.ca {
        settings = settings.tls_ca(Pem::file(ca));
    }
    if let Some((certificate, key)) = &region.identity {
        settings = settings.tls_identity(Pem::file(certificate), Pem::file(key));
    }
    Ok(settings)
}

/// Where the brokers' user and password are, unless the URIs hold them; `user` and `password` say which variables are set.
fn credentials(file: Option<&Path>, user: bool, password: bool) -> Result<Option<Credentials>, RunError> {
    let refused = |reason: String| Err(RunError::Credentials(reason));
    match (file, user, password) {
        (Some(path), false, false) => Ok(Some(Credentials::file(path))),
        (Some(_), ..) => {
            let variable = if password { PASSWORD_VARIABLE } else { USER_VARIABLE };
            refused(format!("--amqp-credentials-file and {variable} are both set; keep one of the two"))
        }
        (None, true, true) => Ok(Some(Credentials::environment(USER_VARIABLE, PASSWORD_VARIABLE))),
        (None, false, true) => Ok(Some(Credentials::password_variable(PASSWORD_VARIABLE))),
        (None, true, false) => {
            refused(format!("{USER_VARIABLE} is set without {PASSWORD_VARIABLE}; set both, or neither"))
        }
        (None, false, false) => Ok(None),
    }
}

/// Serves until a signal or the node's failure, then ends everything in order.
async fn serve(server: Server, cache: GeoCache, mut shutdown: Shutdown) -> Result<(), RunError> {
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(server.run(stopping));
    let failure = tokio::select! {
        () = shutdown.requested() => None,
        error = watched(&cache) => Some(error),
    };
    if failure.is_none() {
        tracing::info!("ending, no more clients are taken");
    }
    stop.send_replace(true);
    // A panic of the server was reported by the runtime; the records still matter.
    let _ = serving.await;
    if let Some(error) = failure {
        return Err(RunError::Stopped(error));
    }
    tokio::select! {
        closed = cache.close(CLOSE_WAIT) => match closed.unsent_records {
            0 => tracing::info!("ended"),
            unsent => tracing::warn!(
                unsent,
                "ended, but these records could not be sent within {CLOSE_WAIT:?}; no other node has them"
            ),
        },
        () = shutdown.requested() => tracing::warn!("ended at the second signal, without waiting for records to be sent"),
    }
    Ok(())
}

/// Logs when the node is ready; resolves if it had to stop.
async fn watched(cache: &GeoCache) -> Error {
    if !cache.is_ready() {
        tracing::info!(
            "warming: what is not here yet is asked of another region, until all of its state has arrived"
        );
        // An error here is a stop, which the last line reports.
        if cache.ready().await.is_ok() {
            tracing::info!(entries = cache.stats().entries, "ready");
        }
    }
    cache.failed().await
}

fn warn_if_open(address: SocketAddr) {
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "listening beyond loopback without authentication: whoever reaches this port can read and change everything"
        );
    }
}

/// The name of this host, if the system tells it.
pub fn host_name() -> Option<String> {
    let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let variables = ["HOSTNAME", "COMPUTERNAME", "HOST"];
    let from_files = files.iter().filter_map(|path| fs::read_to_string(path).ok());
    let mut names = from_files.chain(variables.iter().filter_map(|name| std::env::var(name).ok()));
    names.find(|name| !name.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_two_places_or_half_of_them_are_refused() {
        let file = Some(Path::new("/run/secrets/broker"));
        let reason = |file, user, password| credentials(file, user, password).unwrap_err().to_string();
        assert!(reason(file, false, true).contains(PASSWORD_VARIABLE));
        assert!(reason(file, true, false).contains(USER_VARIABLE));
        assert!(reason(None, true, false).contains(PASSWORD_VARIABLE));
        for (file, user, password) in [(file, false, false), (None, true, true), (None, false, true)] {
            assert!(credentials(file, user, password).unwrap().is_some());
        }
        assert!(credentials(None, false, false).unwrap().is_none());
    }
}
