//! Each invariant is shown what it must bear and what it must not.

use std::collections::BTreeMap;

use bytes::Bytes;
use replication::{
    Hlc, Stamp,
    sim::{Held, START_WALL_MS},
};

use super::*;
use crate::sim::ledger::Clear;

const KEY: usize = 4;

/// A node at a moment of true time; its clock is right.
fn at(now_ms: u64, node: usize) -> At {
    At { now_ms, node, origin: Origin(node as u64 + 1), wall_ms: START_WALL_MS + now_ms }
}

fn write(node: usize, ms: u64) -> Write {
    Write::sample(node, KEY, START_WALL_MS + ms, "value")
}

fn stamp(node: usize, ms: u64) -> Stamp {
    write(node, ms).stamp
}

fn live(stamp: Stamp) -> Shown {
    let held = Held { stamp, bytes: Bytes::from_static(b"value"), left_ms: None };
    Shown { key: KEY, bar: Bar::above(stamp), held: Some(held) }
}

fn gone(bar: Bar) -> Shown {
    Shown { key: KEY, bar, held: None }
}

fn ledger(writes: impl IntoIterator<Item = Write>) -> Ledger {
    let mut ledger = Ledger::default();
    for write in writes {
        ledger.add(write);
    }
    ledger
}

fn nobody() -> Others<'static> {
    Others { ready: &[], bars: &|_, _| Bar::NONE }
}

/// What an invariant says to what a node shows, one after the other.
fn judged(invariant: &mut dyn Invariant, ledger: &Ledger, shown: &[Shown]) -> Vec<bool> {
    shown.iter().map(|shown| invariant.shows(at(9_000, 0), ledger, shown).is_ok()).collect()
}

#[test]
fn a_bar_may_step_down_only_by_an_eviction() {
    let mut invariant = bar_never_falls::BarNeverFalls::default();
    let (first, second) = (stamp(1, 1), stamp(1, 2));
    let none = Ledger::default();
    let borne = [live(first), gone(Bar::at(first)), live(second), gone(Bar::above(second))];
    assert_eq!(judged(&mut invariant, &none, &borne), [true; 4]);
    assert_eq!(judged(&mut invariant, &none, &[gone(Bar::at(second))]), [false], "a grave that softens");
    assert_eq!(judged(&mut invariant, &none, &[gone(Bar::NONE)]), [false]);
    invariant.started(at(1, 0), &nobody());
    assert_eq!(judged(&mut invariant, &none, &[gone(Bar::NONE)]), [true], "a new life begins anew");
}

#[test]
fn a_node_may_not_serve_an_older_stamp_after_a_newer_one() {
    let mut invariant = stamps_rise::StampsRise::default();
    let shown = [live(stamp(1, 1)), live(stamp(1, 2)), gone(Bar::NONE), live(stamp(1, 1))];
    assert_eq!(judged(&mut invariant, &Ledger::default(), &shown), [true, true, true, false]);
}

#[test]
fn a_write_has_to_be_seen_where_it_was_made() {
    let mut invariant = own_write_visible::OwnWriteVisible;
    let put = write(0, 1);
    let remove = Write { value: None, ..write(0, 2) };
    let over = Write { deadline_ms: Some(9_000), ..write(0, 1) };
    let mut wrote = |write: &Write, shown: &Shown| invariant.wrote(at(9_000, 0), write, shown).is_ok();
    assert!(wrote(&put, &live(put.stamp)));
    assert!(!wrote(&put, &gone(Bar::above(put.stamp))));
    assert!(!wrote(&put, &live(stamp(1, 5))));
    assert!(wrote(&remove, &gone(Bar::above(remove.stamp))));
    assert!(!wrote(&remove, &live(put.stamp)));
    assert!(wrote(&over, &gone(Bar::NONE)));
}

#[test]
fn what_was_never_written_is_a_phantom() {
    let mut invariant = no_phantom::NoPhantom;
    let ledger = ledger([write(1, 1), Write { key: KEY + 1, ..write(1, 2) }]);
    let other = Held { bytes: Bytes::from_static(b"other"), ..live(stamp(1, 1)).held.unwrap() };
    let shown = [
        live(stamp(1, 1)),
        live(stamp(1, 2)),
        live(stamp(2, 1)),
        Shown { held: Some(other), ..live(stamp(1, 1)) },
    ];
    assert_eq!(judged(&mut invariant, &ledger, &shown), [true, false, false, false]);
}

