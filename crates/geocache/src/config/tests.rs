use std::io::Write as _;

use super::*;
use crate::config::settings::RabbitMqSettings;

const URI: &str = "amqp://ann:hunter2@broker:5672";

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text)
}

/// The sample with every setting made, those that are left at their default included.
fn sample() -> String {
    let text = include_str!("../../docs/geocache.toml");
    let is_setting = |line: &&str| {
        line.strip_prefix('#').and_then(|line| line.split_once(" = ")).is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
    };
    let lines = text.lines().map(|line| if is_setting(&line) { &line[1..] } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_needs_to_be_set() {
    let config = read("").unwrap();
    assert_eq!(config.settings, Settings::default());
}

#[tokio::test]
async fn what_is_set_is_what_the_node_is_built_with() {
    let text = r#"
        region = "us-east"
        node = "a"
        regions = ["us-east", "eu-central"]
        capacity = 2
        default_ttl = "1h 30m"
        value_bytes_max = "1k"
        key_bytes_max = 3
        codec = "json"
    "#;
    let cache = read(text).unwrap().builder().build().await.unwrap();
    assert_eq!(cache.node().to_string(), "us-east/a");
    assert_eq!(cache.codec(), Codec::Json);
    assert!(matches!(cache.put("long", &1), Err(crate::Error::Key { max: 3, .. })));
    assert!(matches!(cache.put("k", &"x".repeat(1025)), Err(crate::Error::ValueTooLarge { max: 1024, .. })));
    (0..9).for_each(|n| cache.put(format!("{n}"), &n).unwrap());
    assert_eq!((cache.stats().entries, cache.stats().evictions), (2, 7));
    assert!(cache.item(b"8").unwrap().left.unwrap().as_secs() > 5_000);
}

#[tokio::test]
async fn a_cluster_of_the_configured_regions_runs_over_memory_without_a_broker() {
    let config = read("regions = ['us-east', 'eu-central']\ncapacity = 3\nregion = 'us-east'").unwrap();
    let cluster = config.cluster().await.unwrap();
    cluster.put("k", "v", "us-east").unwrap();
    cluster.settled(std::time::Duration::from_secs(30)).await.unwrap();
    assert!(cluster.region("eu-central").unwrap().contains("k").unwrap());
    assert!(read("").unwrap().cluster().await.is_err(), "there is no region");
}

#[test]
fn a_mistake_is_named_with_line_column_and_setting() {
    for (text, place, setting, part) in [
        ("node = 'a'\nregoin = 'us-east'\n", (2, 1), Some("regoin"), "unknown field"),
        ("capacity = -5\n", (1, 12), Some("capacity"), "-5"),
        ("capacity = 'many'\n", (1, 12), Some("capacity"), "invalid type"),
        ("capacity = 0\n", (1, 12), Some("capacity"), "at least 1"),
        ("capacity_bytes = '64q'\n", (1, 18), Some("capacity_bytes"), "no number of bytes"),
        ("capacity_bytes = '64MB'\n", (1, 18), Some("capacity_bytes"), "MiB"),
        ("\ndefault_ttl = 30\n", (2, 15), Some("default_ttl"), "a time with its unit"),
        ("default_ttl = '30'\n", (1, 15), Some("default_ttl"), "write a number and its unit"),
        ("remote_depth = 2.0\n", (1, 16), Some("remote_depth"), "0.0 to 1.0"),
        ("codec = 'xml'\n", (1, 9), Some("codec"), "\"messagepack\", \"json\" or \"raw\""),
        ("region = 'US East'\n", (1, 10), Some("region"), "a-z"),
        ("node = 'A'\n", (1, 8), Some("node"), "a-z"),
        ("cache = ''\n", (1, 9), Some("cache"), "empty"),
        ("region = 'us-east'\nregions = ['eu-central']\n", (2, 11), Some("regions"), "us-east"),
        ("regions = ['us-east', 5]\n", (1, 11), Some("regions"), "quotes"),
        ("loads_max = 0\n", (1, 13), Some("loads_max"), "at least 1"),
        (
            "value_bytes_max = '1MiB'\ncapacity_bytes = '1k'\n",
            (2, 18),
            Some("capacity_bytes"),
            "value_bytes_max",
        ),
        ("capacity = 5\ncapacity = 6\n", (2, 1), Some("capacity"), "duplicate"),
        ("capacity = 5\nthis is no setting\n", (2, 6), None, ""),
        ("[server]\nlisten = '1'\n", (1, 2), Some("server"), "unknown field"),
        ("[rabbitmq]\nheartbaet = '5s'\n", (2, 1), Some("rabbitmq.heartbaet"), "unknown field"),
        ("[rabbitmq]\nprefetch = 70000\n", (2, 12), Some("rabbitmq.prefetch"), "70000"),
        ("rabbitmq = { uris = 5 }\n", (1, 21), Some("rabbitmq.uris"), "integer"),
    ] {
        match read(text).unwrap_err() {
            ConfigError::Line { line, column, setting: named, problem, path: None } => {
                assert_eq!(((line, column), named.as_deref()), (place, setting), "{text:?}: {problem}");
                assert!(problem.contains(part), "{text:?}: {problem}");
            }
            other => panic!("{text:?}: {other}"),
        }
    }
}

#[test]
fn a_file_is_named_with_its_mistake() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"# a cache\nloads_max = 0\n").unwrap();
    let error = Config::from_file(file.path()).unwrap_err().to_string();
    let place = format!("{}, line 2, column 13, setting \"loads_max\": ", file.path().display());
    assert!(error.starts_with(&place), "{error}");
    let error = Config::from_file("/nonexistent/geocache.toml").unwrap_err().to_string();
    assert!(
        error.contains("/nonexistent/geocache.toml") && error.contains("see that it is there"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_no_text_is_named_with_the_place_where_it_ceases_to_be() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"capacity = 5\nnode = 'M\xfcnchen'\n").unwrap();
    let error = Config::from_file(file.path()).unwrap_err().to_string();
    let place = format!("{}, line 2, column 10: is not UTF-8", file.path().display());
    assert!(error.starts_with(&place), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let error = Config::from_file(folder.path()).unwrap_err();
    assert!(matches!(&error, ConfigError::File { path, .. } if path == folder.path()), "{error}");
}

#[test]
fn a_mark_of_byte_order_moves_no_place() {
    assert!(read("\u{feff}capacity = 5\n").is_ok());
    let error = read("\u{feff}capacity = 0\n").unwrap_err().to_string();
    assert!(error.starts_with("line 1, column 1") && error.contains("\"capacity\""), "{error}");
}

#[test]
fn a_variable_that_is_a_slip_of_the_hand_is_noticed() {
    for (slip, meant) in [
        ("GEOCACHE_CAPACTIY", "GEOCACHE_CAPACITY"),
        ("GEOCACHE_CAPACITY_BYTE", "GEOCACHE_CAPACITY_BYTES"),
        ("GEOCACHE_DEFAULT_TLL", "GEOCACHE_DEFAULT_TTL"),
        ("GEOCACHE_REGOIN", "GEOCACHE_REGION"),
        ("GEOCACHE_NOD", "GEOCACHE_NODE"),
    ] {
        assert_eq!(settings::meant(slip).as_deref(), Some(meant), "{slip}");
    }
    for other in ["GEOCACHE_CAPACITY", "GEOCACHE_LISTEN", "GEOCACHE_MEMORY", "GEOCACHE_MODUS", "CAPACTIY"] {
        assert_eq!(settings::meant(other), None, "{other}");
    }
}

#[test]
fn a_variable_wins_over_the_file_and_is_blamed_for_its_own_mistakes() {
    let text = "capacity = 0\nregions = ['us-east']\n";
    let variables =
        [("GEOCACHE_CAPACITY", "7"), ("GEOCACHE_REGIONS", "us-east, eu-central"), ("GEOCACHE_NODE", "")];
    let config = Config::from_toml_and(text, variables).unwrap();
    assert_eq!((config.settings.capacity, config.settings.node.as_deref()), (Some(7), None));
    assert_eq!(config.settings.regions.unwrap().0, ["us-east", "eu-central"]);
    for (variable, value, part) in [
        ("GEOCACHE_CAPACITY", "many", "no whole number"),
        ("GEOCACHE_LOADS_MAX", "0", "at least 1"),
        ("GEOCACHE_BOOTSTRAP", "yes", "neither true nor false"),
        ("GEOCACHE_DEFAULT_TTL", "30", "write a number and its unit"),
        ("GEOCACHE_CAPACITY_BYTES", URI, "no number of bytes"),
        ("GEOCACHE_RABBITMQ_HEARTBAET", "5s", "no such setting"),
    ] {
        match Config::from_toml_and("capacity = 5", [(variable, value)]).unwrap_err() {
            ConfigError::Variable { variable: named, problem } => {
                assert_eq!(named, variable);
                assert!(problem.contains(part) && !problem.contains("hunter2"), "{problem}");
            }
            other => panic!("{variable}: {other}"),
        }
    }
    assert!(Config::from_toml_and("", [("GEOCACHE_LISTEN", "11211")]).is_ok(), "it is the daemon's");
}

#[test]
fn every_setting_has_a_variable() {
    // A value that each type of setting takes: some of them refuse it later, as a variable's mistake.
    for setting in Settings::NAMES.iter().chain(RabbitMqSettings::NAMES) {
        let taken = ["1", "1s", "true", "a"].into_iter().any(|value| {
            let variables = Variables::from([(variable(setting), value.to_owned())]);
            Settings::of_variables(variables).is_ok_and(|settings| settings.has(setting))
        });
        assert!(taken, "{setting}");
    }
}

#[test]
fn the_sample_has_every_setting() {
    let sample: Settings = Document::of_text(sample()).parse().unwrap();
    for setting in Settings::NAMES.iter().chain(RabbitMqSettings::NAMES) {
        assert!(sample.has(setting), "{setting} is not in the sample");
    }
}

#[test]
fn no_password_is_shown_whatever_is_wrong() {
    for text in [
        format!("[rabbitmq]\nuris = {{ uri = '{URI}' }}\n"),
        format!("[rabbitmq]\nuris = [['{URI}']]\n"),
        format!("region = '{URI}'\n"),
        format!("[rabbitmq]\nuris = '{URI}' nonsense\n"),
        format!("capacity = '{URI}'\n"),
        format!("capacity_bytes = '{URI}'\n"),
        format!("codec = '{URI}'\n"),
        format!("[rabbitmq]\nuris = '{URI}\n"),
        format!("[rabbitmq]\nuris = [\n\"{URI}/?heartbeat=5\" \"x\"\n]\n"),
        format!("uris:\"{URI}?x=1\"\n"),
        "[rabbitmq]\nuris = \"\"\"\namqp://ann:\nhunter2=x@h \\q\"\"\"\n".to_owned(),
        "[rabbitmq]\nuris = \"\"\"\namqp://ann:\nhunter2 = x@h\"\"\" 5\n".to_owned(),
        format!("'{URI}' = 5\n"),
        format!("regions = ['us-east', '{URI}']\n"),
        format!("[rabbitmq]\nuris = 'amqp://h'\nprofile = '{URI}'\n"),
        "[rabbitmq]\npassword = \"hunter2\n".to_owned(),
        "[rabbitmq]\npassword = \"hunter2\" x\n".to_owned(),
        "[rabbitmq]\npassword = ['hunter2']\n".to_owned(),
    ] {
        let error = read(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let error = read("[rabbitmq]\npassword = 13579\n").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("13579"), "{error:?}");
    assert!(error.to_string().contains("quotes"), "{error}");
}

#[cfg(not(feature = "rabbitmq"))]
#[test]
fn a_broker_is_refused_where_the_program_cannot_use_one() {
    let error = read("\n[rabbitmq]\nuris = ['amqp://localhost']\n").unwrap_err().to_string();
    assert!(
        error.starts_with("line 2, column 1, setting \"rabbitmq\"") && error.contains("feature"),
        "{error}"
    );
}

#[cfg(feature = "rabbitmq")]
mod over_rabbitmq {
    use replication::rabbitmq::{Config as Transport, Profile};

    use super::*;

    fn node() -> NodeId {
        NodeId::new("eu-central".parse().unwrap(), "node-1").unwrap()
    }

    #[test]
    fn the_sample_is_right_and_states_the_transports_defaults() {
        let config = read(include_str!("../../docs/geocache.toml")).unwrap();
        let plain = format!("{:?}", Transport::new(node(), vec!["amqp://localhost:5672".to_owned()]));
        assert_eq!(format!("{:?}", config.rabbitmq(node()).unwrap()), plain);
        // What the sample says of the defaults; its examples of secrets and files do not go together.
        let examples =
            ["user", "password", "credentials_file", "tls_ca_file", "tls_certificate_file", "tls_key_file"];
        let is_example = |line: &&str| examples.iter().any(|name| line.starts_with(&format!("{name} = ")));
        let stated = sample();
        let stated: Vec<&str> = stated.lines().filter(|line| !is_example(line)).collect();
        let config = read(&stated.join("\n")).unwrap();
        assert_eq!(format!("{:?}", config.rabbitmq(node()).unwrap()), plain);
    }

    #[test]
    fn what_the_table_sets_is_what_the_transport_gets() {
        let text = r#"
            cache = "sessions"
            [rabbitmq]
            uris = "amqps://a"
            profile = "durable"
            user = "ann"
            password = "hunter2"
            heartbeat = "2s"
            prefetch = 7
            queue_bytes_max = "32MiB"
            retry_base = "1s"
            breaker_failure_threshold = 5
            breaker_recovery_wait = "1m"
        "#;
        let config = read(text).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let second = std::time::Duration::from_secs(1);
        let expected = Transport::new(node(), vec!["amqps://a".to_owned()])
            .cache("sessions")
            .profile(Profile::Durable)
            .credentials(replication::rabbitmq::Credentials::new("ann", "hunter2"))
            .heartbeat(2 * second)
            .prefetch(7)
            .queue_bytes_max(32 << 20)
            .retry(second, 5 * second)
            .breaker_failure_threshold(5)
            .breaker_recovery_wait(60 * second);
        assert_eq!(format!("{:?}", config.rabbitmq(node()).unwrap()), format!("{expected:?}"));
    }

    #[test]
    fn what_the_transport_refuses_is_named_with_its_line() {
        for (table, line, setting, part) in [
            ("", 1, "rabbitmq", "at least one broker"),
            ("uris = ['nonsense:hunter2@x']", 2, "rabbitmq.uris", "index 0"),
            ("uris = 'amqp://h'\nheartbeat = '7s'", 3, "rabbitmq.heartbeat", "1s to 5s"),
            (
                "uris = 'amqp://h'\nprofile = 'slow'",
                3,
                "rabbitmq.profile",
                "\"fast\", \"durable\" or \"stream\"",
            ),
            ("uris = 'amqp://h'\nretry_max = '1ms'", 3, "rabbitmq.retry_max", "100ms"),
            ("uris = 'amqp://h'\nretry_base = '1ms'", 3, "rabbitmq.retry_base", "10ms"),
            ("uris = 'amqp://h'\nuser = 'ann'", 3, "rabbitmq.user", "without password"),
            ("uris = 'amqp://h'\npassword = 'hunter2'", 3, "rabbitmq.password", "without user"),
            (
                "uris = 'amqp://h'\ncredentials_file = '/nowhere/at-all'",
                3,
                "rabbitmq.credentials_file",
                "/nowhere/at-all",
            ),
            ("uris = 'amqp://h'\ntls_ca_file = '/nowhere/ca.pem'", 3, "rabbitmq.tls_ca_file", "amqps"),
            (
                "uris = 'amqps://h'\ntls_key_file = 'k'",
                3,
                "rabbitmq.tls_key_file",
                "without tls_certificate_file",
            ),
            ("uris = 'amqp://h'\ndead_letters_keep = '1ms'", 3, "rabbitmq.dead_letters_keep", "1s to"),
            (
                "uris = 'amqp://h'\nbreaker_failure_threshold = 0",
                3,
                "rabbitmq.breaker_failure_threshold",
                "1 to 100",
            ),
            (
                "uris = 'amqp://ann:hunter2@h'\nuser = 'ann'\npassword = 'hunter2'",
                4,
                "rabbitmq.password",
                "keep one",
            ),
        ] {
            match read(&format!("[rabbitmq]\n{table}\n")).unwrap_err() {
                ConfigError::Line { line: at, setting: named, problem, .. } => {
                    assert_eq!((at, named.as_deref()), (line, Some(setting)), "{table}: {problem}");
                    assert!(problem.contains(part) && !problem.contains("hunter2"), "{table}: {problem}");
                }
                other => panic!("{table}: {other}"),
            }
        }
        let text = "[rabbitmq]\nuris = 'amqp://h'\nheartbeat = '5s'";
        // A comma in a password parts the list where it may not.
        let uris = [("GEOCACHE_RABBITMQ_URIS", "amqp://ann:hun,ter2@h")];
        let error = Config::from_toml_and("", uris).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("index 0") && !shown.contains("ter2") && !shown.contains(":hun"), "{shown}");
        let error = Config::from_toml_and(text, [("GEOCACHE_RABBITMQ_HEARTBEAT", "9s")]).unwrap_err();
        assert!(
            error.to_string().starts_with("the environment variable GEOCACHE_RABBITMQ_HEARTBEAT: is 9s"),
            "{error}"
        );
    }

    #[test]
    fn each_setting_that_the_transport_checks_has_its_name_in_the_table() {
        for setting in RabbitMqSettings::NAMES {
            let name = setting.trim_start_matches("rabbitmq.");
            let mapped =
                ["profile", "user", "password", "credentials_file", "start_alone", "dead_letters_per_minute"];
            let own = super::super::rabbitmq::own_name(name);
            let is_mapped = mapped.contains(&name) || name.starts_with("tls_") || name.starts_with("retry_");
            assert!(is_mapped || own == [*setting], "{setting}");
        }
    }

    #[tokio::test]
    async fn a_node_over_rabbitmq_needs_its_region_and_a_broker_that_is_there() {
        let text = "[rabbitmq]\nuris = 'amqp://127.0.0.1:1'\nconnect_wait = '0s'";
        let error = read(text).unwrap().connect().await.unwrap_err();
        assert!(error.to_string().starts_with("setting \"region\": is needed"), "{error}");
        let error = read(&format!("region = 'us-east'\n{text}")).unwrap().connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Broker(_)), "{error}");
        let regions = read(&format!("regions = ['us-east']\n{text}")).unwrap();
        let error = regions.cluster().await.unwrap_err();
        assert!(matches!(error, BuildError::Transport { .. }), "{error}");
    }
}
