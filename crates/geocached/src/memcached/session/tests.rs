use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::memcached::{Parser, Step};

/// A server's session on a standalone cache.
pub(super) struct Client {
    pub(super) session: Session,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub(super) fn new() -> Self {
        Self::with(Options { value_bytes_max: 100, ..Options::default() })
    }

    fn with(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let build = GeoCache::builder().capacity(1000).value_bytes_max(options.value_bytes_max).build();
        let cache = runtime.block_on(build).unwrap();
        Self { session: Session::new(Arc::new(Shared::new(cache, options, None))), runtime }
    }

    /// What all of `input` is answered.
    pub(super) fn say(&mut self, input: &str) -> String {
        String::from_utf8(self.bytes(input.as_bytes())).unwrap()
    }

    fn bytes(&mut self, mut input: &[u8]) -> Vec<u8> {
        let mut parser = Parser::new(self.session.shared.options.value_bytes_max);
        let mut out = Vec::new();
        loop {
            match parser.next(input) {
                Step::Command { mut command, used } => {
                    input = &input[used..];
                    while self.session.execute(&mut command, &mut out) == Flow::More {}
                }
                Step::Skip { used } => input = &input[used..],
                Step::More { .. } => return out,
            }
        }
    }

    pub(super) fn stat(&mut self, name: &str) -> String {
        let stats = self.say("stats\r\n");
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {stats}")).to_owned()
    }
}

#[track_caller]
pub(super) fn talk(exchanges: &[(&str, &str)]) {
    let mut client = Client::new();
    for (request, answer) in exchanges {
        assert_eq!(client.say(request), *answer, "{request:?}");
    }
}

#[test]
fn storage_commands_store_on_their_conditions() {
    talk(&[
        ("replace k 0 0 1\r\na\r\n", "NOT_STORED\r\n"),
        ("append k 0 0 1\r\na\r\n", "NOT_STORED\r\n"),
        ("prepend k 0 0 1\r\na\r\n", "NOT_STORED\r\n"),
        ("add k 5 0 1\r\n1\r\n", "STORED\r\n"),
        ("add k 0 0 1\r\n2\r\n", "NOT_STORED\r\n"),
        ("append k 9 0 1\r\n2\r\n", "STORED\r\n"),
        ("prepend k 9 0 1\r\n0\r\n", "STORED\r\n"),
        ("get k\r\n", "VALUE k 5 3\r\n012\r\nEND\r\n"),
        ("replace k 1 0 1\r\nx\r\n", "STORED\r\n"),
        ("set k 4294967295 0 0\r\n\r\n", "STORED\r\n"),
        ("get k k nope\r\n", "VALUE k 4294967295 0\r\n\r\nVALUE k 4294967295 0\r\n\r\nEND\r\n"),
    ]);
}

#[test]
fn cas_stores_only_over_the_value_it_has_seen() {
    let mut client = Client::new();
    assert_eq!(client.say("cas k 0 0 1 1\r\na\r\n"), "NOT_FOUND\r\n");
    client.say("set k 0 0 1\r\na\r\n");
    let gets = client.say("gets k\r\n");
    let cas = gets.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(client.say(&format!("cas k 0 0 1 {cas}\r\nb\r\n")), "STORED\r\n");
    assert_eq!(client.say(&format!("cas k 0 0 1 {cas}\r\nc\r\n")), "EXISTS\r\n");
    assert_eq!(client.say("get k\r\n"), "VALUE k 0 1\r\nb\r\nEND\r\n");
}