#[test]
fn a_life_may_be_shorter_than_granted_and_not_longer() {
    let mut invariant = life_not_extended::LifeNotExtended;
    let ledger = ledger([Write { deadline_ms: Some(9_500), ..write(1, 1) }]);
    let left = |left_ms| {
        let held = Held { left_ms, ..live(stamp(1, 1)).held.unwrap() };
        Shown { held: Some(held), ..live(stamp(1, 1)) }
    };
    let shown = [left(Some(500)), left(Some(1)), left(Some(501)), left(None)];
    assert_eq!(judged(&mut invariant, &ledger, &shown), [true, true, false, false]);
}

#[test]
fn a_stamp_beyond_the_drift_may_not_be_taken() {
    let mut invariant = within_drift::WithinDrift;
    let shown = [live(stamp(1, 309_000)), live(stamp(1, 309_001)), gone(Bar::at(stamp(1, 309_001)))];
    assert_eq!(judged(&mut invariant, &Ledger::default(), &shown), [true, false, false]);
}

#[test]
fn a_warming_node_may_not_show_what_all_others_had_replaced() {
    let mut invariant = start_is_fresh::StartIsFresh::default();
    let others = Others { ready: &[1, 2], bars: &|node, _| Bar::at(stamp(1, node as u64)) };
    invariant.started(at(5, 0), &others);
    let none = Ledger::default();
    let shown = [live(stamp(1, 1)), live(stamp(1, 0)), live(stamp(0, 0))];
    assert_eq!(judged(&mut invariant, &none, &shown), [true, false, true]);
    invariant.readied(at(6, 3), &|_| Bar::at(stamp(1, 0)));
    assert_eq!(judged(&mut invariant, &none, &shown), [true; 3], "a node that became ready had less");
    invariant.started(at(5, 0), &others);
    invariant.readied(at(6, 0), &|_| Bar::at(stamp(1, 1)));
    assert_eq!(judged(&mut invariant, &none, &shown), [true; 3], "now it is held to its own bars");
}

#[test]
fn a_watermark_may_not_be_above_what_the_bars_refuse() {
    let ledger = {
        let mut ledger = ledger([write(1, 1), write(1, 5)]);
        let (stamp, stream) = (stamp(1, 9), write(1, 1).stream);
        ledger.add_clear(Clear { namespace: Bytes::new(), stamp, stream });
        ledger
    };
    let stream = write(1, 1).stream;
    let judged = |up_to_ms: u64, bar: Bar| {
        let mut invariant = watermark_true::WatermarkTrue::default();
        let watermark_hlc = Hlc::from_ms(START_WALL_MS + up_to_ms);
        let streams = [StreamReport { stream, watermark_hlc, ..StreamReport::default() }];
        invariant.claims(at(1, 0), &ledger, &Claims { streams: &streams }, &|_| bar).is_ok()
    };
    assert!(judged(1, Bar::at(stamp(1, 1))) && judged(4, Bar::at(stamp(1, 1))));
    assert!(!judged(1, Bar::NONE) && !judged(5, Bar::at(stamp(1, 1))));
    assert!(judged(9, Bar::above(stamp(1, 9))));
    assert!(!judged(9, Bar::at(stamp(1, 9))), "the clear is a bar that refuses its own stamp");
}

#[test]
fn a_receipt_may_name_only_who_has_or_had_the_write() {
    let mut invariant = receipt_true::ReceiptTrue::default();
    let write = write(0, 5);
    let judged = |invariant: &mut receipt_true::ReceiptTrue, nodes: &[usize]| {
        let nodes = nodes.iter().copied().collect();
        let receipt = Receipt { write: &write, nodes: &nodes };
        let bars = |node: usize, _| if node == 1 { Bar::at(write.stamp) } else { Bar::NONE };
        invariant.receipt(at(9, 0), &receipt, &bars).is_ok()
    };
    assert!(judged(&mut invariant, &[1]) && judged(&mut invariant, &[1, 2]));
    assert!(!judged(&mut invariant, &[2]));
    invariant.ended(at(9, 2), &|_| Bar::at(write.stamp));
    assert!(judged(&mut invariant, &[2]));
}

