use super::*;
use crate::replica::one::{EPOCH, One, peer, report, stamp as stamp_of, stream_of};

fn stream(epoch: u64) -> Stream {
    Stream { origin: Origin(7), epoch }
}

fn stamp(hlc: u64) -> Stamp {
    Stamp { hlc: Hlc(hlc), origin: Origin(7) }
}

#[test]
fn a_stamp_may_be_of_each_life_that_reaches_over_it() {
    let lives = vec![(stream(100), Hlc(210)), (stream(200), Hlc(400))];
    let since = Since::new(&[(stream(100), Hlc(150)), (stream(200), Hlc(220))], lives);
    let lacks = |hlc| since.may_lack(stamp(hlc));
    assert!(lacks(50), "before every known life");
    assert!(!lacks(150));
    assert!(lacks(151));
    assert!(lacks(205), "the second life has it, but it may be of the first");
    assert!(!lacks(215), "beyond what the first life left");
    assert!(lacks(221));
    assert!(lacks(401), "beyond what has a number here");
    assert!(since.may_lack(Stamp { hlc: Hlc(150), origin: Origin(8) }), "an unknown origin");
}

/// A node claimed a whole life of another without a record that the page had left out: its stamp, lifted by what
/// others had written, lay above the epoch of its origin's next life, which the node had.
#[test]
fn a_life_that_the_requester_never_heard_of_is_lacked() {
    let lives = vec![(stream(100), Hlc(350)), (stream(200), Hlc(400))];
    let since = Since::new(&[(stream(200), Hlc(400))], lives);
    assert!(since.may_lack(stamp(300)));
    assert!(!since.may_lack(stamp(360)));
}

#[test]
fn a_life_that_the_responder_never_heard_of_may_reach_over_everything() {
    let since =
        Since::new(&[(stream(100), Hlc(150)), (stream(200), Hlc(400))], vec![(stream(200), Hlc(400))]);
    assert!(since.may_lack(stamp(300)));
    assert!(!since.may_lack(stamp(120)));
}

/// A ready node that holds a hundred entries, and one that asks it.
fn asked() -> (One, crate::NodeId) {
    let mut one = One::new(true);
    let there = peer("ap-south");
    one.hear_beat(&there, 20, Vec::new());
    for n in 0..100 {
        one.write(&format!("k{n}"), "v");
    }
    one.sent();
    (one, there)
}

fn pages(one: &mut One, there: &crate::NodeId, request: &SyncReq) -> Vec<SyncPage> {
    one.hear(there, Message::SyncReq(request.clone()));
    let pages = one.sent().into_iter().map(|(_, message)| match message {
        Message::SyncPage(page) => page,
        other => panic!("{other:?}"),
    });
    pages.collect()
}

#[test]
fn a_request_is_answered_by_as_many_pages_as_it_asks_for() {
    let (mut one, there) = asked();
    let request = SyncReq { id: 1, budget_bytes: 1_000, ..SyncReq::default() };
    assert_eq!(pages(&mut one, &there, &request).len(), 1, "as before there was a number");
    let four = pages(&mut one, &there, &SyncReq { pages: 4, ..request.clone() });
    assert_eq!(four.iter().map(|page| page.more).collect::<Vec<_>>(), [true, true, true, false]);
    for (page, next) in four.iter().zip(&four[1..]) {
        assert_eq!(page.hi, Some(next.lo));
    }
    let all = pages(&mut one, &there, &SyncReq { budget_bytes: 100, pages: u8::MAX, ..request });
    assert_eq!(all.len(), PAGES_MAX);
}

#[test]
fn pages_ahead_leave_half_the_room_to_others() {
    let (mut one, there) = asked();
    one.configure(|config| config.control_max = 8);
    let request = SyncReq { id: 1, budget_bytes: 1_000, pages: 8, ..SyncReq::default() };
    let some = pages(&mut one, &there, &request);
    assert_eq!(some.iter().map(|page| page.more).collect::<Vec<_>>(), [true, true, true, false]);
}

#[test]
fn a_page_that_leaves_out_what_is_known_goes_on_until_it_is_full() {
    let (mut one, there) = asked();
    let own = one.replica.stream();
    let known = one.replica.numbered;
    let late = one.write("late", "v");
    one.sent();
    let request = SyncReq {
        id: 1,
        needed: vec![own],
        since: vec![(own, known), (Stream { origin: there.origin(), epoch: EPOCH }, Hlc(u64::MAX))],
        budget_bytes: 1_000,
        ..SyncReq::default()
    };
    let [page] = &pages(&mut one, &there, &request)[..] else { panic!("one page") };
    assert_eq!(
        (page.lo, page.hi, page.full),
        (0, None, false),
        "a page of a thousand bytes holds few of 100 entries"
    );
    assert_eq!(page.records.iter().map(|record| record.stamp).collect::<Vec<_>>(), [late]);
}

/// A late page of an earlier question was followed by the claim of a page made after it: what was written in between was
/// claimed, and not there.
#[test]
fn a_transfer_claims_what_every_page_of_it_claims() {
    let mut one = One::new(false);
    let there = peer("ap-south");
    one.pass(1_000);
    one.hear_beat(&there, 20, Vec::new());
    one.pass(10);
    let asked = one.sent().into_iter().find_map(|(_, message)| match message {
        Message::SyncReq(request) => Some(request.id),
        _ => None,
    });
    let id = asked.expect("a warming node asks a ready one");
    let has = |watermark| vec![report(stream_of(&there), watermark, stamp_of(&there, watermark).hlc)];
    let page = SyncPage { id, full: true, ..SyncPage::default() };
    let middle = Some(1 << 63);
    one.hear(&there, Message::SyncPage(SyncPage { hi: middle, more: true, streams: has(5), ..page.clone() }));
    assert!(!one.replica.is_ready());
    one.hear(&there, Message::SyncPage(SyncPage { lo: 1 << 63, streams: has(3), ..page }));
    assert!(one.replica.is_ready());
    let status = one.replica.status(one.now);
    let claimed =
        status.streams.iter().find(|report| report.stream == stream_of(&there)).expect("it is known");
    assert_eq!((claimed.watermark, claimed.watermark_hlc), (3, stamp_of(&there, 3).hlc));
}
