//! A web service with the cache in front of a slow origin: `get_or_load` in an axum handler.
//!
//! `cargo run --package geocache --example axum_service` starts the service on a free port, asks it a few things, prints
//! what it saw and ends. `cargo run --package geocache --example axum_service -- --serve 127.0.0.1:3000` keeps serving
//! until Ctrl-C; then try `curl -i http://127.0.0.1:3000/prices/7`.
//!
//! [`price`] is the whole pattern: one call of the origin for all who ask at once, the last known price for when the
//! origin is gone, and a header that says where the answer came from.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode},
    routing::get,
};
use geocache::{GeoCache, LoadOptions, Source};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Where an answer came from.
const SOURCE: HeaderName = HeaderName::from_static("x-cache-source");
/// No wait here is longer.
const BOUND: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Price {
    item: u64,
    cents: u64,
}

/// What answers slowly, and sometimes not at all: a database, another service.
#[derive(Debug, Default)]
struct Origin {
    calls: AtomicU32,
    is_down: AtomicBool,
}

impl Origin {
    async fn price(&self, item: u64) -> Result<Price, String> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
        if self.is_down.load(Ordering::Relaxed) {
            return Err("the origin is down".to_owned());
        }
        Ok(Price { item, cents: item * 100 })
    }
}

/// What the handlers share: clones are handles.
#[derive(Clone)]
struct Shop {
    cache: GeoCache,
    origin: Arc<Origin>,
    options: LoadOptions,
}

type Answer = Result<([(HeaderName, &'static str); 1], Json<Price>), (StatusCode, String)>;

async fn price(State(shop): State<Shop>, Path(item): Path<u64>) -> Answer {
    let origin = Arc::clone(&shop.origin);
    let load = move || async move { origin.price(item).await };
    match shop.cache.get_or_load_with(format!("price:{item}"), shop.options, load).await {
        Ok(loaded) => Ok(([(SOURCE, told(loaded.source))], Json(Price::clone(&loaded.value)))),
        Err(error) => Err((StatusCode::BAD_GATEWAY, error.to_string())),
    }
}

fn told(source: Source) -> &'static str {
    match source {
        Source::Cache => "cache",
        Source::Stale => "stale",
        Source::Region | Source::Elsewhere => "region",
        _ => "origin",
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (address, keeps_serving) = match *arguments {
        [] => (SocketAddr::from(([127, 0, 0, 1], 0)), false),
        ["--serve", address] => (address.parse()?, true),
        _ => return Err("usage: axum_service [--serve ADDRESS:PORT]".into()),
    };

    // So short that the demonstration below sees a price go stale; a shop would say minutes.
    let options = LoadOptions::new().ttl(Duration::from_secs(1)).stale_for(Duration::from_secs(3_600));
    let shop = Shop { cache: GeoCache::builder().build().await?, origin: Arc::default(), options };
    let routes = Router::new().route("/prices/{item}", get(price)).with_state(shop.clone());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("serving on http://{address}");

    let serving = axum::serve(listener, routes);
    if keeps_serving {
        let interrupted = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
        serving.with_graceful_shutdown(interrupted).await?;
    } else {
        tokio::select! {
            ended = serving => ended?,
            shown = tokio::time::timeout(BOUND, demonstrate(address, &shop)) => shown??,
        }
    }
    shop.cache.close(BOUND).await;
    Ok(())
}

/// Asks the service over the network, as its users do.
async fn demonstrate(address: SocketAddr, shop: &Shop) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let asking: Vec<_> = (0..20).map(|_| tokio::spawn(ask(address, "/prices/7"))).collect();
    for asked in asking {
        // One that came late, on a slow machine, found the price in the cache.
        expect(&asked.await??, "200", &["origin", "cache"])?;
    }
    let calls = shop.origin.calls.load(Ordering::Relaxed);
    println!("20 asked at once, {calls} call of the origin, {:?}", start.elapsed());
    // A price is over after a second, so each second that the 20 took may have cost a call more.
    if u64::from(calls) > 1 + start.elapsed().as_secs() {
        return Err(format!("{calls} calls of the origin for 20 who asked at once").into());
    }

    shop.origin.is_down.store(true, Ordering::Relaxed);
    let answer = loop {
        let answer = ask(address, "/prices/7").await?;
        if source(&answer) != "cache" {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    expect(&answer, "200", &["stale"])?;
    println!("the origin is down, the price is over: the last known one is served, and marked");

    expect(&ask(address, "/prices/8").await?, "502", &[""])?;
    println!("a price that nobody knows is an error, with the origin's own words");
    Ok(())
}

/// One request on a connection of its own; the answer, head and body.
async fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Where the answer says that it came from; nothing where it does not say.
fn source(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("x-cache-source: ")).unwrap_or_default()
}

fn expect(answer: &str, status: &str, sources: &[&str]) -> Result<(), String> {
    let is_so = answer.split(' ').nth(1) == Some(status) && sources.contains(&source(answer));
    is_so.then_some(()).ok_or_else(|| format!("not {status} from {sources:?}, but: {answer}"))
}