#[test]
fn a_session_may_be_told_reached_only_where_its_write_is() {
    let mut invariant = session_monotone::SessionMonotone;
    let write = write(1, 5);
    let mut judged = |progress, bar: Bar| {
        invariant.session(at(9, 0), &Session { write: &write, progress }, &|_| bar).is_ok()
    };
    assert!(judged(Progress::Reached, Bar::at(write.stamp)));
    assert!(!judged(Progress::Reached, Bar::at(stamp(1, 4))));
    assert!(judged(Progress::Lost, Bar::NONE));
}

#[test]
fn no_session_may_be_left_waiting() {
    assert!(settled_with(|_| Progress::Reached).is_ok());
    assert!(settled_with(|_| Progress::Lost).is_ok());
    assert!(settled_with(|_| Progress::Behind { lag_ms: None }).is_err());
}

/// What the invariant of sessions says where nodes answer so.
fn settled_with(answer: fn(usize) -> Progress) -> Verdict {
    let ledger = ledger([write(1, 5)]);
    let nodes = [settled(live(stamp(1, 5)))];
    let answer = |node: usize, _: Token| answer(node);
    let end = End { progress: &answer, ..end(&ledger, &nodes) };
    session_monotone::SessionMonotone.settled(&end)
}

#[test]
fn each_bound_has_to_be_kept() {
    let setup = NodeSetup::new("eu-west", "n").store(8, 6).outbox_bytes_max(700);
    let within = || Sizes {
        entries: 8,
        graves: 6,
        outbox_records: 2,
        outbox_bytes: 700,
        messages: 2,
        message_bytes: 900,
        streams: 3,
        peers: 2,
        setup: &setup,
    };
    let judged = |sizes: &Sizes<'_>| bounds_kept::BoundsKept.grew(at(1, 0), sizes).is_ok();
    assert!(judged(&within()));
    assert!(judged(&Sizes { outbox_records: 1, outbox_bytes: 9_000, ..within() }), "one record always fits");
    let over = [
        Sizes { entries: 9, ..within() },
        Sizes { graves: 7, ..within() },
        Sizes { outbox_bytes: 701, ..within() },
        Sizes { messages: 129, ..within() },
        Sizes { message_bytes: (16 << 20) + 1, ..within() },
        Sizes { streams: 10_000, ..within() },
        Sizes { peers: 257, ..within() },
    ];
    for sizes in over {
        assert!(!judged(&sizes), "{sizes:?}");
    }
}

fn settled(shown: Shown) -> Settled {
    let nothing = |key| Shown { key, bar: Bar::NONE, held: None };
    let bar = shown.bar;
    let told = std::array::from_fn(|key| if key == KEY { bar } else { Bar::NONE });
    let mut all: Vec<Shown> = (0..KEYS_MAX).map(nothing).collect();
    all[KEY] = shown;
    Settled {
        is_up: true,
        is_ready: true,
        failure: None,
        told: told.map(|bar| Bar { strict: false, ..bar }),
        shown: all,
        counters: Counters::default(),
    }
}

fn end<'a>(ledger: &'a Ledger, nodes: &'a [Settled]) -> End<'a> {
    let epochs: &'static BTreeMap<Origin, u64> =
        Box::leak(Box::new((0..4).map(|node| (Origin(node + 1), 1)).collect()));
    End {
        now_ms: 85_000,
        ledger,
        nodes,
        epochs,
        is_plenty: true,
        progress: &|_, _| Progress::Reached,
        sent: &|_| 0,
    }
}

