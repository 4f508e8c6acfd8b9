//! Both windows against one that remembers every call.
#![cfg(not(loom))]

use proptest::{collection::vec, prelude::*};

use super::*;

fn call() -> impl Strategy<Value = Call> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(failed, overloaded, slow)| Call {
        failed,
        overloaded,
        slow,
    })
}

fn counted<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Totals {
    let mut totals = Totals::default();
    calls.into_iter().for_each(|call| totals.add(*call));
    totals
}

proptest! {
    #[test]
    fn a_count_window_is_that_of_the_newest_calls_exactly(
        size in 1u32..200, calls in vec(call(), 0..600), clear_at in 0usize..600,
    ) {
        let now = Instant::now();
        let mut window = Window::new(Span::Calls(size));
        let mut all: Vec<Call> = Vec::new();
        for (at, call) in calls.into_iter().enumerate() {
            if at == clear_at {
                window.clear();
                all.clear();
            }
            window.push(call, now);
            all.push(call);
            let newest = counted(&all[all.len().saturating_sub(size as usize)..]);
            prop_assert_eq!(window.totals(), newest);
            prop_assert_eq!(window.totals_at(now), newest);
            prop_assert_eq!(newest.share(newest.failed), newest.failed as f64 / newest.calls as f64);
        }
    }

    #[test]
    fn a_time_window_is_that_of_the_newest_ten_tenths_exactly(
        width_ms in 1u64..50, calls in vec((call(), prop_oneof![9 => 0u64..20, 1 => 0u64..1_000]), 0..300),
        clear_at in 0usize..300,
    ) {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut window = Window::new(Span::Time(Duration::from_millis(10 * width_ms)));
        let mut all: Vec<(u64, Call)> = Vec::new();
        let mut now_ms = 0;
        for (number, (call, pause_ms)) in calls.into_iter().enumerate() {
            now_ms += pause_ms;
            if number == clear_at {
                window.clear();
                all.clear();
            }
            let alive = |now_ms: u64, all: &[(u64, Call)]| {
                let Some(origin) = all.first().map(|(ms, _)| *ms) else { return Totals::default() };
                let tenth = |ms: u64| (ms - origin) / width_ms;
                counted(all.iter().filter(|(ms, _)| tenth(now_ms) - tenth(*ms) < 10).map(|(_, call)| call))
            };
            prop_assert_eq!(window.totals_at(at(now_ms)), alive(now_ms, &all));
            window.push(call, at(now_ms));
            all.push((now_ms, call));
            prop_assert_eq!(window.totals(), alive(now_ms, &all));
        }
    }
}

#[test]
fn an_empty_window_has_no_failures() {
    for span in [Span::Calls(10), Span::Time(Duration::from_secs(1))] {
        let totals = Window::new(span).totals_at(Instant::now());
        assert_eq!(totals.share(totals.failed), 0.0);
    }
}

#[test]
fn a_call_from_before_the_running_tenth_counts_in_it() {
    let now = Instant::now() + Duration::from_secs(100);
    let mut window = Window::new(Span::Time(Duration::from_secs(10)));
    window.push(Call::default(), now);
    window.push(Call::default(), now + Duration::from_secs(5));
    window.push(Call { failed: true, ..Call::default() }, now - Duration::from_secs(50));
    assert_eq!(window.totals(), Totals { calls: 3, failed: 1, ..Totals::default() });
    assert_eq!(window.totals_at(now + Duration::from_secs(14)).calls, 2, "the first tenth is gone");
    assert_eq!(window.totals_at(now + Duration::from_secs(15)).calls, 0);
    assert_eq!(window.totals_at(now - Duration::from_secs(99)).calls, 3);
}

#[test]
fn a_century_of_silence_empties_a_window_of_nanoseconds() {
    let now = Instant::now();
    let mut window = Window::new(Span::Time(Duration::from_nanos(10)));
    window.push(Call::default(), now);
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    window.push(Call::default(), now + century);
    window.push(Call::default(), now + century);
    assert_eq!(window.totals().calls, 2);
}
