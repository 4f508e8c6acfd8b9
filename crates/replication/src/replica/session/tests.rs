use super::*;
use crate::{
    message::Message,
    replica::one::{EPOCH, One, peer, put, report, stamp, stream_of},
};

fn names(regions: &BTreeSet<RegionId>) -> Vec<&str> {
    regions.iter().map(RegionId::as_str).collect()
}

#[test]
fn a_receipt_names_the_regions_whose_watermark_passed_the_write() {
    let mut one = One::new(true);
    let (near, far) = (peer("eu-central"), peer("ap-south"));
    one.hear_beat(&near, 10, Vec::new());
    one.hear_beat(&far, 90, Vec::new());
    let written = one.write("k", "v");
    let token = one.outbox.token(written);
    assert_eq!(names(&one.replica.regions_with(token)), ["us-east"]);
    one.sent();
    let own = one.replica.stream();
    one.hear_beat(&near, 10, vec![report(own, 1, written.hlc)]);
    one.hear_beat(&far, 90, vec![report(own, 0, Hlc(own.epoch))]);
    assert_eq!(names(&one.replica.regions_with(token)), ["eu-central", "us-east"]);
    assert_eq!(names(&one.replica.regions()), ["ap-south", "eu-central", "us-east"]);
}

#[test]
fn a_session_is_reached_when_the_watermark_passes_its_write() {
    let mut one = One::new(true);
    let there = peer("ap-south");
    one.hear_beat(&there, 20, Vec::new());
    let first = stamp(&there, 1_000);
    let second = stamp(&there, 3_000);
    let token = Token { stream: stream_of(&there), hlc: second.hlc };
    let records = |number, stamp| Message::Records {
        first: number,
        records: vec![put("k", "v", stamp)],
        held_back: None,
        answers: None,
    };
    one.hear(&there, records(1, first));
    assert_eq!(one.replica.progress(one.now, token), Progress::Behind { lag_ms: Some(2_000) });
    one.hear(&there, records(2, second));
    assert_eq!(one.replica.progress(one.now, token), Progress::Reached);
}

/// A key was written twice while a frame left in between: the first write's stamp was below the watermark's, and
/// neither write was there.
#[test]
fn a_watermark_does_not_claim_what_its_origin_holds_back() {
    let mut one = One::new(true);
    let there = peer("ap-south");
    one.hear_beat(&there, 20, Vec::new());
    let superseded = Token { stream: stream_of(&there), hlc: stamp(&there, 1).hlc };
    let frame = |number, ms, held_back| Message::Records {
        first: number,
        records: vec![put("k", "v", stamp(&there, ms))],
        held_back,
        answers: None,
    };
    one.hear(&there, frame(1, 2, Some(superseded.hlc)));
    assert!(matches!(one.replica.progress(one.now, superseded), Progress::Behind { .. }));
    one.hear(&there, frame(2, 3, None));
    assert_eq!(one.replica.progress(one.now, superseded), Progress::Reached);
}

#[test]
fn a_session_of_a_life_that_is_over_is_lost_unless_somebody_has_it() {
    let mut one = One::new(true);
    let (writer, other) = (peer("ap-south"), peer("eu-central"));
    one.hear_beat(&writer, 20, Vec::new());
    let stream = stream_of(&writer);
    let token = Token { stream, hlc: stamp(&writer, 500).hlc };
    assert!(matches!(one.replica.progress(one.now, token), Progress::Behind { .. }));
    one.hear_in(&writer, EPOCH + 1, Message::Beat(crate::message::Beat::default()));
    one.hear_beat(&other, 20, vec![report(stream, 3, token.hlc)]);
    assert!(matches!(one.replica.progress(one.now, token), Progress::Behind { .. }), "eu-central has it");
    one.pass(1);
    one.hear_beat(&other, 20, vec![report(stream, 2, stamp(&writer, 400).hlc)]);
    assert_eq!(one.replica.progress(one.now, token), Progress::Lost);
}

#[test]
fn a_text_that_is_no_token_is_refused() {
    let text = "0000000000000007-0000000000000008-0000000000000009";
    assert_eq!(text.parse::<Token>().map(|token| token.to_string()).as_deref(), Ok(text));
    for text in
        ["", "7-8-9", &text[1..], &format!("{text}-"), &text.replace('7', "+"), &text.replace('8', "g")]
    {
        let error = text.parse::<Token>().unwrap_err().to_string();
        assert!(error.contains("no session token"), "{error}");
    }
}
