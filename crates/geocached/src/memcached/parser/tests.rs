use proptest::prelude::*;

use super::*;

/// Every request in `input`, given in the pieces that end at `cuts`, written out.
fn requests(input: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut parser = Parser::new(64);
    let mut found = Vec::new();
    let mut buffer = Vec::new();
    let mut fed = 0;
    for &cut in cuts.iter().chain([&input.len()]) {
        let cut = cut.clamp(fed, input.len());
        buffer.extend_from_slice(&input[fed..cut]);
        fed = cut;
        loop {
            let used = match parser.next(&buffer) {
                Step::Command { command, used } => {
                    found.push(format!("{command:?}"));
                    if let Command::Refused { refusal, .. } = command
                        && refusal.closes()
                    {
                        return found;
                    }
                    used
                }
                Step::Skip { used } => used,
                Step::More { total } => {
                    assert!(total.is_none_or(|total| total > buffer.len()));
                    break;
                }
            };
            assert!(used > 0 && used <= buffer.len(), "used {used} of {}", buffer.len());
            buffer.drain(..used);
        }
    }
    found
}

fn one(input: &[u8]) -> Command<'_> {
    match Parser::new(64).next(input) {
        Step::Command { command, used } => {
            assert_eq!(used, input.len());
            command
        }
        other => panic!("{other:?}"),
    }
}

fn refusal(input: &[u8]) -> (Refusal, bool) {
    match Parser::new(64).next(input) {
        Step::Command { command: Command::Refused { refusal, quiet }, .. } => (refusal, quiet),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(input)),
    }
}

fn long_key() -> String {
    "k".repeat(KEY_BYTES_MAX + 1)
}

#[test]
fn keys_of_a_request_are_its_words() {
    let Command::Get { keys, cas: false } = one(b"get a  bb c \r\n") else { panic!() };
    assert_eq!(keys.collect::<Vec<_>>(), [&b"a"[..], b"bb", b"c"]);
    let Command::GetAndTouch { exptime: -1, keys, cas: true } = one(b"gats -1 a\n") else { panic!() };
    assert_eq!(keys.collect::<Vec<_>>(), [b"a"]);
}

#[test]
fn a_storage_request_carries_its_data() {
    let Command::Store(store) = one(b"cas k 7 60 5 99 noreply\r\na\r\nbc\r\n") else { panic!() };
    assert_eq!(
        store,
        Store { verb: Verb::Cas(99), key: b"k", flags: 7, exptime: 60, data: b"a\r\nbc", quiet: true }
    );
}

#[test]
fn the_size_of_the_whole_request_is_told_as_soon_as_it_is_known() {
    let mut parser = Parser::new(64);
    assert_eq!(parser.next(b"set k 0 0 10"), Step::More { total: None });
    assert_eq!(parser.next(b"set k 0 0 10\r\nab"), Step::More { total: Some(14 + 12) });
}

#[test]
fn a_wrong_number_of_words_is_an_unknown_command() {
    for line in [
        "",
        " ",
        "bogus",
        "GET a",
        "get",
        "get ",
        "gets",
        "gat",
        "set a 0 0",
        "set a 0 0 3 noreply x",
        "cas a 0 0 3",
        "cas a 0 0 3 1 noreply x",
        "incr a",
        "incr a 1 noreply x",
        "decr a",
        "delete",
        "delete a 0 noreply x",
        "touch a",
        "touch a 1 noreply x",
        "flush_all 1 2 3",
        "verbosity",
        "verbosity 1 2 3",
        "set a b c d e f g h i j k l m",
    ] {
        assert_eq!(refusal(format!("{line}\r\n").as_bytes()), (Refusal::Unknown, false), "{line}");
    }
}

