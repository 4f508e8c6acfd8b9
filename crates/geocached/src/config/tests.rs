use std::io::Write as _;

use clap::Parser as _;
use geocache::config::ConfigError as FileError;

use super::*;
use crate::cli::Cli;

/// The configuration that these arguments give.
fn config(arguments: &[&str]) -> Result<Config, ConfigError> {
    let cli = Cli::try_parse_from([&["geocached"], arguments].concat()).unwrap();
    Config::resolve(cli.node, Some("Web-01.example\n"))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn with_file(text: &str, arguments: &[&str]) -> Result<Config, ConfigError> {
    let file = file(text);
    config(&[&["--config", file.path().to_str().unwrap()], arguments].concat())
}

const AMQP: &str = "amqp://ann:hunter2@broker:5672";

#[test]
fn without_any_setting_it_is_a_standalone_cache_on_loopback() {
    let config = config(&[]).unwrap();
    assert!(config.region.is_none());
    assert_eq!(config.listen.to_string(), "127.0.0.1:11211");
    assert_eq!(config.bound, Bound::Memory(MEMORY_DEFAULT));
    assert_eq!(config.options.connections_max, 1024);
    assert_eq!(config.options.value_bytes_max, 1 << 20);
    assert_eq!(config.options.fetch_timeout, Some(Duration::from_millis(250)));
}

#[test]
fn a_nodes_name_is_made_from_the_hosts() {
    let config = config(&["--region", "us-east", "--amqp", AMQP]).unwrap();
    assert_eq!(config.region.unwrap().node, "web-01-example");
    assert_eq!(node_name("..."), None);
    assert_eq!(node_name(&"x".repeat(100)).unwrap().len(), NAME_BYTES_MAX);
}

#[test]
fn half_of_a_region_is_refused() {
    for (arguments, setting) in [
        (&["--region", "us-east"][..], "--region"),
        (&["--amqp", AMQP], "--amqp"),
        (&["--node", "a"], "--node"),
        (&["--profile", "fast"], "--profile"),
        (&["--amqp-ca", "ca.pem"], "--amqp-ca"),
        (&["--compress-above", "4k"], "--compress-above"),
        (&["--stream-max-bytes", "1g"], "--stream-max-bytes"),
        (&["--amqp-credentials-file", "password"], "--amqp-credentials-file"),
        (&["--region", "us-east", "--amqp", AMQP, "--amqp-cert", "a.pem"], "--amqp-cert"),
        (&["--region", "us-east", "--amqp", AMQP, "--amqp-key", "a.key"], "--amqp-key"),
    ] {
        let error = config(arguments).unwrap_err().to_string();
        assert!(error.starts_with(setting) && !error.contains("hunter2"), "{error}");
    }
    let cli = Cli::try_parse_from(["geocached", "--region", "us-east", "--amqp", AMQP]).unwrap();
    assert!(Config::resolve(cli.node, None).unwrap_err().to_string().starts_with("--node"));
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    for arguments in [
        ["--memory", "1k"],
        ["--memory", "1m"],
        ["--log", "infoo"],
        ["--capacity", "0"],
        ["--max-connections", "0"],
        ["--max-value-bytes", "8m"],
        ["--max-value-bytes", "0"],
        ["--threads", "0"],
        ["--write-timeout-secs", "0"],
        ["--fetch-timeout-ms", "10001"],
    ] {
        let error = config(&arguments).unwrap_err().to_string();
        assert!(error.starts_with(arguments[0]), "{error}");
    }
    assert!(config(&["--memory", "64m", "--capacity", "5"]).unwrap_err().to_string().contains("--capacity"));
}

#[test]
fn what_streams_keep_is_for_streams_and_within_what_the_transport_takes() {
    let stream = |arguments: &[&str]| {
        config(&[&["--region", "us-east", "--amqp", AMQP, "--profile", "stream"], arguments].concat())
    };
    for (option, refused, taken) in [
        ("--stream-max-bytes", ["1023k", "1025g"], ["1m", "1024g"]),
        ("--stream-max-age-secs", ["59", "2592001"], ["60", "2592000"]),
    ] {
        for value in refused {
            let error = stream(&[option, value]).unwrap_err().to_string();
            assert!(error.starts_with(option), "{error}");
        }
        for value in taken {
            let config = stream(&[option, value]).unwrap();
            let region = config.region.as_ref().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let settings = crate::node::transport(region, &config).unwrap();
            // It is checked before a broker is dialled, and dialling goes on in the background.
            runtime.block_on(async { replication::rabbitmq::RabbitMq::dial(settings).map(drop) }).unwrap();
        }
        let fast = ["--region", "us-east", "--amqp", AMQP, option, taken[0]];
        let error = config(&fast).unwrap_err().to_string();
        assert!(error.starts_with(option) && error.contains("--profile stream"), "{error}");
    }
}

#[test]
fn frames_travel_compressed_from_a_length_on_and_from_none_by_default() {
    for (arguments, above) in [
        (&[][..], None),
        (&["--compress-above", "0"], None),
        (&["--compress-above", "1"], Some(1)),
        (&["--compress-above", "4k"], Some(4_096)),
    ] {
        let config = config(&[&["--region", "us-east", "--amqp", AMQP], arguments].concat()).unwrap();
        assert_eq!(config.region.unwrap().compress_above, above, "{arguments:?}");
    }
}

#[test]
fn the_command_line_wins_over_the_file() {
    let text = "region = 'us-east'\namqp = 'amqp://a'\nlisten = '0.0.0.0:1'\nmemory = '64m'\nidle_timeout_secs = 7\n";
    let config = with_file(text, &["--listen", "2", "--capacity", "10"]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:2");
    assert_eq!(config.bound, Bound::Entries(10));
    assert_eq!(config.region.unwrap().name.as_str(), "us-east");
    assert_eq!(config.options.idle_timeout, Some(Duration::from_secs(7)));
}

#[test]
fn every_setting_may_stand_in_the_file() {
    let text = r#"
        region = "eu-central"
        amqp = ["amqp://a", "amqp://b"]
        node = "n1"
        cache = "sessions"
        profile = "stream"
        stream_max_bytes = "2g"
        stream_max_age_secs = 3600
        compress_above = "4k"
        listen = "[::1]:11300"
        capacity = 5
        max_connections = 6
        max_value_bytes = 7
        threads = 8
        idle_timeout_secs = 0
        write_timeout_secs = 9
        fetch_timeout_ms = 0
        log = "debug"
    "#;
    let config = with_file(text, &[]).unwrap();
    let region = config.region.unwrap();
    assert_eq!((region.amqp.len(), region.node.as_str(), region.profile), (2, "n1", Profile::Stream));
    assert_eq!(region.stream_bytes_max, Some(2 << 30));
    assert_eq!(
        (region.stream_age_max, region.compress_above),
        (Some(Duration::from_secs(3_600)), Some(4_096))
    );
    assert_eq!((config.cache.as_str(), config.listen.to_string().as_str()), ("sessions", "[::1]:11300"));
    assert_eq!((config.options.idle_timeout, config.options.fetch_timeout), (None, None));
    assert_eq!(config.log, "debug");
}

#[test]
fn every_profile_is_chosen_by_its_name() {
    for (name, profile) in
        [("fast", Profile::Fast), ("durable", Profile::Durable), ("stream", Profile::Stream)]
    {
        let text = format!("region = 'us-east'\namqp = ['{AMQP}']\nnode = 'n1'\nprofile = '{name}'\n");
        assert_eq!(with_file(&text, &[]).unwrap().region.unwrap().profile, profile);
        let arguments = ["--region", "us-east", "--amqp", AMQP, "--profile", name];
        assert_eq!(config(&arguments).unwrap().region.unwrap().profile, profile);
    }
}

#[test]
fn a_mistake_in_the_file_is_named_with_its_line() {
    for (text, line, field, part) in [
        ("node = 'a'\nregoin = 'us-east'\n", 2, Some("regoin"), "unknown field"),
        ("\n\nlisten = 'nowhere'\n", 3, Some("listen"), "no address"),
        ("capacity = -5\n", 1, Some("capacity"), "-5"),
        ("memory = '64q'\n", 1, Some("memory"), "no number of bytes"),
        ("region = 'US East'\n", 1, Some("region"), "only a-z"),
        ("node = 'A'\n", 1, Some("node"), "only a-z"),
        ("profile = 'slow'\n", 1, Some("profile"), "slow"),
        ("capacity = 5\ncapacity = 6\n", 2, Some("capacity"), "duplicate"),
        ("capacity = 5\nthis is no setting\n", 2, None, ""),
        ("[server]\nlisten = '1'\n", 1, Some("server"), "unknown field"),
    ] {
        match with_file(text, &[]).unwrap_err() {
            ConfigError::File(FileError::Line { line: at, setting: named, problem: message, .. }) => {
                assert_eq!((at, named.as_deref()), (line, field), "{text:?}: {message}");
                assert!(message.contains(part), "{text:?}: {message}");
            }
            other => panic!("{text:?}: {other}"),
        }
    }
}

#[test]
fn what_does_not_go_together_is_named_with_the_line_that_set_it() {
    for (text, arguments, line, field, part) in [
        ("\nthreads = 0\n", &[][..], 2, "threads", "is 0"),
        ("memory = '1k'\n", &[], 1, "memory", "under 1m"),
        ("memory = '1m'\n", &[], 1, "memory", "--max-value-bytes (1048576)"),
        ("memory = '4m'\n", &["--max-value-bytes", "5m"], 1, "memory", "--max-value-bytes (5242880)"),
        ("log = 'infoo'\n", &[], 1, "log", "no level"),
        ("# a\nmax_value_bytes = '9m'\n", &[], 2, "max_value_bytes", "1 to 7m"),
        ("capacity = 1\nmemory = '64m'\n", &[], 2, "memory", "--capacity"),
        ("region = 'us-east'\n", &[], 1, "region", "no broker"),
        ("profile = 'fast'\n", &[], 1, "profile", "without --region"),
    ] {
        match with_file(text, arguments).unwrap_err() {
            ConfigError::File(FileError::Line { line: at, setting: named, problem: message, .. }) => {
                assert_eq!((at, named.as_deref()), (line, Some(field)), "{text:?}: {message}");
                assert!(message.contains(part), "{text:?}: {message}");
            }
            other => panic!("{text:?}: {other}"),
        }
    }
    let error = with_file("threads = 0\n", &["--threads", "1000"]).unwrap_err().to_string();
    assert!(error.starts_with("--threads: is 1000"), "the option was mistaken, not the file: {error}");
}

#[test]
fn every_option_is_known_to_be_set() {
    let command = <Settings as clap::Args>::augment_args(clap::Command::new("settings"));
    for argument in command.get_arguments() {
        let option = format!("--{}", argument.get_long().unwrap());
        let value = match argument.get_id().as_str() {
            "region" | "amqp" | "node" | "cache" => "a",
            "profile" => "fast",
            "log" => "info",
            _ => "100",
        };
        let cli = Cli::try_parse_from(["geocached", &option, value]).unwrap();
        assert!(cli.node.settings.has(&option) && !Settings::default().has(&option), "{option}");
    }
}

#[test]
fn the_least_memory_for_a_value_limit_is_enough() {
    let least = (5 << 20) + ENTRY_BYTES;
    let config = config(&["--max-value-bytes", "5m", "--memory", &least.to_string()]).unwrap();
    let builder = geocache::GeoCache::builder().value_bytes_max(config.options.value_bytes_max);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(crate::node::bounded(builder, config.bound).build()).unwrap();
    let under = (least - 1).to_string();
    assert!(self::config(&["--max-value-bytes", "5m", "--memory", &under]).is_err());
}

#[test]
fn a_mistake_is_shown_with_file_line_and_setting() {
    let file = file("threads = 'many'\n");
    let path = file.path().to_str().unwrap();
    let error = config(&["--config", path]).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{path}, line 1, column 11, setting \"threads\": invalid type")),
        "{error}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = config(&["--config", "/nonexistent/geocached.toml"]).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/geocached.toml"), "{error}");
}

#[test]
fn no_password_is_shown_whatever_is_wrong() {
    for text in [
        format!("amqp = {{ uri = '{AMQP}' }}\n"),
        format!("amqp = [['{AMQP}']]\n"),
        format!("region = '{AMQP}'\n"),
        format!("amqp = '{AMQP}' nonsense\n"),
        format!("capacity = '{AMQP}'\n"),
        format!("amqp = '{AMQP}\n"),
        format!("amqp = [\n\"{AMQP}/?heartbeat=5\" \"x\"\n]\n"),
        format!("amqp:\"{AMQP}?x=1\"\n"),
        "amqp = \"\"\"\namqp://ann:\nhunter2=x@h \\q\"\"\"\n".to_owned(),
        "amqp = \"\"\"\namqp://ann:\nhunter2 = x@h\"\"\" 5\n".to_owned(),
        format!("'{AMQP}' = 5\n"),
    ] {
        let error = with_file(&text, &[]).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let config = with_file(&format!("region = 'a'\namqp = '{AMQP}'\n"), &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.region.unwrap().amqp[0].expose(), AMQP);
}
