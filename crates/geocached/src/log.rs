//! What is logged, and what never is.
//!
//! The filter is the user's, within two limits. The AMQP libraries log each frame at `trace`, the one with the broker's
//! password included: they are held to [`AMQP_MAX`] whatever the filter says. And they log as errors what the
//! transport expects, handles and reports itself: they are off unless the filter names them.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, fmt::MakeWriter, layer::SubscriberExt as _,
    registry::LookupSpan, util::SubscriberInitExt as _,
};

/// What a node logs where nothing else is said.
pub const NODE_DEFAULT: &str = "info";
/// What the demo logs where nothing else is said.
pub const DEMO_DEFAULT: &str = "warn";
/// The most that is logged of the AMQP libraries: connections that close, no contents of frames.
pub const AMQP_MAX: Level = Level::INFO;
/// The crates that see the broker's password.
const AMQP: [&str; 5] = ["lapin", "amq_protocol", "tcp_stream", "async_rs", "rustls_connector"];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Logs to the standard error output from now on, so that the standard output is the demo's.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: &str) -> Result<(), String> {
    let stderr = std::io::stderr;
    subscriber(filter, stderr, stderr().is_terminal())?.init();
    Ok(())
}

/// Whether `filter` can be used.
///
/// # Errors
/// What is wrong with it.
pub fn check(filter: &str) -> Result<(), String> {
    env_filter(filter).map(|_| ())
}

fn subscriber<W>(
    filter: &str,
    writer: W,
    ansi: bool,
) -> Result<impl Subscriber + for<'a> LookupSpan<'a>, String>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(writer);
    let filter = env_filter(filter)?.and_then(filter_fn(capped));
    Ok(tracing_subscriber::registry().with(filter).with(lines))
}

fn env_filter(filter: &str) -> Result<EnvFilter, String> {
    let how = "use a level (off, error, warn, info, debug, trace), or target=level pairs separated by commas";
    let directives = filter.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let directives: Vec<&str> = directives.collect();
    if directives.is_empty() {
        return Err(format!("is empty; {how}"));
    }
    // A word alone would be taken for a target, so that a misspelt level silences all.
    let is_bare = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "_:-.".contains(c));
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    if let Some(word) = directives.iter().find(|word| is_bare(word) && !is_level(word)) {
        return Err(format!("{word:?} is no level; {how}"));
    }
    EnvFilter::builder()
        .parse(format!("lapin=off,{}", directives.join(",")))
        .map_err(|_| format!("the filter is not understood; {how}"))
}

/// Whether what is logged may be shown at all.
fn capped(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    !AMQP.iter().any(|library| target.starts_with(library)) || *metadata.level() <= AMQP_MAX
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged under `filter`.
    fn logged(filter: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(filter, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "lapin::channels", "StartOk hunter2");
            tracing::debug!(target: "amq_protocol_tcp", "uri hunter2");
            tracing::error!(target: "lapin::io_loop", "lapin's error");
            tracing::trace!(target: "geocached::node", "our trace");
            tracing::error!(target: "geocached::node", "our error");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_filter_shows_what_may_hold_the_brokers_password() {
        for filter in
            ["trace", "TRACE", "lapin=trace", "lapin::channels=trace,amq_protocol_tcp=trace", "[]=trace"]
        {
            let text = logged(filter);
            assert!(!text.contains("hunter2"), "{filter}: {text}");
        }
        assert!(logged("trace").contains("our trace"));
    }

    #[test]
    fn the_amqp_librarys_errors_are_shown_only_if_asked_for() {
        for filter in [NODE_DEFAULT, DEMO_DEFAULT, "debug"] {
            let text = logged(filter);
            assert!(text.contains("our error") && !text.contains("lapin's error"), "{filter}: {text}");
        }
        assert!(logged("info,lapin=warn").contains("lapin's error"));
    }

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for filter in ["infoo", "info,degub", "", ",", "geocached", "geocached=degub"] {
            assert!(check(filter).is_err(), "{filter}");
        }
        for filter in ["info", "WARN", "off", "info,geocached=debug", "warn, geocached::node=trace"] {
            assert_eq!(check(filter), Ok(()), "{filter}");
        }
        assert!(check("infoo").unwrap_err().contains("\"infoo\" is no level"));
    }
}