#[test]
fn words_that_are_not_what_they_should_be_are_refused_as_memcached_does() {
    let long = long_key();
    for (line, expected, quiet) in [
        (format!("get {long}"), Refusal::Format, false),
        (format!("get a {long} b"), Refusal::Format, false),
        (format!("gat 1 {long}"), Refusal::Format, false),
        (format!("set {long} 0 0 3"), Refusal::Format, false),
        (format!("set {long} 0 0 3 noreply"), Refusal::Format, true),
        (format!("delete {long}"), Refusal::Format, false),
        (format!("touch {long} 1"), Refusal::Format, false),
        (format!("incr {long} 1"), Refusal::Format, false),
        ("set a x 0 3".into(), Refusal::Format, false),
        ("set a -1 0 3".into(), Refusal::Format, false),
        ("set a 4294967296 0 3".into(), Refusal::Format, false),
        ("set a 0 x 3".into(), Refusal::Format, false),
        ("set a 0 0 x noreply".into(), Refusal::Format, true),
        ("set a 0 0 -1".into(), Refusal::Format, false),
        ("set a 0 0 2147483646".into(), Refusal::Format, false),
        ("set a 0 0 99999999999999999999".into(), Refusal::Format, false),
        ("cas a 0 0 3 x".into(), Refusal::Format, false),
        ("cas a 0 0 3 -1".into(), Refusal::Format, false),
        ("incr a x".into(), Refusal::Delta, false),
        ("decr a -1 noreply".into(), Refusal::Delta, true),
        ("delete a 1".into(), Refusal::DeleteUsage, false),
        ("delete a foo".into(), Refusal::DeleteUsage, false),
        ("delete a 0 b".into(), Refusal::DeleteUsage, false),
        ("delete a 1 noreply".into(), Refusal::DeleteUsage, true),
        ("touch a x".into(), Refusal::Exptime, false),
        ("gat x a".into(), Refusal::Exptime, false),
        ("flush_all x".into(), Refusal::Exptime, false),
        ("verbosity x".into(), Refusal::Format, false),
        ("verbosity noreply".into(), Refusal::Format, true),
        ("GET / HTTP/1.1".into(), Refusal::Http, false),
    ] {
        assert_eq!(refusal(format!("{line}\r\n").as_bytes()), (expected, quiet), "{line}");
    }
}

#[test]
fn optional_words_are_understood() {
    assert_eq!(one(b"delete a 0\r\n"), Command::Delete { key: b"a", quiet: false });
    assert_eq!(one(b"delete a noreply\r\n"), Command::Delete { key: b"a", quiet: true });
    assert_eq!(one(b"delete a 0 noreply\r\n"), Command::Delete { key: b"a", quiet: true });
    assert_eq!(one(b"delete noreply\r\n"), Command::Delete { key: b"noreply", quiet: false });
    assert_eq!(one(b"flush_all\r\n"), Command::FlushAll { delay: 0, quiet: false });
    assert_eq!(one(b"flush_all noreply\r\n"), Command::FlushAll { delay: 0, quiet: true });
    assert_eq!(one(b"flush_all 10 noreply\r\n"), Command::FlushAll { delay: 10, quiet: true });
    assert_eq!(one(b"verbosity 1 noreply\r\n"), Command::Verbosity { level: 1, quiet: true });
    assert_eq!(one(b"stats  reset \r\n"), Command::Stats { topic: b"reset" });
    assert_eq!(
        one(b"incr a 5 noreply\n"),
        Command::Arithmetic { key: b"a", direction: Direction::Up, delta: 5, quiet: true }
    );
}

#[test]
fn a_value_over_the_limit_is_swallowed_without_being_kept() {
    let mut input = b"set a 0 0 65\r\n".to_vec();
    input.extend([b'x'; 65]);
    input.extend(b"\r\nversion\r\n");
    assert_eq!(requests(&input, &[]), ["TooLarge { quiet: false }", "Version"]);
    let mut parser = Parser::new(64);
    assert!(matches!(parser.next(b"set a 0 0 100000\r\n"), Step::Command { used: 18, .. }));
    assert_eq!(parser.next(&[0; 50]), Step::Skip { used: 50 });
    assert_eq!(parser.next(b""), Step::More { total: None });
}

#[test]
fn a_bad_data_block_is_refused_and_the_stream_goes_on_behind_its_length() {
    // These are what memcached 1.6.18 does, byte by byte.
    assert_eq!(
        requests(b"set a 0 0 3\r\nabcd\r\nversion\r\n", &[]),
        [
            "Refused { refusal: DataChunk, quiet: false }",
            "Refused { refusal: Unknown, quiet: false }",
            "Version"
        ]
    );
    assert_eq!(
        requests(b"set a 0 0 3 noreply\r\nab\r\nversion\r\n", &[]),
        ["Refused { refusal: DataChunk, quiet: true }", "Refused { refusal: Unknown, quiet: false }"]
    );
}

#[test]
fn a_line_without_end_ends_the_connection() {
    let line = [b'x'; LINE_BYTES_MAX + 1];
    assert_eq!(refusal(&line), (Refusal::LineTooLong, false));
    assert_eq!(Parser::new(64).next(&line[..LINE_BYTES_MAX]), Step::More { total: None });
    let mut parser = Parser::new(64);
    parser.next(&line);
    assert_eq!(parser.next(b"version\r\n"), Step::Skip { used: 9 });
}

