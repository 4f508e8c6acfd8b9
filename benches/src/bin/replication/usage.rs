//! The processor time of the nodes and of the broker.
//!
//! The nodes are this process. The broker is whichever process listens at the port of its URL, if it runs on this machine
//! and this user may look at it; xtask starts one that does. Its time is that of all its threads: the virtual machine does
//! the broker's work itself, its helpers none that counts.

use std::{fs, path::Path, process};

use anyhow::{Context, Result, bail};
use benches::offer::processor_seconds;
use lapin::uri::AMQPUri;

/// Whose processor time is taken.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    /// The broker's processes; empty where they cannot be seen.
    broker: Vec<u32>,
}

/// Processor seconds used so far, where the system tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) nodes_s: Option<f64>,
    pub(crate) broker_s: Option<f64>,
}

impl Meter {
    /// Of the broker of this URL. Where its process cannot be seen, that is said, and its time is not told.
    pub(crate) fn of(url: &str) -> Self {
        let broker = listener_of(url).unwrap_or_else(|error| {
            println!("the broker's processor time is not told: {error:#}");
            Vec::new()
        });
        Self { broker }
    }

    /// Of servers that this process started.
    pub(crate) fn of_processes(processes: impl IntoIterator<Item = u32>) -> Self {
        Self { broker: processes.into_iter().collect() }
    }

    pub(crate) fn read(&self) -> Usage {
        let broker_s = self.broker.iter().map(|process| processor_seconds(*process)).sum::<Option<f64>>();
        Usage {
            nodes_s: processor_seconds(process::id()),
            broker_s: broker_s.filter(|_| !self.broker.is_empty()),
        }
    }
}

impl Usage {
    /// What was used since an earlier reading.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let less = |now: Option<f64>, then: Option<f64>| now.zip(then).map(|(now, then)| now - then);
        Self { nodes_s: less(self.nodes_s, earlier.nodes_s), broker_s: less(self.broker_s, earlier.broker_s) }
    }
}

fn listener_of(url: &str) -> Result<Vec<u32>> {
    let port = url.parse::<AMQPUri>().map_err(anyhow::Error::msg)?.authority.port;
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            listening(&table, port).into_iter().map(|inode| format!("socket:[{inode}]")).collect::<Vec<_>>()
        })
        .collect();
    if sockets.is_empty() {
        bail!("nothing on this machine listens at port {port}");
    }
    let processes: Vec<u32> = fs::read_dir("/proc")
        .context("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process| holds_one_of(*process, &sockets))
        .collect();
    if processes.is_empty() {
        bail!("the process that listens at port {port} belongs to another user");
    }
    Ok(processes)
}

/// The inodes of the sockets that listen at a port, by the system's table of them.
fn listening(table: &str, port: u16) -> Vec<&str> {
    const LISTENS: &str = "0A";
    let port = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let listens = |row: &Vec<&str>| row.len() > 9 && row[1].ends_with(&port) && row[3] == LISTENS;
    rows.filter(listens).map(|row| row[9]).collect()
}

fn holds_one_of(process: u32, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd")) else {
        return false;
    };
    let mut targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    targets.any(|target| sockets.iter().any(|socket| Path::new(socket) == target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_table_of_sockets_only_those_that_listen_at_the_port_are_taken() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     \x20  0: 0100007F:5D60 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1\n\
                     \x20  1: 0100007F:5D60 0100007F:9000 01 00000000:00000000 00:00000000 00000000     0        0 78 1\n\
                     \x20  2: 0100007F:5D61 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 79 1\n";
        assert_eq!(listening(table, 0x5D60), ["77"]);
    }

    #[test]
    fn whoever_listens_is_found_by_the_port_of_a_url() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = listener_of(&format!("amqp://127.0.0.1:{port}/%2f")).unwrap();
        assert_eq!(found, [process::id()]);
    }
}
