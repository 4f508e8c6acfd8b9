//! Room for the connections among the files that the system lets a process open.
//!
//! Each connection is an open file. At the system's limit a connection is neither taken nor refused, it waits; and the
//! node cannot reach its broker again. So the limit is raised as far as the connections need and the system allows, and
//! where that is not far enough, fewer connections are allowed: one too many is then told so.

/// What a node opens beside its clients' connections: listeners, the broker's, the runtime's, and some to spare.
pub const RESERVE: u64 = 64;

/// Makes room for `connections` clients; returns for how many there is.
pub fn make_room(connections: usize) -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let room = room(connections, current, maximum);
        let Some(raised) = room.raised else { return room.connections };
        match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
            Ok(()) => {
                tracing::debug!(files = raised, "raised the limit of open files");
                room.connections
            }
            Err(error) => {
                tracing::warn!(%error, "cannot raise the limit of open files");
                self::room(connections, current, current).connections
            }
        }
    }
    #[cfg(not(unix))]
    connections
}

/// What the limits allow; `None` is no limit.
#[cfg_attr(not(unix), expect(dead_code, reason = "other systems have no such limit"))]
fn room(connections: usize, soft: Option<u64>, hard: Option<u64>) -> Room {
    let needed = (connections as u64).saturating_add(RESERVE);
    let allowed = hard.map_or(needed, |hard| hard.min(needed));
    let raised = soft.filter(|&soft| soft < allowed).map(|_| allowed);
    // A soft limit is never over the hard one.
    let files = raised.or(soft).unwrap_or(needed);
    let most = usize::try_from(files.saturating_sub(RESERVE)).unwrap_or(usize::MAX).max(1);
    Room { raised, connections: connections.min(most) }
}

#[cfg_attr(not(unix), expect(dead_code, reason = "other systems have no such limit"))]
#[derive(Debug, PartialEq, Eq)]
struct Room {
    /// The soft limit to set, if it is too low.
    raised: Option<u64>,
    connections: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_needed_or_the_connections_are_fewer() {
        for (connections, soft, hard, raised, allowed) in [
            (1024, Some(1024), Some(1_048_576), Some(1088), 1024),
            (1024, Some(1024), None, Some(1088), 1024),
            (1024, Some(2048), Some(4096), None, 1024),
            (1024, None, None, None, 1024),
            (1024, Some(512), Some(512), None, 448),
            (1024, Some(256), Some(512), Some(512), 448),
            (5, Some(10), Some(20), Some(20), 1),
            (usize::MAX, Some(1024), Some(4096), Some(4096), 4032),
        ] {
            assert_eq!(room(connections, soft, hard), Room { raised, connections: allowed });
        }
    }
}
