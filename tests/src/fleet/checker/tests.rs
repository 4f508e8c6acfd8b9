use super::*;
use crate::fleet::{contents::Held, plan::Last};

const REGIONS: [&str; 3] = ["ap-south", "eu-central", "us-east"];

fn held(value: &str) -> Held {
    Held { value: value.to_owned(), stamp: format!("stamp of {value}") }
}

fn reads(before_ns: u64, during_ns: u64) -> Reads {
    let latency = |p99_ns| Latency { reads: 1_000_000, p99_ns, ..Latency::default() };
    Reads { before: latency(before_ns), during: latency(during_ns) }
}

/// Three regions that hold what their three writers wrote.
fn well() -> Evidence {
    let mut evidence = Evidence::default();
    let mut contents = Contents::new();
    for region in REGIONS {
        let mut ledger = Ledger::new(&format!("{region}.1"));
        for index in 0..100 {
            let removed = index % 10 == 0;
            let key = format!("own/{}/{index}", ledger.writer);
            ledger.last.insert(key.clone(), Last { counter: 1_000 + index, removed });
            if !removed {
                contents.insert(key, held(&format!("{}#{}", ledger.writer, 1_000 + index)));
            }
        }
        ledger.last.insert("all/1".to_owned(), Last { counter: 77, removed: region == "us-east" });
        ledger.last.insert("all/2".to_owned(), Last { counter: 78, removed: false });
        evidence.ledgers.push(ledger);
        evidence.reads.insert(region.to_owned(), reads(1_000, 1_999));
        let pace = Pace { made: 90_000, refused: 0, due: 100_000 };
        evidence.paces.insert(format!("{region}.1"), pace);
    }
    contents.insert("all/2".to_owned(), held("eu-central.1#78"));
    for region in REGIONS {
        evidence.contents.insert(region.to_owned(), contents.clone());
    }
    evidence
}

/// Does the same to what every region holds, so that they stay equal.
fn everywhere(evidence: &mut Evidence, change: impl Fn(&mut Contents)) {
    evidence.contents.values_mut().for_each(change);
}

fn kinds(evidence: &Evidence) -> Vec<&'static str> {
    let mut kinds: Vec<_> = judge(evidence).iter().map(Finding::kind).collect();
    kinds.dedup();
    kinds
}

#[test]
fn regions_that_hold_what_was_written_are_well() {
    assert_eq!(judge(&well()), []);
}

#[test]
fn a_lost_write_is_found() {
    let mut evidence = well();
    everywhere(&mut evidence, |contents| drop(contents.remove("own/us-east.1/5")));
    assert_eq!(kinds(&evidence), ["lost"]);
    let mut evidence = well();
    let older = held("us-east.1#4");
    everywhere(&mut evidence, |contents| drop(contents.insert("own/us-east.1/5".to_owned(), older.clone())));
    assert_eq!(kinds(&evidence), ["lost"]);
}

#[test]
fn a_lost_write_of_a_key_that_all_write_is_found() {
    let mut evidence = well();
    let replaced = held("eu-central.1#60");
    everywhere(&mut evidence, |contents| drop(contents.insert("all/2".to_owned(), replaced.clone())));
    assert_eq!(kinds(&evidence), ["lost"], "its writer had replaced it");
    everywhere(&mut evidence, |contents| drop(contents.remove("all/2")));
    assert_eq!(kinds(&evidence), ["lost"], "nobody had removed it");
}

#[test]
fn any_of_the_last_writes_may_win_a_key_that_all_write() {
    let mut evidence = well();
    for winner in ["us-east.1#78", "ap-south.1#78"] {
        everywhere(&mut evidence, |contents| drop(contents.insert("all/2".to_owned(), held(winner))));
        assert_eq!(judge(&evidence), []);
    }
    everywhere(&mut evidence, |contents| drop(contents.insert("all/1".to_owned(), held("ap-south.1#77"))));
    assert_eq!(judge(&evidence), [], "the remove of us-east may have been the older one");
}

#[test]
fn only_a_writer_whose_ledger_is_gone_may_win_without_one() {
    let mut evidence = well();
    everywhere(&mut evidence, |contents| drop(contents.insert("all/2".to_owned(), held("us-east.0#5"))));
    assert_eq!(kinds(&evidence), ["lost"]);
    evidence.gone.insert("us-east.0".to_owned());
    assert_eq!(judge(&evidence), []);
}

#[test]
fn a_divergence_is_found() {
    let mut evidence = well();
    let contents = evidence.contents.get_mut("ap-south").unwrap();
    contents.get_mut("all/2").unwrap().stamp = "another".to_owned();
    assert_eq!(kinds(&evidence), ["divergent"], "the stamp alone");
    let mut evidence = well();
    evidence.contents.get_mut("ap-south").unwrap().remove("own/us-east.1/5");
    assert_eq!(kinds(&evidence), ["divergent", "lost"]);
}

#[test]
fn a_removed_key_that_came_back_is_found() {
    let mut evidence = well();
    let back = held("us-east.1#9");
    everywhere(&mut evidence, |contents| drop(contents.insert("own/us-east.1/10".to_owned(), back.clone())));
    assert_eq!(kinds(&evidence), ["resurrected"]);
}

