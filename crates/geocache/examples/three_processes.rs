//! Three processes, one region each, over RabbitMQ: written in one, read in another, one of them killed and started anew.
//!
//! `GEOCACHE_AMQP_URL=amqp://guest:guest@localhost cargo run --package geocache --features rabbitmq --example
//! three_processes` takes about ten seconds and ends by itself. A broker to try it with: `cargo xtask broker up`, which
//! prints its URL; or `docker run --rm -p 5672:5672 rabbitmq`. `cargo xtask test-integration rabbitmq_example` brings its own.
//!
//! The program starts itself three times. Each of those is what a service of yours would be: it connects, waits until it is
//! ready, and answers. Here it answers orders that come line by line from the first process, in place of HTTP.

use std::{
    env,
    error::Error,
    process::{ExitCode, Stdio},
    time::Duration,
};

use geocache::{
    GeoCache, NodeId, PutOptions, Token, WriteConcern,
    rabbitmq::{Config, RabbitMq},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, stdin},
    process::{Child, ChildStdin, ChildStdout, Command},
};

const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];
/// Names the broker. The children inherit it: an argument could be read by every user of the machine, and a URL may hold a
/// password.
const BROKER: &str = "GEOCACHE_AMQP_URL";
/// No wait here is longer.
const BOUND: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    eprintln!("three_processes: {error}");
    ExitCode::FAILURE
}

async fn run() -> Result<()> {
    let url = env::var(BROKER).ok().filter(|url| !url.is_empty());
    let url = url.ok_or_else(|| {
        format!(
            "there is no broker; set {BROKER}, for example to amqp://guest:guest@localhost (`cargo xtask broker up` \
             starts one and prints its URL)"
        )
    })?;
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => direct().await,
        ["--region", region, "--cache", cache] => serve(&url, region, cache).await,
        _ => Err(format!("no arguments are taken; the broker is named by {BROKER}").into()),
    }
}

/// One region's process: a node, and a loop that answers.
async fn serve(url: &str, region: &str, cache: &str) -> Result<()> {
    let node = NodeId::new(region.parse()?, "node-1")?;
    let transport = RabbitMq::connect(Config::new(node, vec![url.to_owned()]).cache(cache)).await?;
    // With the regions named, a receipt knows which of them are missing.
    let cache = GeoCache::builder().cache(cache).transport(transport).regions(REGIONS).build().await?;
    cache.ready().await?;
    println!("ready");

    let mut orders = BufReader::new(stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        match order.split(' ').collect::<Vec<_>>()[..] {
            ["put", key, value] => {
                // Waits until the two other regions have it; a service that need not know calls `put`, which waits for nobody.
                let options = PutOptions::new().concern(WriteConcern::Regions(2)).timeout(BOUND);
                let receipt = cache.put_with(key, value, options).await?;
                println!("{} {}", receipt.token, if receipt.reached { "reached" } else { "alone" });
            }
            ["get", key, token] => {
                // Never older than the write that the token names, whichever process took it.
                let token: Token = token.parse()?;
                let value = cache.get_at_least::<String>(key, &token, BOUND).await?;
                println!("{}", value.map_or_else(|| "nothing".to_owned(), |value| value.to_string()));
            }
            ["close"] => {
                let closed = cache.close(BOUND).await;
                println!("{} unsent", closed.unsent_records);
                return Ok(());
            }
            _ => return Err(format!("not an order: {order:?}").into()),
        }
    }
    Ok(())
}

/// A region's process, as the first process sees it; dropping it kills it.
struct Region {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Region {
    /// Starts it; it is ready when this returns, with what the others have.
    async fn start(name: &'static str, cache: &str) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--region", name, "--cache", cache]).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().ok_or("the child has no standard input")?;
        let answers = child.stdout.take().ok_or("the child has no standard output")?;
        let mut region = Self { name, child, orders, answers: BufReader::new(answers).lines() };
        let said = region.answer().await?;
        if said != "ready" {
            return Err(format!("{name} said {said:?} instead of being ready").into());
        }
        println!("{name} is ready, process {}", region.child.id().unwrap_or_default());
        Ok(region)
    }

    async fn ask(&mut self, order: &str) -> Result<String> {
        self.orders.write_all(format!("{order}\n").as_bytes()).await?;
        let answer = self.answer().await?;
        println!("{}: {order} -> {answer}", self.name);
        Ok(answer)
    }

    async fn answer(&mut self) -> Result<String> {
        let line = tokio::time::timeout(BOUND, self.answers.next_line()).await??;
        Ok(line.ok_or_else(|| format!("{} ended; what it said is above", self.name))?)
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<String> {
        let answer = self.ask(&format!("put {key} {value}")).await?;
        let (token, reached) = answer.split_once(' ').ok_or("a receipt has two words")?;
        if reached != "reached" {
            return Err(format!("no other region had {key} after {BOUND:?}").into());
        }
        Ok(token.to_owned())
    }

    async fn expect(&mut self, key: &str, token: &str, value: &str) -> Result<()> {
        let answer = self.ask(&format!("get {key} {token}")).await?;
        if answer != value {
            return Err(format!("{} reads {answer:?} for {key}, not {value:?}", self.name).into());
        }
        Ok(())
    }
}

/// The first process: starts the three and gives the orders.
async fn direct() -> Result<()> {
    // A cache of this run's own, apart from any other on the broker.
    let cache = format!("three-processes-{}", std::process::id());
    let [east, central, south] = REGIONS;
    let (mut east, mut central, mut south) = tokio::try_join!(
        Region::start(east, &cache),
        Region::start(central, &cache),
        Region::start(south, &cache)
    )?;

    let token = east.put("greeting", "hello").await?;
    central.expect("greeting", &token, "hello").await?;
    south.expect("greeting", &token, "hello").await?;

    central.child.kill().await?;
    println!("{} was killed; the others go on", central.name);
    let token = south.put("greeting", "goodbye").await?;
    east.expect("greeting", &token, "goodbye").await?;

    let mut central = Region::start(REGIONS[1], &cache).await?;
    central.expect("greeting", &token, "goodbye").await?;

    for region in [&mut east, &mut central, &mut south] {
        let closed = region.ask("close").await?;
        if closed != "0 unsent" {
            return Err(format!("{} left {closed}", region.name).into());
        }
        let status = tokio::time::timeout(BOUND, region.child.wait()).await??;
        if !status.success() {
            return Err(format!("{} ended with {status}", region.name).into());
        }
    }
    Ok(())
}
