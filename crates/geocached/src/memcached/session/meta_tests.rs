//! The meta protocol, beside what memcached 1.6.18 answers to the same requests.

use geocache::Codec;

use super::tests::{Client, talk};
#[test]
fn values_are_stored_and_read_with_what_the_flags_ask_for() {
    talk(&[
        ("mn\r\n", "MN\r\n"),
        ("ms k 2 F7 T0\r\nab\r\n", "HD\r\n"),
        ("mg k s v f t k O9\r\n", "VA 2 s2 f7 t-1 kk O9\r\nab\r\n"),
        ("mg k\r\n", "HD\r\n"),
        ("mg nope v\r\n", "EN\r\n"),
        ("mg nope v k O1\r\n", "EN knope O1\r\n"),
        ("mg k v q O1\r\nmg nope v q O2\r\nmn\r\n", "VA 2 O1\r\nab\r\nMN\r\n"),
        ("ms k 2 q\r\ncd\r\nmd k q k O1\r\nmd k q k O2\r\nmn\r\n", "NF kk O2\r\nMN\r\n"),
        ("ms k 2 MR q\r\ncd\r\nms k 2 C1 q\r\ncd\r\n", "NS\r\nNF\r\n"),
        ("md k\r\n", "NF\r\n"),
    ]);
}

#[test]
fn what_is_expected_decides_whether_a_value_is_stored() {
    let mut client = Client::new();
    assert_eq!(client.say("ms k 1 MR c\r\na\r\n"), "NS c0\r\n");
    let stored = client.say("ms k 1 ME c\r\na\r\n");
    let cas = stored.strip_prefix("HD c").unwrap().trim_end().to_owned();
    assert_eq!(client.say("mg k c\r\n"), format!("HD c{cas}\r\n"));
    assert_eq!(client.say("ms k 1 ME\r\nb\r\n"), "NS\r\n");
    assert_eq!(client.say("ms k 1 C1\r\nb\r\n"), "EX\r\n");
    assert_eq!(client.say("ms nope 1 C1\r\nb\r\n"), "NF\r\n");
    assert_eq!(client.say("md k C1\r\n"), "EX\r\n");
    assert_eq!(client.say(&format!("ms k 1 C{cas}\r\nb\r\n")), "HD\r\n");
    assert_eq!(client.say("md k C5 q\r\nmg k v\r\n"), "EX\r\nVA 1\r\nb\r\n");
}

#[test]
fn a_key_of_any_bytes_travels_in_base64() {
    talk(&[
        ("ms YSBiAP8= 2 b\r\nab\r\n", "HD\r\n"),
        ("mg YSBiAP8= b v O1 k s\r\n", "VA 2 O1 kYSBiAP8= b s2\r\nab\r\n"),
        ("mg bm9uZQ== k b O1\r\n", "EN kbm9uZQ== b O1\r\n"),
        ("lru_crawler metadump none\r\n", "ERROR\r\n"),
        ("mg YSBi*P8= b v\r\n", "CLIENT_ERROR error decoding key\r\n"),
        ("ms k 2 k b\r\ncd\r\n", "CLIENT_ERROR error decoding key\r\n"),
        ("md YSBiAP8= b\r\n", "HD\r\n"),
    ]);
}

#[test]
fn a_life_is_told_in_seconds_and_may_be_kept_or_begun_anew() {
    talk(&[
        ("ms k 1 T100\r\na\r\n", "HD\r\n"),
        ("mg k t\r\n", "HD t100\r\n"),
        ("ms k 1 K\r\nb\r\n", "HD\r\n"),
        ("mg k t v\r\n", "VA 1 t100\r\nb\r\n"),
        ("ms k 1\r\nc\r\n", "HD\r\n"),
        ("mg k t\r\n", "HD t-1\r\n"),
        ("mg k T50 t\r\nmg nope T50 t\r\n", "HD t50\r\nEN\r\n"),
        ("ms k 1 T-1\r\nd\r\n", "HD\r\n"),
        ("mg k\r\n", "EN\r\n"),
    ]);
}

