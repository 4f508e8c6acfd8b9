//! Makes a failing schedule small: delta debugging, with a bound on what it may cost.
//!
//! Zeller's and Hildebrandt's *ddmin* (Simplifying and Isolating Failure-Inducing Input, 2002): leave out chunks, halve
//! the chunks, and go on until no single item can be left out or the trials are used up. It never returns what did not
//! fail, so a bound reached early costs size, not truth.

/// How many times a candidate may be tried.
#[derive(Debug)]
pub struct Trials {
    left: u32,
}

impl Trials {
    /// At most `max` trials.
    pub const fn new(max: u32) -> Self {
        Self { left: max }
    }

    /// Takes one, if there is one left.
    pub fn take(&mut self) -> bool {
        let any = self.left > 0;
        self.left = self.left.saturating_sub(1);
        any
    }
}

/// A shorter list that still fails: part of `items`, which fails, in its order. `fails` must answer one question always
/// in one way.
pub fn minimize<T: Clone>(items: Vec<T>, trials: &mut Trials, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = items;
    let mut chunk = kept.len().div_ceil(2).max(1);
    loop {
        let mut left_out_any = false;
        let mut start = 0;
        while start < kept.len() {
            let end = (start + chunk).min(kept.len());
            let candidate: Vec<T> = kept[..start].iter().chain(&kept[end..]).cloned().collect();
            if !trials.take() {
                return kept;
            }
            if fails(&candidate) {
                kept = candidate;
                left_out_any = true;
            } else {
                start = end;
            }
        }
        match (chunk, left_out_any) {
            (1, false) => return kept,
            (1, true) => {}
            _ => chunk = chunk.div_ceil(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_needs_is_all_that_stays() {
        let needed = [3, 57, 58, 99];
        let fails = |items: &[i32]| needed.iter().all(|item| items.contains(item));
        assert_eq!(minimize((0..100).collect(), &mut Trials::new(10_000), fails), needed);
    }

    #[test]
    fn what_is_returned_fails_even_when_the_trials_run_out() {
        for bound in 0..40 {
            let fails = |items: &[i32]| items.contains(&7) && items.contains(&90);
            let kept = minimize((0..100).collect(), &mut Trials::new(bound), fails);
            assert!(fails(&kept), "{bound}: {kept:?}");
        }
    }

    #[test]
    fn nothing_is_needed_by_what_always_fails() {
        assert_eq!(
            minimize((0..9).collect::<Vec<i32>>(), &mut Trials::new(100), |_| true),
            Vec::<i32>::new()
        );
    }
}
