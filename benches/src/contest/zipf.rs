//! Zipf's law: how often the n-th most popular key is asked for.

use fastrand::Rng;

/// Ranks from 0, of which rank r is drawn in proportion to 1 / (r + 1)^s.
///
/// Rejection-inversion, in constant time and memory: W. Hörmann and G. Derflinger, "Rejection-inversion to generate
/// variates from monotone discrete distributions", ACM TOMACS 6(3), 1996, for exponents other than 1.
#[derive(Debug, Clone)]
pub struct Zipf {
    exponent: f64,
    count: f64,
    lowest: f64,
    highest: f64,
    shortcut: f64,
}

impl Zipf {
    /// Over `count` ranks.
    pub fn new(count: u64, exponent: f64) -> Self {
        let mut zipf = Self { exponent, count: count as f64, lowest: 0.0, highest: 0.0, shortcut: 0.0 };
        zipf.lowest = zipf.integral(1.5) - 1.0;
        zipf.highest = zipf.integral(zipf.count + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    /// The next rank.
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        loop {
            let area = self.highest + rng.f64() * (self.lowest - self.highest);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.shortcut || area >= self.integral(rank + 0.5) - self.weight(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        x.powf(-self.exponent)
    }

    /// The integral of the weight.
    fn integral(&self, x: f64) -> f64 {
        let rest = 1.0 - self.exponent;
        (x.powf(rest) - 1.0) / rest
    }

    fn inverse(&self, area: f64) -> f64 {
        let rest = 1.0 - self.exponent;
        (1.0 + area * rest).max(0.0).powf(1.0 / rest)
    }
}

/// Numbers in an order that no cache foresees: the finaliser of SplitMix64, which is a bijection (G. Steele, D. Lea and
/// C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub fn scrambled(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_drawn_as_often_as_the_law_says() {
        const DRAWS: u32 = 400_000;
        for exponent in [0.8, 0.99] {
            let zipf = Zipf::new(1_000, exponent);
            let mut rng = Rng::with_seed(7);
            let mut counts = [0_u32; 1_000];
            (0..DRAWS).for_each(|_| counts[zipf.draw(&mut rng) as usize] += 1);
            let sum: f64 = (1..=1_000).map(|rank| f64::from(rank).powf(-exponent)).sum();
            let share = |counts: &[u32]| f64::from(counts.iter().sum::<u32>()) / f64::from(DRAWS);
            for (from, to) in [(0, 1), (1, 2), (2, 10), (10, 100), (100, 1_000)] {
                let law: f64 = (from + 1..=to).map(|rank| (rank as f64).powf(-exponent)).sum::<f64>() / sum;
                let found = share(&counts[from..to]);
                assert!((found - law).abs() < 0.005, "{exponent}: ranks {from}..{to}: {found} for {law}");
            }
        }
    }

    #[test]
    fn a_string_key_has_20_bytes() {
        use crate::contest::Key;
        assert_eq!([<String as Key>::of(0).len(), <String as Key>::of(u64::MAX).len()], [20, 20]);
        assert_ne!(<String as Key>::of(1), <String as Key>::of(2));
    }
}