#[test]
fn a_refused_value_is_swallowed() {
    talk(&[
        ("ms k 2 X\r\nab\r\nmn\r\n", "CLIENT_ERROR invalid flag\r\nMN\r\n"),
        ("ms k 2 MA\r\nab\r\nmn\r\n", "CLIENT_ERROR invalid mode for ms M token\r\nMN\r\n"),
        ("ms k 2 Tx\r\nab\r\nmn\r\n", "CLIENT_ERROR bad token in command line format\r\nMN\r\n"),
        ("ms k 2 MEE\r\nab\r\nmn\r\n", "CLIENT_ERROR incorrect length for M token\r\nMN\r\n"),
        ("ms k 2 F4294967296\r\nab\r\nmn\r\n", "CLIENT_ERROR bad command line format\r\nMN\r\n"),
        ("ms k 2 T1 T2\r\nab\r\nmn\r\n", "CLIENT_ERROR duplicate flag\r\nMN\r\n"),
        ("ms k x\r\nms k\r\n", &"CLIENT_ERROR bad command line format\r\n".repeat(2)),
        ("ms k 2147483647\r\nmn\r\n", "CLIENT_ERROR bad command line format\r\nMN\r\n"),
        ("ms k 2\r\nabc\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n"),
        ("mg\r\n", "ERROR\r\n"),
        ("mg k E5\r\n", "CLIENT_ERROR invalid flag\r\n"),
        ("mg k \u{e9}\r\n", "CLIENT_ERROR invalid flag\r\n"),
        ("mg k v v\r\n", "CLIENT_ERROR duplicate flag\r\n"),
        ("md k q q\r\nmd k E1\r\nmd k Cx\r\n", &"CLIENT_ERROR invalid or duplicate flag\r\n".repeat(3)),
    ]);
    // An opaque of 32 bytes with its letter is the longest that is sent back.
    let opaque = format!("O{}", "1".repeat(31));
    talk(&[
        (&format!("mg k {opaque}\r\n"), &format!("EN {opaque}\r\n")),
        (&format!("mg k {opaque}1\r\n"), "CLIENT_ERROR opaque token too long\r\n"),
    ]);
    let mut client = Client::new();
    let large = format!("ms k 200 q\r\n{}\r\nmg k\r\n", "x".repeat(200));
    assert_eq!(client.say(&large), "SERVER_ERROR object too large for cache\r\nEN\r\n");
}

#[test]
fn a_codec_is_a_mark_in_the_flags_and_other_flags_are_the_clients_own() {
    let mut client = Client::new();
    let json = Codec::Json.to_flags();
    client.say(&format!("set typed {json} 0 2\r\n41\r\nset own 7 0 1\r\na\r\n"));
    client.session.shared.cache.put("here", &41_u64).unwrap();
    let cache = client.session.shared.cache.clone();
    let item = cache.item(b"typed").unwrap();
    assert_eq!((item.codec, item.flags), (Codec::Json, 0));
    assert_eq!(*cache.get::<u64>("typed").unwrap().unwrap(), 41);
    assert_eq!(cache.item(b"own").unwrap().codec, Codec::Raw);
    assert_eq!(
        client.say("get typed own\r\n"),
        format!("VALUE typed {json} 2\r\n41\r\nVALUE own 7 1\r\na\r\nEND\r\n")
    );
    let mark = Codec::MessagePack.to_flags();
    assert_eq!(client.say("mg here f\r\n"), format!("HD f{mark}\r\n"));
    // What counts and appends keeps the mark, as it keeps any flags.
    assert_eq!(client.say("incr typed 1\r\nmg typed f v\r\n"), format!("42\r\nVA 2 f{json}\r\n42\r\n"));
    assert_eq!(
        client.say("append typed 0 0 1\r\n0\r\nmg typed f v\r\n"),
        format!("STORED\r\nVA 3 f{json}\r\n420\r\n")
    );
}

#[test]
fn every_key_is_listed_and_escaped() {
    let mut client = Client::new();
    for number in 0..700 {
        client.say(&format!("set k{number} 0 0 1\r\na\r\n"));
    }
    client.say("ms YSBiAP8= 2 b T100\r\nab\r\n");
    let listed = client.say("lru_crawler metadump all\r\n");
    let (lines, end) = listed.rsplit_once('\n').unwrap().0.rsplit_once('\n').unwrap();
    assert_eq!(end, "END\r");
    let mut keys: Vec<_> = lines.lines().map(|line| line.split(' ').next().unwrap()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 701);
    assert!(keys.contains(&"key=a%20b%00%FF") && keys.contains(&"key=k699"));
    assert!(lines.contains("key=k1 exp=-1 cas="), "{lines:.200}");
}

#[test]
fn stats_tell_the_life_and_that_nothing_is_in_doubt() {
    let mut client = Client::new();
    let life: u64 = client.stat("replication_life").parse().unwrap();
    assert_ne!(life, 0);
    assert_eq!(client.stat("replication_life"), life.to_string());
    assert_ne!(Client::new().stat("replication_life"), life.to_string());
    assert_eq!(client.stat("replication_doubt"), "none");
}
