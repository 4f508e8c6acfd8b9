//! Keeps the broker's password out of the client library's logs.
//!
//! At `trace` lapin logs each frame that it writes, the one with the password included, as a list of bytes. It does so on
//! the thread that it starts for each connection and that runs nothing else; so that thread gets a subscriber of its own,
//! which passes on what is logged at `info` and above, and nothing finer.
//!
//! One frame may still be logged elsewhere: at `trace`, when a connection dies in the moment between the broker's greeting
//! and the answer to it. While a thread has a subscriber of its own, each log call of the process looks for one first. A program that
//! shows `trace` of the target `lapin` should hold it to `info`, as geocached does.

use std::cell::RefCell;

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    dispatcher::get_default,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::{DefaultGuard, Interest, set_default},
};

/// The finest level that is passed on.
const FINEST: Level = Level::INFO;

/// From now on this thread logs nothing finer than [`FINEST`], to the subscriber that it has now.
pub(super) fn quiet_this_thread() {
    let quiet = Quiet(get_default(Dispatch::clone));
    // Undone by dropping: it lasts as long as the thread does.
    KEPT.with_borrow_mut(|kept| *kept = Some(set_default(quiet)));
}

thread_local! {
    static KEPT: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

struct Quiet(Dispatch);

impl Subscriber for Quiet {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Never, for what is too fine: the other threads' answer alone decides whether it costs them anything.
        if *metadata.level() <= FINEST { Interest::sometimes() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(FINEST))
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= FINEST && self.0.enabled(metadata)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.0.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.0.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        self.0.event(event);
    }

    fn enter(&self, span: &Id) {
        self.0.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.0.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.0.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.0.try_close(id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Notes the level of each event.
    #[derive(Clone, Default)]
    struct Noted(Arc<Mutex<Vec<Level>>>);

    impl Subscriber for Noted {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn log_all() {
        tracing::trace!("a frame");
        tracing::debug!("a frame");
        tracing::info!("fine");
        tracing::error!("lost");
    }

    #[test]
    fn only_what_is_not_fine_is_passed_on() {
        let noted = Noted::default();
        let inner = noted.clone();
        // A thread of its own, for it stays quiet.
        let quieted = std::thread::spawn(move || {
            let _outer = set_default(inner);
            quiet_this_thread();
            log_all();
        });
        quieted.join().unwrap();
        assert_eq!(*noted.0.lock().unwrap(), [Level::INFO, Level::ERROR]);
        tracing::subscriber::with_default(noted.clone(), log_all);
        assert_eq!(noted.0.lock().unwrap().len(), 6, "other threads log as before");
    }
}
