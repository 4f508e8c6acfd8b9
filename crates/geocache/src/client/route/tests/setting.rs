use super::*;
use crate::{Codec, client::Hedge, error::BuildError};

fn refused(configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> String {
    let builder = GeoClient::builder().endpoint("us-east", Fake::new("us-east"));
    configure(builder).build().expect_err("the settings are wrong").to_string()
}

#[tokio::test]
async fn each_wrong_setting_is_refused_by_name() {
    let none = GeoClient::builder().build().unwrap_err().to_string();
    assert_eq!(none, "endpoint: there is no region; give at least one node or endpoint");
    let twice = refused(|builder| builder.endpoint("us-east", Fake::new("x")));
    assert_eq!(twice, "endpoint: us-east is given twice; give each region one endpoint");
    let zero = refused(|builder| builder.call_limit(Duration::ZERO));
    assert_eq!(zero, "call_limit: 0ns cannot be used; give more than zero, up to 86400s");
    type Change = fn(ClientBuilder) -> ClientBuilder;
    let wrong: [(&str, Change); 20] = [
        ("from", |builder| builder.from("EU")),
        ("from_at", |builder| builder.from_at("lab", 91.0, 0.0)),
        ("endpoint", |builder| builder.endpoint("", Fake::new("x"))),
        ("endpoint_at", |builder| builder.endpoint_at("lab", 0.0, 181.0, Fake::new("x"))),
        ("codec", |builder| builder.codec(Codec::Unknown(77))),
        ("default_ttl", |builder| builder.default_ttl(ms(9))),
        ("key_bytes_max", |builder| builder.key_bytes_max(0)),
        ("call_limit", |builder| builder.call_limit(Duration::MAX)),
        ("attempt_limit", |builder| builder.attempt_limit(Duration::ZERO)),
        ("in_flight_max", |builder| builder.in_flight_max(0)),
        ("in_flight_max", |builder| builder.in_flight_max(u32::MAX)),
        ("failures", |builder| builder.failures(0)),
        ("open_wait", |builder| builder.open_wait(Duration::ZERO)),
        ("fallback_share", |builder| builder.fallback_share(1.5)),
        ("fallbacks_per_second", |builder| builder.fallbacks_per_second(f64::NAN)),
        ("hedge", |builder| builder.hedge(Hedge::after(Duration::ZERO))),
        ("hedge", |builder| builder.hedge(Hedge::at_p95(0.0))),
        ("probe_interval", |builder| builder.probe_interval(Duration::ZERO)),
        ("probe_limit", |builder| builder.probe_limit(Duration::ZERO)),
        ("probe_limit", |builder| builder.probe_limit(Duration::MAX)),
    ];
    for (field, change) in wrong {
        let message = refused(change);
        assert!(message.starts_with(&format!("{field}: ")), "{field}: {message}");
    }
}

#[test]
fn without_a_runtime_it_is_refused() {
    let builder = GeoClient::builder().endpoint("us-east", Fake::new("us-east"));
    assert!(matches!(builder.build(), Err(BuildError::NoRuntime)));
}

#[tokio::test]
async fn a_key_that_no_server_takes_is_refused_here() {
    let client = GeoClient::builder().endpoint("us-east", Fake::new("us-east")).build().unwrap();
    for key in [String::new(), "k".repeat(251)] {
        assert!(matches!(client.item(key.as_bytes()).await, Err(ClientError::Input(_))));
    }
    assert_eq!(stats(&client).calls, 0);
}

#[test]
fn handles_can_be_shared_among_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<GeoClient>();
    shared::<crate::client::Routes>();
}
