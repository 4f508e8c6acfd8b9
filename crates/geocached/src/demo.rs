//! `geocached demo`: three regions in one process, each on a port of its own.
//!
//! The regions are whole nodes that talk over the in-memory hub; nothing else is needed to see a write made in one
//! region read in the others. On a terminal the status lines are redrawn in place; otherwise they are printed when
//! something changed, so that a log stays short.

use std::{
    io::{self, IsTerminal as _, Write},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use geocache::{BuildError, GeoCluster};
use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};

use crate::{
    cli::DemoOptions,
    config::Bound,
    descriptor,
    memcached::{self, BindError, Options, Server},
    node,
    shutdown::Shutdown,
    status,
};

/// The regions of the demo.
pub const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];
const MEMORY_BYTES: u64 = 64 << 20;
const REDRAW: Duration = Duration::from_secs(1);
const PRINT: Duration = Duration::from_secs(5);
const WRAP_OFF: &str = "\x1b[?7l";
const WRAP_ON: &str = "\x1b[?7h";

/// Why the demo could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The system does not tell of signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// A port cannot be had.
    #[error("{0}; choose three others with --base-port")]
    Listen(BindError),
    /// The regions cannot be made.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Runs the demo until it is told to end.
///
/// # Errors
/// A [`DemoError`]: why it could not start.
pub async fn run(options: DemoOptions) -> Result<(), DemoError> {
    let mut shutdown = Shutdown::listen().map_err(DemoError::Signals)?;
    let mut listeners = Vec::new();
    for index in 0..3 {
        // The command line refuses a base without room for three.
        let port = if options.base_port == 0 { 0 } else { options.base_port + index };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        listeners.push(memcached::listen(address).await.map_err(DemoError::Listen)?);
    }
    let cluster = GeoCluster::builder()
        .regions(REGIONS)
        .configure(|builder| node::bounded(builder, Bound::Memory(MEMORY_BYTES)))
        .build()
        .await?;
    let connections_max =
        (descriptor::make_room(REGIONS.len() * Options::default().connections_max) / REGIONS.len()).max(1);
    let (stop, stopping) = watch::channel(false);
    let mut servers = JoinSet::new();
    let mut ports = Vec::new();
    for (listener, cache) in listeners.into_iter().zip(cluster.nodes()) {
        ports.push(listener.local_addr().map_or(0, |address| address.port()));
        let limits = Options { connections_max, memory_bytes: MEMORY_BYTES, ..Options::default() };
        servers.spawn(Server::new(listener, cache.clone(), limits).run(stopping.clone()));
    }
    // Whoever closes our output wants no more of it; the regions serve on.
    let mut screen = Screen::new(io::stdout());
    screen.print(&introduction(&ports));
    tokio::select! {
        () = show(&mut screen, &cluster, &ports) => {}
        () = shutdown.requested() => {}
    }
    stop.send_replace(true);
    while servers.join_next().await.is_some() {}
    for cache in cluster.nodes() {
        cache.close(Duration::from_secs(1)).await;
    }
    screen.print("ended\n");
    Ok(())
}

/// What to try.
fn introduction(ports: &[u16]) -> String {
    let mut text = "GeoCache: three regions in one process, each a memcached server\n\n".to_owned();
    for (region, port) in REGIONS.iter().zip(ports) {
        text.push_str(&format!("  {region:<12} 127.0.0.1:{port}\n"));
    }
    let (first, second) = (ports[0], ports[1]);
    text.push_str(&format!(
        "\nIn another terminal, write in {} …\n\n  \
         printf 'set greeting 0 60 5\\r\\nhello\\r\\nget greeting\\r\\nquit\\r\\n' | nc 127.0.0.1 {first}\n\n\
         … and read in {}:\n\n  \
         printf 'get greeting\\r\\nquit\\r\\n' | nc 127.0.0.1 {second}\n\nCtrl-C ends it.\n\n{}\n",
        REGIONS[0],
        REGIONS[1],
        status::HEADER,
    ));
    text
}

async fn show<W: Write>(screen: &mut Screen<W>, cluster: &GeoCluster, ports: &[u16]) {
    let mut ticks = tokio::time::interval(if screen.is_terminal { REDRAW } else { PRINT });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let stats = cluster.stats();
        let lines = stats.iter().zip(ports);
        let lines =
            lines.map(|((region, stats), &port)| status::line(region.as_str(), port, stats)).collect();
        screen.show(lines);
    }
}

/// The standard output, as long as somebody takes it.
struct Screen<W> {
    out: W,
    is_terminal: bool,
    shown: Vec<String>,
}

impl Screen<io::Stdout> {
    fn new(out: io::Stdout) -> Self {
        let is_terminal = out.is_terminal();
        Self { out, is_terminal, shown: Vec::new() }
    }
}

impl<W: Write> Screen<W> {
    fn print(&mut self, text: &str) {
        // A closed pipe is no reason to end the regions.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    /// Shows the lines: over the former ones on a terminal, else if they changed.
    fn show(&mut self, lines: Vec<String>) {
        if lines == self.shown {
            return;
        }
        let mut text = String::new();
        if self.is_terminal {
            // Without wrapping, each line is one line of the terminal however narrow it is.
            text.push_str(WRAP_OFF);
            if !self.shown.is_empty() {
                // Up to the first of the former lines.
                text.push_str(&format!("\x1b[{}A", self.shown.len()));
            }
            for line in &lines {
                // To the start, the line, and erase what is left of a longer one.
                text.push_str(&format!("\r{line}\x1b[K\n"));
            }
            text.push_str(WRAP_ON);
        } else {
            for line in &lines {
                text.push_str(line);
                text.push('\n');
            }
        }
        self.print(&text);
        self.shown = lines;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(is_terminal: bool) -> Screen<Vec<u8>> {
        Screen { out: Vec::new(), is_terminal, shown: Vec::new() }
    }

    fn text(screen: Screen<Vec<u8>>) -> String {
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn the_introduction_says_what_to_type() {
        let text = introduction(&[11211, 11212, 11213]);
        assert!(text.contains(
            r"printf 'set greeting 0 60 5\r\nhello\r\nget greeting\r\nquit\r\n' | nc 127.0.0.1 11211"
        ));
        assert!(text.contains(r"printf 'get greeting\r\nquit\r\n' | nc 127.0.0.1 11212"));
        assert!(text.contains("ap-south     127.0.0.1:11213"));
    }

    #[test]
    fn a_terminal_is_redrawn_in_place() {
        let mut screen = screen(true);
        screen.show(vec!["a".into(), "b".into()]);
        screen.show(vec!["a".into(), "c".into()]);
        assert_eq!(
            text(screen),
            "\x1b[?7l\ra\x1b[K\n\rb\x1b[K\n\x1b[?7h\x1b[?7l\x1b[2A\ra\x1b[K\n\rc\x1b[K\n\x1b[?7h"
        );
    }

    #[test]
    fn elsewhere_lines_are_printed_when_they_changed() {
        let mut screen = screen(false);
        screen.show(vec!["a".into()]);
        screen.show(vec!["a".into()]);
        screen.show(vec!["b".into()]);
        assert_eq!(text(screen), "a\nb\n");
    }
}
