//! The circuit breakers of others, each with the rule that comes closest to a rate over a window.

use std::time::Duration;

use failsafe::CircuitBreaker as _;

use benches::rounds::Subject;

/// `recloser`: a ring of bits, without a lock and, while closed, without a clock.
pub(crate) fn recloser(fails: fn(u64) -> bool) -> Subject<'static> {
    let breaker = recloser::Recloser::custom().closed_len(100).error_rate(1.0).build();
    let calls = move |calls| {
        let mut refused = false;
        for call in 0..calls {
            let answer = breaker.call(|| if fails(call) { Err(()) } else { Ok(()) });
            refused |= matches!(answer, Err(recloser::Error::Rejected));
        }
        assert!(!refused, "recloser opened, so something else was measured");
    };
    Subject { name: "recloser", calls: Box::new(calls) }
}

/// `failsafe`: a lock, a clock, and a mean that fades over 30 s.
pub(crate) fn failsafe(fails: fn(u64) -> bool) -> Subject<'static> {
    let waits = failsafe::backoff::constant(Duration::from_secs(60));
    let policy =
        failsafe::failure_policy::success_rate_over_time_window(0.5, 20, Duration::from_secs(30), waits);
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    let calls = move |calls| {
        let mut refused = false;
        for call in 0..calls {
            let answer = breaker.call(|| if fails(call) { Err(()) } else { Ok(()) });
            refused |= matches!(answer, Err(failsafe::Error::Rejected));
        }
        assert!(!refused, "failsafe opened, so something else was measured");
    };
    Subject { name: "failsafe", calls: Box::new(calls) }
}
