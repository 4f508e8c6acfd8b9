//! What the calls that wait tell in logs: who, how it went, and never a value.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use geocache::{GeoCache, GeoCluster, PutOptions, WriteConcern, client::GeoClient};
use tracing::Level;
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

const LONG: Duration = Duration::from_secs(30);

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of a call: its span's beginning and end, and the event in between.
    fn lines(&self, span: &str) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(&format!(" {span}{{"))).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// One test at a time, also where nobody listens: which levels are asked for at all, and of which calls, is known to the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// Makes every call that waits, and gives what was logged on this thread, on which all of them run.
fn logged(level: Level) -> Log {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_max_level(level)
        .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
        .with_ansi(false)
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing::subscriber::with_default(subscriber, || runtime.block_on(calls()));
    log
}

async fn calls() {
    let cluster = GeoCluster::builder()
        .regions(["us-east", "eu-central"])
        .configure(|node| node.cache("users"))
        .build()
        .await
        .unwrap();
    let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("eu-central").unwrap());
    let options = PutOptions::new().concern(WriteConcern::All).timeout(LONG);
    let receipt = here.put_with("secret-key", "secret-value", options).await.unwrap();
    there.get_at_least::<String>("secret-key", &receipt.token, LONG).await.unwrap().unwrap();
    there.get_fresh::<String>("secret-key", LONG).await.unwrap().unwrap();
    there.fresh(LONG, geocache::FreshOptions::new()).await.unwrap();
    assert!(there.get_or_fetch::<String>("secret-missing", LONG).await.unwrap().is_none());
    let load = || async {
        tracing::debug!("asking the database");
        Ok::<_, io::Error>("secret-loaded".to_owned())
    };
    for _ in 0..2 {
        here.get_or_load("secret-origin", load).await.unwrap();
    }
    let client = GeoClient::builder().from("us-east").cluster(&cluster).build().unwrap();
    client.put("secret-client", "secret-value").await.unwrap();
    assert!(client.get::<String>("secret-client").await.unwrap().is_some());
    assert_eq!(client.get_many::<String, _>(["secret-client", "none"]).await.unwrap().len(), 2);
    client.update::<String, _>("secret-client", |_| Some("secret-value".to_owned())).await.unwrap();
    assert!(client.touch("secret-client", LONG).await.unwrap());
    assert!(client.remove("secret-client").await.unwrap());
    client.clear().await.unwrap();
    client.close(LONG).await;
    assert!(client.get::<String>("secret-client").await.is_err());
    cluster.close(LONG).await;
}

#[test]
fn every_call_that_waits_has_a_span_with_its_node_and_says_how_it_went() {
    let log = logged(Level::DEBUG);
    for (span, node, event) in [
        ("put_with", "region=us-east", "reached=true"),
        ("get_at_least", "region=eu-central", "the write is here"),
        ("get_fresh", "region=eu-central", "fresh"),
        ("fresh", "region=eu-central", "fresh"),
        ("get_or_fetch", "region=eu-central", "asked the nearest region"),
        ("get_or_load", "region=us-east", "source=Loader"),
        ("build", "region=us-east", "ready=true"),
        ("close", "region=us-east", "unsent=0"),
    ] {
        let lines = log.lines(span);
        let is_its = |line: &&String| {
            line.contains(node) && line.contains("cache=\"users\"") && line.contains("node=\"node-1\"")
        };
        let of_node: Vec<_> = lines.iter().filter(is_its).collect();
        assert!(of_node.iter().any(|line| line.contains(event)), "{span}: {event} is not in {lines:#?}");
        assert!(of_node.iter().any(|line| line.contains(": new")), "{span} began: {lines:#?}");
        assert!(of_node.iter().any(|line| line.contains(": close time.busy")), "{span} ended: {lines:#?}");
    }
    let of_load = log.lines("get_or_load");
    assert!(
        of_load.iter().any(|line| line.contains("asking the database")),
        "the loader is inside: {of_load:#?}"
    );
    assert_eq!(of_load.iter().filter(|line| line.contains(": new")).count(), 1, "a hit makes no span");
}

#[test]
fn every_call_of_a_client_has_a_span_that_says_who_answered() {
    let log = logged(Level::DEBUG);
    for (span, count, event) in [
        ("client_put", 2, "region=us-east asked=1"),
        ("client_get", 3, "region=us-east asked=1"),
        ("client_get", 3, "failed error=the client is closed"),
        ("client_get_many", 1, "answered keys=2"),
        ("client_touch", 1, "region=us-east asked=1"),
        ("client_remove", 1, "region=us-east asked=1"),
        ("client_clear", 1, "region=us-east asked=1"),
        ("client_close", 1, "close time.busy"),
    ] {
        let pattern = [format!(" {span}: "), format!(" {span}{{")];
        let text = log.text();
        let lines: Vec<_> =
            text.lines().filter(|line| pattern.iter().any(|part| line.contains(part))).collect();
        let begun = lines.iter().filter(|line| line.ends_with(": new")).count();
        assert_eq!(begun, count, "{span}: {lines:#?}");
        assert!(lines.iter().any(|line| line.contains(event)), "{span}: {event} is not in {lines:#?}");
    }
}

#[test]
fn keys_are_told_at_the_level_trace_alone_and_values_never() {
    assert!(!logged(Level::DEBUG).text().contains("secret"));
    let log = logged(Level::TRACE);
    for (span, key) in [
        ("put_with", "secret-key"),
        ("get_at_least", "secret-key"),
        ("get_fresh", "secret-key"),
        ("get_or_fetch", "secret-missing"),
        ("get_or_load", "secret-origin"),
        ("client_put", "secret-client"),
        ("client_get", "secret-client"),
    ] {
        assert!(
            log.lines(span).iter().any(|line| line.contains(&format!("key={key}"))),
            "{span}: {}",
            log.text()
        );
    }
    assert!(!log.text().contains("secret-value") && !log.text().contains("secret-loaded"));
}

#[test]
fn nothing_is_needed_to_be_listening() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cache = GeoCache::builder().build().await.unwrap();
        cache.put_with("k", "v", PutOptions::new()).await.unwrap();
        cache.close(LONG).await;
    });
}