#[test]
fn slow_reads_are_found_in_one_region() {
    let mut evidence = well();
    evidence.reads.insert("ap-south".to_owned(), reads(1_000, 2_001));
    assert_eq!(kinds(&evidence), ["slow reads"]);
}

#[test]
fn a_reader_that_starves_during_the_fault_is_slow() {
    let mut evidence = well();
    evidence.reads.get_mut("ap-south").unwrap().during.reads = 100;
    assert_eq!(kinds(&evidence), ["slow reads"]);
    evidence.reads.get_mut("ap-south").unwrap().during = Latency::default();
    assert_eq!(kinds(&evidence), ["slow reads"], "not one read");
}

#[test]
fn each_region_whose_process_lives_throughout_has_reads_to_compare() {
    let mut evidence = well();
    evidence.reads.get_mut("ap-south").unwrap().before.reads = 100;
    assert_eq!(kinds(&evidence), ["unproven"]);
    evidence.replaced.insert("ap-south".to_owned());
    assert_eq!(judge(&evidence), [], "its process was started since");
    evidence.replaced.extend(REGIONS.map(str::to_owned));
    assert_eq!(kinds(&evidence), ["unproven"], "no process lives throughout");
    let mut evidence = well();
    evidence.reads.remove("us-east");
    assert_eq!(kinds(&evidence), ["unproven"]);
}

#[test]
fn a_writer_that_stands_still_is_found() {
    let mut evidence = well();
    let pace = Pace { made: 89_999, refused: 0, due: 100_000 };
    evidence.paces.insert("us-east.1".to_owned(), pace);
    assert_eq!(kinds(&evidence), ["unsteady writes"], "it was late");
    let pace = Pace { made: 80_000, refused: 20_000, due: 100_000 };
    evidence.paces.insert("us-east.1".to_owned(), pace);
    assert_eq!(kinds(&evidence), ["unsteady writes"], "its node refused them");
    assert_eq!(judge_contents(&evidence).len(), 1, "in a soak, too");
    evidence.paces.insert("us-east.1".to_owned(), Pace { made: 0, refused: 0, due: 100 });
    assert_eq!(judge(&evidence), [], "it has only begun");
}

#[test]
fn each_writer_that_is_not_new_has_a_ledger_worth_its_name() {
    let mut evidence = well();
    evidence.ledgers[1].last.clear();
    let writer = evidence.ledgers[1].writer.clone();
    everywhere(&mut evidence, |contents| {
        contents.retain(|key, held| !key.contains(&writer) && !held.value.contains(&writer));
    });
    everywhere(&mut evidence, |contents| drop(contents.insert("all/2".to_owned(), held("us-east.1#78"))));
    assert_eq!(kinds(&evidence), ["unproven"]);
    evidence.paces.insert(writer.clone(), Pace { made: 9, refused: 0, due: 10 });
    assert_eq!(judge(&evidence), []);
    evidence.paces.remove(&writer);
    assert_eq!(kinds(&evidence), ["unproven"], "nobody knows what was due of it");
}

#[test]
fn a_pace_is_what_came_since_the_one_before() {
    let (first, then) = (Pace { made: 10, refused: 1, due: 12 }, Pace { made: 50, refused: 3, due: 60 });
    assert_eq!(then.since(first), Pace { made: 40, refused: 2, due: 48 });
}

#[test]
fn a_receipt_that_lied_is_found() {
    let mut evidence = well();
    let key = "told/us-east.1/3".to_owned();
    evidence.ledgers.retain(|ledger| ledger.writer != "us-east.1");
    evidence.gone.insert("us-east.1".to_owned());
    evidence.told =
        vec![Told { key: key.clone(), counter: 50, published: true, elsewhere: vec!["ap-south".to_owned()] }];
    assert_eq!(kinds(&evidence), ["untrue receipt"], "nobody has it");
    everywhere(&mut evidence, |contents| drop(contents.insert(key.clone(), held("us-east.1#49"))));
    assert_eq!(kinds(&evidence), ["untrue receipt"], "an older one");
    everywhere(&mut evidence, |contents| drop(contents.insert(key.clone(), held("us-east.1#51"))));
    assert_eq!(judge(&evidence), [], "a later one");
}

#[test]
fn what_outlives_its_time_is_found() {
    let mut evidence = well();
    everywhere(&mut evidence, |contents| {
        drop(contents.insert("brief/us-east.1/3".to_owned(), held("us-east.1#2")));
    });
    assert_eq!(kinds(&evidence), ["lingering"]);
}

#[test]
fn a_check_of_nothing_is_no_check() {
    assert_eq!(kinds(&Evidence::default()), ["unproven"]);
    let mut evidence = well();
    evidence.reads.values_mut().for_each(|reads| reads.before.reads = 100);
    assert_eq!(kinds(&evidence), ["unproven"]);
}

#[test]
fn of_each_kind_the_first_few_are_shown() {
    let mut evidence = well();
    everywhere(&mut evidence, Contents::clear);
    let lines = shown(&judge(&evidence));
    assert!(lines.iter().any(|line| line.starts_with("… ") && line.ends_with("lost in all")), "{lines:?}");
    assert!(lines.len() < 12, "{lines:?}");
}
