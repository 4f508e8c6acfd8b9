//! Random faults over hours of paused time, from seeds that are printed.

use tokio::time::Instant;

use super::*;
use crate::client::Hedge;

const NAMES: [&str; 5] = ["eu-central", "eu-west", "us-east", "us-west", "ap-south"];
const MODES: [Mode; 5] = [Mode::Well, Mode::Dead, Mode::Hangs, Mode::Refuses, Mode::LosesAnswers];
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// Regions of which one stays well, and the others do as they like.
struct Schedule {
    random: fastrand::Rng,
    fakes: Vec<Arc<Fake>>,
    sound: usize,
    client: GeoClient,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let regions = random.usize(2..=NAMES.len());
        let fakes: Vec<_> = NAMES[..regions].iter().map(|name| Fake::new(name)).collect();
        // The budget is not what is tested here.
        let builder = GeoClient::builder().from("eu-central").seed(seed);
        let mut builder = builder.fallback_share(1.0).fallbacks_per_second(10_000.0);
        if random.bool() {
            builder = builder.hedge(Hedge::after(ms(20)));
        }
        for (at, fake) in fakes.iter().enumerate() {
            fake.hold("k", fake.name);
            fake.take(ms(2 + 20 * at as u64));
            builder = builder.endpoint(fake.name, Arc::<Fake>::clone(fake));
        }
        let client = builder.call_limit(CALL_LIMIT).build().unwrap();
        let sound = random.usize(..regions);
        Self { random, fakes, sound, client }
    }

    /// One region changes its ways.
    fn disturb(&mut self) {
        let at = self.random.usize(..self.fakes.len());
        if at != self.sound {
            self.fakes[at].be(MODES[self.random.usize(..MODES.len())]);
            self.fakes[at].take(ms(self.random.u64(1..900)));
        }
    }

    /// Some calls at once; every one is answered within its limit.
    async fn call(&mut self, seed: u64) {
        let calls = (0..self.random.usize(1..20)).map(|_| {
            let (client, writes) = (self.client.clone(), self.random.u8(..4) == 0);
            async move {
                let begun = Instant::now();
                let answer = if writes {
                    client.write(b"k", put("x"), Expect::Any).await.map(|served| served.region)
                } else {
                    client.item(b"k").await.map(|served| served.region)
                };
                (answer, begun.elapsed())
            }
        });
        for (answer, took) in join_all(calls.collect::<Vec<_>>()).await {
            assert!(took <= CALL_LIMIT + ms(1), "seed {seed}: {took:?}");
            assert!(
                answer.is_ok(),
                "seed {seed}: {} is well: {}",
                self.fakes[self.sound].name,
                answer.unwrap_err()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_ends_within_its_limit_and_is_answered_while_one_region_is_well() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut schedule = Schedule::new(seed);
        for _ in 0..60 {
            schedule.disturb();
            schedule.call(seed).await;
            let pause = schedule.random.u64(..4_000);
            tokio::time::sleep(ms(pause)).await;
        }
        // Once all are well, calls go to the closest again, and nothing is held.
        for (at, fake) in schedule.fakes.iter().enumerate() {
            fake.be(Mode::Well);
            fake.take(ms(2 + 20 * at as u64));
        }
        tokio::time::sleep(Duration::from_secs(1_200)).await;
        let served = schedule.client.item(b"k").await.unwrap();
        assert_eq!((served.region.as_str(), served.asked), (NAMES[0], 1), "seed {seed}");
        for route in schedule.client.routes().unwrap().status().regions {
            assert_eq!(route.in_flight, 0, "seed {seed}: {}", route.region);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_ends_within_its_limit_though_no_region_is_well() {
    for seed in 0..30 {
        println!("seed {seed}");
        let mut schedule = Schedule::new(seed);
        for fake in &schedule.fakes {
            fake.be(MODES[1 + schedule.random.usize(..MODES.len() - 1)]);
        }
        for _ in 0..40 {
            let begun = Instant::now();
            let error = schedule.client.write(b"k", put("x"), Expect::Absent).await.unwrap_err();
            assert!(begun.elapsed() <= CALL_LIMIT + ms(1), "seed {seed}: {:?}", begun.elapsed());
            let (failures, _, _) = unavailable(error);
            assert_eq!(
                failures.len(),
                schedule.fakes.len(),
                "seed {seed}: each region is told of: {failures:?}"
            );
            let pause = schedule.random.u64(..1_000);
            tokio::time::sleep(ms(pause)).await;
        }
    }
}
