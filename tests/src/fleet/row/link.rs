//! The link of one region, or of all, to the broker.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{HARMED, Row, of_each, until_more};
use crate::{
    fleet::{Fleet, Report, Scene},
    proxy::{Death, Direction, DyingHandshake, End, Fault, Proxy},
};

/// Between two cuts.
const CUT_EACH: Duration = Duration::from_secs(2);
/// Between two looks at what is on its way.
const LOOK: Duration = Duration::from_millis(100);
/// What is added to each chunk, each way.
const DELAY: Duration = Duration::from_millis(100);
/// A quarter of what a region writes, and an eighth of what it hears.
const NARROW: NonZeroU64 = NonZeroU64::new(100_000).expect("it is not zero");
/// A handshake dies after the client's header and the first byte of its answer to the broker's greeting.
const HEADER_BYTES: u64 = 8;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new("hold-15", "the link of one region is silent", 15, |scene, length| {
            Box::pin(held(scene, length))
        }),
        Row::new("hold-90", "the link of one region is silent for long", 90, |scene, length| {
            Box::pin(held(scene, length))
        }),
        Row::new("cut", "every link is reset every two seconds", 30, |scene, length| {
            Box::pin(cut(scene, length))
        }),
        Row::new(
            "handshake-dies",
            "TCP connects, but the AMQP handshake is closed, then left mute, each for this long",
            12,
            |scene, length| Box::pin(handshake_dies(scene, length)),
        ),
        Row::new("one-way-out", "the broker hears nothing of one region", 20, |scene, length| {
            Box::pin(one_way(scene, length, Direction::ToUpstream))
        }),
        Row::new("one-way-in", "one region hears nothing of the broker", 20, |scene, length| {
            Box::pin(one_way(scene, length, Direction::ToClient))
        }),
        Row::new("half-open", "one region's connections lose the broker's end", 20, |scene, length| {
            Box::pin(half_open(scene, length))
        }),
        Row::new("delay", "the link of one region is 100 ms slower each way", 15, |scene, length| {
            Box::pin(delayed(scene, length))
        }),
        Row::new("bandwidth", "the link of one region carries 100 kB/s each way", 15, |scene, length| {
            Box::pin(narrow(scene, length))
        }),
    ]
}

async fn held(scene: &mut Scene, length: Duration) -> Result<()> {
    let begun = Instant::now();
    noticed(scene, begun, length, Proxy::hold).await
}

async fn one_way(scene: &mut Scene, length: Duration, lost: Direction) -> Result<()> {
    let begun = Instant::now();
    harmed(scene).fault(Fault::SwallowOneWay(lost));
    scene.fleet.pass(length.saturating_sub(begun.elapsed())).await?;
    if harmed(scene).swallowed(lost) == 0 {
        bail!("the link swallowed nothing");
    }
    harmed(scene).heal();
    Ok(())
}

async fn half_open(scene: &mut Scene, length: Duration) -> Result<()> {
    let begun = Instant::now();
    noticed(scene, begun, length, |proxy| proxy.strand(End::Client)).await
}

/// A fault that the node has to notice by itself, from silence.
async fn noticed(scene: &Scene, begun: Instant, length: Duration, fault: impl FnOnce(&Proxy)) -> Result<()> {
    let before = scene.fleet.node(HARMED)?.report().await?.connect_failures;
    fault(harmed(scene));
    until_more(scene, HARMED, "it has noticed the silence", before, |report| report.connect_failures).await?;
    scene.fleet.pass(length.saturating_sub(begun.elapsed())).await?;
    harmed(scene).heal();
    Ok(())
}

async fn cut(scene: &mut Scene, length: Duration) -> Result<()> {
    let before = of_each(scene, attempts).await?;
    let mut cuts = 0;
    loop {
        proxies(&scene.fleet).for_each(|proxy| {
            proxy.cut();
            proxy.heal();
        });
        scene.mended();
        cuts += 1;
        if CUT_EACH * cuts >= length {
            break;
        }
        scene.fleet.pass(CUT_EACH).await?;
    }
    // A node has two connections; a cut that falls between two attempts ends none.
    let least = u64::from(cuts);
    for (index, before) in before.into_iter().enumerate() {
        let than = before + least - 1;
        until_more(scene, index, "it has noticed half of the cuts", than, attempts).await?;
    }
    Ok(())
}

async fn delayed(scene: &mut Scene, length: Duration) -> Result<()> {
    harmed(scene).delay(DELAY);
    let begun = Instant::now();
    let (mut looks, mut waiting) = (0, [0; 2]);
    while begun.elapsed() < length {
        scene.fleet.pass(LOOK).await?;
        looks += 1;
        for (waiting, direction) in waiting.iter_mut().zip(Direction::BOTH) {
            *waiting += u32::from(harmed(scene).waiting(direction) > 0);
        }
    }
    harmed(scene).heal();
    // All write all along, so something is on its way each way nearly always; without a delay it passes at once.
    if waiting.iter().any(|&waiting| waiting < looks / 2) {
        bail!("the link was not slow: of {looks} looks, {waiting:?} found bytes on their way there and back");
    }
    Ok(())
}

async fn narrow(scene: &mut Scene, length: Duration) -> Result<()> {
    for direction in Direction::BOTH {
        harmed(scene).bandwidth(direction, Some(NARROW));
    }
    let passed = harmed(scene).bytes();
    let begun = Instant::now();
    scene.fleet.pass(length).await?;
    let most = (begun.elapsed().as_secs_f64() + 1.0) * 2.0 * NARROW.get() as f64;
    if (harmed(scene).bytes() - passed) as f64 > most {
        bail!("the link was not narrow: {} bytes passed", harmed(scene).bytes() - passed);
    }
    harmed(scene).heal();
    Ok(())
}

async fn handshake_dies(scene: &mut Scene, length: Duration) -> Result<()> {
    for then in [Death::Close, Death::Mute] {
        let failures = of_each(scene, |report| report.connect_failures).await?;
        let begun = Instant::now();
        proxies(&scene.fleet).for_each(|proxy| {
            proxy.cut();
            proxy.heal();
            proxy.kill_handshakes(DyingHandshake { client_bytes: HEADER_BYTES + 1, passed: true, then });
        });
        for (index, failures) in failures.into_iter().enumerate() {
            let what = "a handshake has died";
            until_more(scene, index, what, failures, |report| report.connect_failures).await?;
        }
        scene.fleet.pass(length.saturating_sub(begun.elapsed())).await?;
    }
    proxies(&scene.fleet).for_each(Proxy::heal);
    Ok(())
}

/// How often a node connected again, or tried to.
fn attempts(report: &Report) -> u64 {
    report.reconnects + report.connect_failures
}

fn harmed(scene: &Scene) -> &Proxy {
    &scene.fleet.members()[HARMED].proxy
}

fn proxies(fleet: &Fleet) -> impl Iterator<Item = &Proxy> {
    fleet.members().iter().map(|member| &member.proxy)
}