#[test]
fn numbers_wrap_up_stop_down_and_keep_their_width() {
    talk(&[
        ("incr n 1\r\n", "NOT_FOUND\r\n"),
        ("set n 7 0 2\r\n10\r\n", "STORED\r\n"),
        ("incr n 5\r\n", "15\r\n"),
        ("decr n 7\r\n", "8\r\n"),
        ("get n\r\n", "VALUE n 7 2\r\n8 \r\nEND\r\n"),
        ("decr n 100\r\n", "0\r\n"),
        ("incr n 18446744073709551615\r\n", "18446744073709551615\r\n"),
        ("incr n 5\r\n", "4\r\n"),
        ("get n\r\n", "VALUE n 7 20\r\n4                   \r\nEND\r\n"),
        ("incr n 1 noreply\r\n", ""),
        ("incr n x\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
        ("set t 0 0 1\r\nx\r\n", "STORED\r\n"),
        ("incr t 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
    ]);
}

#[test]
fn what_expired_already_is_stored_and_gone() {
    talk(&[
        ("set k 0 -1 1\r\na\r\nget k\r\n", "STORED\r\nEND\r\n"),
        ("add k 0 -1 1\r\na\r\nget k\r\n", "STORED\r\nEND\r\n"),
        ("replace k 0 -1 1\r\na\r\n", "NOT_STORED\r\n"),
        ("cas k 0 -1 1 1\r\na\r\n", "NOT_FOUND\r\n"),
        ("set k 0 0 1\r\na\r\n", "STORED\r\n"),
        ("add k 0 -1 1\r\nb\r\nget k\r\n", "NOT_STORED\r\nVALUE k 0 1\r\na\r\nEND\r\n"),
        ("set k 0 -1 1\r\nb\r\nget k\r\n", "STORED\r\nEND\r\n"),
        // An absolute time in 1970.
        ("set k 0 2592001 1\r\na\r\nget k\r\n", "STORED\r\nEND\r\n"),
        ("set k 0 9999999999999 1\r\na\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\na\r\nEND\r\n"),
        ("set k 0 9223372036854775807 1\r\na\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\na\r\nEND\r\n"),
    ]);
}

#[test]
fn touch_and_gat_change_the_expiry() {
    let mut client = Client::new();
    assert_eq!(client.say("touch k 10\r\n"), "NOT_FOUND\r\n");
    client.say("set k 3 0 1\r\na\r\n");
    let left = |client: &Client| client.session.shared.cache.peek_item(b"k").and_then(|item| item.left);
    assert_eq!(left(&client), None);
    assert_eq!(client.say("touch k 10\r\n"), "TOUCHED\r\n");
    assert!(left(&client).is_some_and(|left| left <= Duration::from_secs(10)));
    assert_eq!(client.say("gat 100 k nope\r\n"), "VALUE k 3 1\r\na\r\nEND\r\n");
    assert!(left(&client).is_some_and(|left| left > Duration::from_secs(50)));
    assert_eq!(client.say("append k 0 0 1\r\nb\r\n"), "STORED\r\n");
    assert!(left(&client).is_some_and(|left| left > Duration::from_secs(50)), "append keeps the expiry");
    assert!(client.say("gats 0 k\r\n").starts_with("VALUE k 3 2 "));
    assert_eq!(left(&client), None);
    assert_eq!(client.say("gat -1 k\r\nget k\r\n"), "VALUE k 3 2\r\nab\r\nEND\r\nEND\r\n");
    client.say("set k 0 0 1\r\na\r\n");
    assert_eq!(client.say("touch k -1\r\nget k\r\n"), "TOUCHED\r\nEND\r\n");
    assert_eq!(client.say("gat 10\r\n"), "END\r\n");
}

#[test]
fn delete_removes_once() {
    talk(&[
        ("delete k\r\n", "NOT_FOUND\r\n"),
        ("set k 0 0 1\r\na\r\n", "STORED\r\n"),
        ("delete k 0\r\n", "DELETED\r\n"),
        ("delete k\r\n", "NOT_FOUND\r\n"),
    ]);
}

#[test]
fn a_value_over_the_limit_is_refused_and_what_was_stored_stays() {
    let large = "x".repeat(101);
    let mut client = Client::new();
    client.say("set k 0 0 1\r\na\r\n");
    assert_eq!(
        client.say(&format!("add k 0 0 101\r\n{large}\r\nget k\r\n")),
        "SERVER_ERROR object too large for cache\r\nVALUE k 0 1\r\na\r\nEND\r\n"
    );
    assert_eq!(
        client.say(&format!("append k 0 0 100\r\n{}\r\nget k\r\n", &large[1..])),
        "SERVER_ERROR object too large for cache\r\nVALUE k 0 1\r\na\r\nEND\r\n"
    );
    assert_eq!(
        client.say(&format!("set k 0 0 101\r\n{large}\r\nget k\r\n")),
        "SERVER_ERROR object too large for cache\r\nVALUE k 0 1\r\na\r\nEND\r\n"
    );
    assert_eq!(client.say(&format!("set k 0 0 100\r\n{}\r\n", &large[1..])), "STORED\r\n");
    assert_eq!(client.stat("store_too_large"), "3");
}

#[test]
fn noreply_silences_answers_and_refusals() {
    talk(&[
        ("set k 0 0 1 noreply\r\n1\r\nincr k 1 noreply\r\nappend k 0 0 1 noreply\r\n0\r\n", ""),
        ("touch k 0 noreply\r\ndelete nope noreply\r\nverbosity 1 noreply\r\n", ""),
        ("set k 0 0 1 noreply\r\nab\r\n", "ERROR\r\n"),
        ("get k\r\n", "VALUE k 0 2\r\n20\r\nEND\r\n"),
        ("flush_all noreply\r\nget k\r\n", "END\r\n"),
    ]);
}

#[test]
fn flush_all_empties_now_or_later() {
    let mut client = Client::new();
    client.say("set k 0 0 1\r\na\r\n");
    assert_eq!(client.say("flush_all 100\r\nget k\r\n"), "OK\r\nVALUE k 0 1\r\na\r\nEND\r\n");
    let due = client.session.shared.flush_at.borrow().unwrap();
    assert!(due > Instant::now() + Duration::from_secs(90));
    assert_eq!(client.say("flush_all\r\nget k\r\n"), "OK\r\nEND\r\n");
    assert_eq!(*client.session.shared.flush_at.borrow(), None, "a flush now replaces the later one");
    assert_eq!(client.say("set k 0 0 1\r\nb\r\nget k\r\n"), "STORED\r\nVALUE k 0 1\r\nb\r\nEND\r\n");
    assert_eq!(client.say("flush_all -1\r\nget k\r\n"), "OK\r\nEND\r\n");
}

#[test]
fn stats_count_what_happened() {
    let mut client = Client::new();
    client.say("set k 0 0 1\r\n1\r\nget k nope\r\ntouch k 0\r\ntouch nope 0\r\nincr k 1\r\ndecr nope 1\r\n");
    client.say("delete nope\r\ncas k 0 0 1 0\r\na\r\ngat 0 k\r\n");
    for (name, value) in [
        ("cmd_get", "3"),
        ("cmd_set", "2"),
        ("cmd_touch", "3"),
        ("get_hits", "1"),
        ("get_misses", "1"),
        ("touch_hits", "2"),
        ("touch_misses", "1"),
        ("incr_hits", "1"),
        ("decr_misses", "1"),
        ("delete_misses", "1"),
        ("cas_badval", "1"),
        ("total_items", "1"),
        ("curr_items", "1"),
        ("replication_ready", "1"),
        ("version", stats::VERSION),
    ] {
        assert_eq!(client.stat(name), value, "{name}");
    }
    assert_eq!(client.stat("pid"), std::process::id().to_string());
    assert_eq!(client.say("stats reset\r\n"), "RESET\r\n");
    assert_eq!(client.stat("cmd_get"), "0");
    assert_eq!(client.stat("curr_items"), "1");
    assert!(client.say("stats settings\r\n").contains("STAT item_size_max 100\r\n"));
    assert!(client.say("stats items\r\n").contains("STAT items:1:number 1\r\n"));
    assert!(client.say("stats slabs\r\n").ends_with("END\r\n"));
    assert_eq!(client.say("stats sizes\r\n"), "STAT sizes_status disabled\r\nEND\r\n");
    assert_eq!(client.say("stats nonsense\r\n"), "ERROR\r\n");
}

#[test]
fn an_answer_with_many_large_values_comes_in_parts() {
    let mut client = Client::with(Options::default());
    let value = "x".repeat(OUT_BYTES_SOFT);
    client.say(&format!("set k 0 0 {OUT_BYTES_SOFT}\r\n{value}\r\n"));
    let mut command = Command::Get { keys: Keys::new(b"k k k"), cas: false };
    let mut parts = 0;
    let mut out = Vec::new();
    loop {
        let flow = client.session.execute(&mut command, &mut out);
        assert!(out.len() <= 2 * OUT_BYTES_SOFT, "{}", out.len());
        out.clear();
        parts += 1;
        if flow == Flow::Continue {
            break;
        }
    }
    assert_eq!(parts, 4);
}

#[test]
fn an_answer_for_many_keys_comes_in_parts() {
    let mut client = Client::new();
    client.say("set k1000 0 0 1\r\na\r\n");
    let keys: Vec<String> = (1..=1000).map(|key| format!("k{key}")).collect();
    let keys = keys.join(" ");
    for mut command in [
        Command::Get { keys: Keys::new(keys.as_bytes()), cas: false },
        Command::GetAndTouch { exptime: 0, keys: Keys::new(keys.as_bytes()), cas: false },
    ] {
        let mut out = Vec::new();
        let mut parts = 0;
        loop {
            let before = client.session.keys;
            let flow = client.session.execute(&mut command, &mut out);
            assert!(client.session.keys - before <= KEYS_PER_PART);
            parts += 1;
            if flow == Flow::Continue {
                break;
            }
        }
        assert_eq!((parts, out.as_slice()), (4, &b"VALUE k1000 0 1\r\na\r\nEND\r\n"[..]));
    }
    assert_eq!(client.stat("cmd_get"), "2000");
}

#[test]
fn a_store_without_memory_is_refused_and_counted() {
    let mut client = Client::new();
    let mut out = Vec::new();
    client.session.execute(&mut Command::NoMemory { quiet: false }, &mut out);
    assert_eq!(out, b"SERVER_ERROR out of memory storing object\r\n");
    assert_eq!(client.stat("store_no_memory"), "1");
}

#[test]
fn a_closed_cache_refuses_writes_and_answers_reads() {
    let mut client = Client::new();
    client.say("set k 0 0 1\r\na\r\n");
    let cache = client.session.shared.cache.clone();
    client.runtime.block_on(cache.close(Duration::from_secs(1)));
    assert_eq!(client.say("set k 0 0 1\r\nb\r\n"), "SERVER_ERROR the cache is closed\r\n");
    assert_eq!(
        client.say("incr k 1\r\n"),
        "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
    );
    assert_eq!(client.say("get k\r\n"), "VALUE k 0 1\r\na\r\nEND\r\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_can_crash_it(input in proptest::collection::vec(any::<u8>(), 0..2000)) {
        Client::new().bytes(&input);
    }
}