#[test]
fn a_request_for_many_keys_may_be_long() {
    let mut line = b"get".to_vec();
    while line.len() < KEYS_LINE_BYTES_MAX - 2 {
        line.extend(b" k");
    }
    assert_eq!(Parser::new(64).next(&line), Step::More { total: None });
    line.extend(b"\r\n");
    let Command::Get { keys, .. } = one(&line) else { panic!() };
    assert!(keys.count() > 500_000);
    line.truncate(line.len() - 2);
    line.extend(b" keys");
    assert_eq!(refusal(&line), (Refusal::LineTooLong, false));
}

/// Bytes that look like the protocol often enough to reach its corners.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => proptest::sample::select(vec![
            "get", "gets", "gat", "gats", "set", "add", "cas", "append", "incr", "decr", "delete", "touch", "flush_all",
            "stats", "version", "verbosity", "quit", "noreply", "0", "1", "3", "10", "65", "-1", "abc", "k", "\r\n", "\n",
            "\r", "  ", "18446744073709551616", "2147483648", "HTTP/1.1", "mg", "ms", "md", "mn", "b", "v", "q", "T5", "C1",
            "MR", "K", "X", "O9", "YSBi", "lru_crawler", "metadump", "all",
        ]).prop_map(|word| word.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
        1 => Just(b"set k 0 0 3\r\nabc\r\n".to_vec()),
        1 => Just(b"set k 0 0 70 noreply\r\n".to_vec()),
        1 => Just(b"ms k 3 c T9\r\nabc\r\n".to_vec()),
        1 => Just(b"ms YSBi 3 b X\r\nabc\r\n".to_vec()),
        1 => Just(b"ms k 70 q\r\n".to_vec()),
    ];
    let separator = proptest::sample::select(vec![&b" "[..], b" ", b"\r\n", b""]);
    proptest::collection::vec((word, separator), 0..40)
        .prop_map(|parts| parts.into_iter().flat_map(|(word, gap)| [word, gap.to_vec()].concat()).collect())
}

proptest! {
    #[test]
    fn no_bytes_can_crash_it(input in proptest::collection::vec(any::<u8>(), 0..5000)) {
        requests(&input, &[]);
    }

    #[test]
    fn the_requests_do_not_depend_on_how_the_bytes_arrive(
        input in noise(),
        mut cuts in proptest::collection::vec(0_usize..2000, 0..8),
    ) {
        cuts.sort_unstable();
        prop_assert_eq!(requests(&input, &cuts), requests(&input, &[]));
        let each: Vec<_> = (0..input.len()).collect();
        prop_assert_eq!(requests(&input, &each), requests(&input, &[]));
    }
}

#[test]
fn a_request_given_up_is_refused_and_its_value_swallowed() {
    let mut parser = Parser::new(64);
    let header = b"set k 0 0 10\r\n";
    let mut input = [&header[..], b"0123"].concat();
    assert_eq!(parser.next(&input), Step::More { total: Some(header.len() + 12) });
    parser.give_up();
    let command = Command::NoMemory { quiet: false };
    assert_eq!(parser.next(&input), Step::Command { command, used: header.len() });
    input.drain(..header.len());
    assert_eq!(parser.next(&input), Step::Skip { used: 4 });
    assert_eq!(parser.next(b"456789\r\nversion\r\n"), Step::Skip { used: 8 });
    let version = Step::Command { command: Command::Version, used: 9 };
    assert_eq!(parser.next(b"version\r\n"), version);
    // Only the one request was given up.
    assert_eq!(parser.next(header), Step::More { total: Some(header.len() + 12) });
}

#[test]
fn a_line_given_up_ends_the_connection() {
    let mut parser = Parser::new(64);
    assert_eq!(parser.next(b"get a"), Step::More { total: None });
    parser.give_up();
    let command = Command::Refused { refusal: Refusal::NoMemory, quiet: false };
    assert_eq!(parser.next(b"get a"), Step::Command { command, used: 5 });
    assert_eq!(parser.next(b"b\r\n"), Step::Skip { used: 3 });
}

#[test]
fn the_binary_protocol_ends_the_connection_at_its_first_byte() {
    assert_eq!(refusal(&[BINARY_MAGIC]), (Refusal::Binary, false));
    assert_eq!(Refusal::Binary.answer(), "");
    assert_eq!(
        requests(&[&b"version\r\n"[..], &[BINARY_MAGIC, 0, 0, 1], b"\r\nversion\r\n"].concat(), &[]).len(),
        2
    );
    assert!(matches!(one(b"get \x80\r\n"), Command::Get { .. }), "a key may hold any byte");
}