#[test]
fn holders_have_to_agree_and_with_room_all_have_to_hold() {
    let ledger = ledger([write(1, 1), write(1, 2)]);
    let judged = |nodes: &[Settled], is_plenty| {
        converged::Converged.settled(&End { is_plenty, ..end(&ledger, nodes) }).is_ok()
    };
    let (old, new, none) = (live(stamp(1, 1)), live(stamp(1, 2)), gone(Bar::NONE));
    assert!(judged(&[settled(new.clone()), settled(new.clone())], true));
    assert!(!judged(&[settled(new.clone()), settled(old)], false));
    assert!(judged(&[settled(new.clone()), settled(none.clone())], false));
    assert!(!judged(&[settled(new.clone()), settled(none)], true));
    for broken in [
        Settled { is_up: false, ..settled(new.clone()) },
        Settled { is_ready: false, ..settled(new.clone()) },
        Settled { failure: Some("a reason".to_owned()), ..settled(new) },
    ] {
        assert!(!judged(&[broken], false));
    }
}

#[test]
fn what_a_living_node_was_told_is_gone_may_not_be_held() {
    let none = Ledger::default();
    let judged = |nodes: &[Settled]| no_resurrection::NoResurrection.settled(&end(&none, nodes)).is_ok();
    let told = |bar: Bar, shown: Shown| {
        let mut node = settled(shown);
        node.told[KEY] = bar;
        node
    };
    let holder = settled(live(stamp(1, 5)));
    assert!(judged(&[told(Bar::at(stamp(1, 5)), gone(Bar::NONE)), holder.clone()]));
    assert!(!judged(&[told(Bar::above(stamp(1, 5)), gone(Bar::NONE)), holder.clone()]));
    assert!(!judged(&[told(Bar::at(stamp(1, 6)), gone(Bar::NONE)), holder.clone()]));
    let dead = Settled { is_up: false, ..told(Bar::at(stamp(1, 6)), gone(Bar::NONE)) };
    assert!(judged(&[dead, holder]), "what only dead nodes knew is gone");
}

#[test]
fn the_newest_write_that_a_living_node_was_told_may_not_be_lost() {
    let mortal = Write { deadline_ms: Some(1), key: KEY, ..write(2, 7) };
    let ledger = ledger([write(1, 5), mortal]);
    let judged = |nodes: &[Settled], is_plenty| {
        no_lost_write::NoLostWrite.settled(&End { is_plenty, ..end(&ledger, nodes) }).is_ok()
    };
    let (holder, lacking) = (settled(live(stamp(1, 5))), settled(gone(Bar::NONE)));
    assert!(judged(&[holder.clone(), holder.clone()], true));
    assert!(!judged(&[holder.clone(), lacking.clone()], true));
    assert!(judged(&[holder, lacking.clone()], false));
    let mut told_only = lacking.clone();
    told_only.told[KEY] = Bar::at(stamp(1, 5));
    assert!(!judged(&[told_only.clone(), lacking.clone()], true), "told, and held by nobody");
    told_only.told[KEY] = Bar::above(stamp(1, 5));
    assert!(judged(&[told_only.clone(), lacking.clone()], true), "removed");
    told_only.told[KEY] = Bar::at(stamp(2, 7));
    assert!(judged(&[told_only, lacking], true), "expired");
}

#[test]
fn any_repair_at_the_end_is_noise() {
    let none = Ledger::default();
    let nodes = [];
    for kind in FrameKind::ALL {
        let sent = |of: FrameKind| u64::from(of == kind);
        let judged = silence::Silence.settled(&End { sent: &sent, ..end(&none, &nodes) });
        assert_eq!(judged.is_ok(), matches!(kind, FrameKind::Beat | FrameKind::Probe), "{kind:?}");
    }
}

#[test]
fn a_key_below_what_a_full_page_says_of_it_is_noticed() {
    let floor = Bar::above(stamp(1, 5));
    let page = SyncPage { full: true, floor, ..SyncPage::default() };
    let judged =
        |page: &SyncPage, bar: Bar| page_covers::PageCovers.took_page(at(9, 0), page, &|_| bar).is_ok();
    assert!(judged(&page, floor));
    assert!(!judged(&page, Bar::at(stamp(1, 5))));
    let keep = (0..KEYS_MAX).map(key::position).collect();
    assert!(judged(&SyncPage { keep, ..page.clone() }, Bar::NONE), "what is kept is not told");
    assert!(judged(&SyncPage { full: false, ..page }, Bar::NONE), "nor is anything by a partial page");
}
