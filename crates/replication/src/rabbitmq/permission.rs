//! Which permission a refusal speaks of.
//!
//! RabbitMQ says of a refused operation which exchange or queue it was about, and before 3.11 not which permission was
//! missing. That follows from the operation: [the broker's own table][table] says what each one needs.
//!
//! [table]: https://www.rabbitmq.com/docs/access-control#authorisation

use std::fmt;

/// What a broker's user may be allowed to do with the exchanges and queues whose names match a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permission {
    /// Declare and delete them.
    Configure,
    /// Publish to an exchange; bind a queue.
    Write,
    /// Consume from a queue; bind to an exchange.
    Read,
}

/// The broker's own word, as in `rabbitmqctl set_permissions`.
impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

/// What was asked of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Declare or delete an exchange or a queue.
    Declare,
    /// Bind a queue to an exchange, or end that.
    Bind,
    /// Consume from a queue.
    Consume,
    /// Publish to an exchange.
    Publish,
}

impl Step {
    /// The permission that it needs, of those about what `refusal` names.
    pub(super) fn needs(self, refusal: &str) -> Permission {
        match self {
            Self::Declare => Permission::Configure,
            Self::Publish => Permission::Write,
            Self::Consume => Permission::Read,
            // Write to the queue, and read from the exchange.
            Self::Bind if refusal.contains("queue '") => Permission::Write,
            Self::Bind => Permission::Read,
        }
    }
}

/// The pattern of the names of everything that a node of this cache needs, at the broker.
///
/// For `rabbitmqctl set_permissions`, as its configure, write and read pattern alike.
///
/// ```
/// let pattern = replication::rabbitmq::permission_pattern("shop");
/// assert_eq!(pattern, r"^geocache(-[a-z]+)?\.shop(\..*)?$");
/// ```
pub fn permission_pattern(cache: &str) -> String {
    format!(r"^geocache(-[a-z]+)?\.{cache}(\..*)?$")
}

/// What a refusal names: `queue 'geocache.shop…'`. `None` if it is worded otherwise.
pub(super) fn object(refusal: &str) -> Option<String> {
    let (_, named) = refusal.split_once("access to ")?;
    let (named, _) = named.split_once(" in vhost ")?;
    Some(named.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_and_what_it_was_refused_on_tell_the_permission() {
        let refused =
            |what: &str| format!("ACCESS_REFUSED - access to {what} in vhost '/' refused for user 'ann'");
        let (exchange, queue) =
            (refused("exchange 'geocache.shop'"), refused("queue 'geocache.shop.eu.a.0'"));
        for (step, refusal, permission) in [
            (Step::Declare, &exchange, Permission::Configure),
            (Step::Declare, &queue, Permission::Configure),
            (Step::Bind, &exchange, Permission::Read),
            (Step::Bind, &queue, Permission::Write),
            (Step::Consume, &queue, Permission::Read),
            (Step::Publish, &exchange, Permission::Write),
        ] {
            assert_eq!(step.needs(refusal), permission, "{step:?} {refusal}");
        }
        assert_eq!(object(&queue).as_deref(), Some("queue 'geocache.shop.eu.a.0'"));
        assert_eq!(object("ACCESS_REFUSED - no"), None);
    }
}
