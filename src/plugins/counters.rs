//! Rates of counters: what they stood at in the last answer, and by how much they grew since. Pure; the time is given.

use std::time::{Duration, Instant};

/// Intervals after which counters are compared with nothing: polls fail, but not for long while an agent is well.
const INTERVALS_MAX: u32 = 10;
/// Counters of one plugin on one server; 256 CPUs in eight modes are 2,048.
const COUNTERS_MAX: usize = 8192;

/// What the counters of one plugin on one server stood at when they were last read.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    at: Option<Instant>,
    /// The rates that were found then, by value: an answer that comes too soon after cannot give better ones.
    rates: Vec<(usize, Vec<f64>)>,
    /// Sorted by value and series; 24 bytes each, which a map would double.
    last: Vec<Counter>,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    value: usize,
    series: u64,
    number: f64,
}

impl Counter {
    fn key(&self) -> (usize, u64) {
        (self.value, self.series)
    }
}

/// One answer's counters being compared with those of the last.
pub struct Reading<'a> {
    before: &'a Counters,
    after: Counters,
    /// `None`: nothing to compare with, or too long ago.
    seconds: Option<f64>,
    /// The answer came so soon after the last one that a single step of a counter would be a leap.
    too_soon: bool,
}

impl Counters {
    /// Begins an answer that came at this time, where answers are meant to come at this interval. What is older than a
    /// few of these tells of a time that nobody asks about any more.
    pub fn begin(&self, at: Instant, interval: Duration) -> Reading<'_> {
        let elapsed = self.at.map(|before| at.saturating_duration_since(before));
        let too_soon = elapsed.is_some_and(|elapsed| elapsed < interval / 2);
        let most = interval.saturating_mul(INTERVALS_MAX);
        let seconds = elapsed
            .filter(|elapsed| !elapsed.is_zero() && *elapsed <= most)
            .map(|elapsed| elapsed.as_secs_f64());
        Reading { before: self, after: Self { at: Some(at), ..Self::default() }, seconds, too_soon }
    }
}

impl Reading<'_> {
    /// By how much each series of a value grew a second. Empty if nothing is known yet, and also if any of the series
    /// fell: its program started anew, and what the others grew by is not the whole. A series that was not there
    /// before has no rate yet. More series than can be remembered have none at all.
    pub fn rates(&mut self, value: usize, series: impl Iterator<Item = (u64, f64)>) -> Vec<f64> {
        if self.too_soon {
            let last = self.before.rates.iter().find(|(of, _)| *of == value);
            return last.map(|(_, rates)| rates.clone()).unwrap_or_default();
        }
        let mut rates = Vec::new();
        let mut whole = true;
        for (series, number) in series {
            if self.after.last.len() == COUNTERS_MAX {
                return Vec::new();
            }
            self.after.last.push(Counter { value, series, number });
            let (Some(before), Some(seconds)) = (self.before.number(value, series), self.seconds) else {
                continue;
            };
            if number < before {
                whole = false;
            } else {
                rates.push((number - before) / seconds);
            }
        }
        if !whole {
            rates.clear();
        }
        self.after.rates.push((value, rates.clone()));
        rates
    }

    /// What to compare the next answer with.
    pub fn end(mut self) -> Counters {
        if self.too_soon {
            return self.before.clone();
        }
        self.after.last.sort_unstable_by_key(Counter::key);
        self.after.last.shrink_to_fit();
        self.after
    }
}

impl Counters {
    /// Whether any counter stands elsewhere than it did then. A first reading has moved nothing.
    pub fn moved_since(&self, before: &Self) -> bool {
        let same = |new: &Counter| {
            before.number(new.value, new.series).is_some_and(|old| old.to_bits() == new.number.to_bits())
        };
        before.at.is_some() && !self.last.iter().all(same)
    }

    fn number(&self, value: usize, series: u64) -> Option<f64> {
        let place = self.last.binary_search_by_key(&(value, series), Counter::key).ok()?;
        Some(self.last[place].number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// The rates of one value over answers at these seconds.
    fn rates(answers: &[(u64, &[(u64, f64)])]) -> Vec<Vec<f64>> {
        let start = Instant::now();
        let mut counters = Counters::default();
        answers
            .iter()
            .map(|(second, series)| {
                let mut reading = counters.begin(start + Duration::from_secs(*second), INTERVAL);
                let rates = reading.rates(0, series.iter().copied());
                counters = reading.end();
                rates
            })
            .collect()
    }

    #[test]
    fn a_rate_needs_two_answers_and_is_a_second() {
        assert_eq!(rates(&[(0, &[(1, 100.0)]), (10, &[(1, 150.0)])]), [vec![], vec![5.0]]);
    }

    #[test]
    fn a_counter_that_stands_elsewhere_has_moved() {
        let start = Instant::now();
        let read = |before: &Counters, second: u64, series: &[(u64, f64)]| {
            let mut reading = before.begin(start + Duration::from_secs(second), INTERVAL);
            reading.rates(0, series.iter().copied());
            reading.end()
        };
        let nothing = Counters::default();
        let first = read(&nothing, 0, &[(1, 100.0), (2, 5.0)]);
        assert!(!first.moved_since(&nothing), "there was nothing to move from");
        assert!(!read(&first, 10, &[(2, 5.0), (1, 100.0)]).moved_since(&first));
        assert!(read(&first, 10, &[(1, 101.0), (2, 5.0)]).moved_since(&first));
        assert!(read(&first, 10, &[(1, 0.0), (2, 5.0)]).moved_since(&first), "its program started anew");
        assert!(read(&first, 10, &[(1, 100.0), (2, 5.0), (3, 1.0)]).moved_since(&first), "a new series");
    }

    #[test]
    fn each_series_is_compared_with_itself() {
        let found = rates(&[(0, &[(2, 0.0), (1, 100.0)]), (10, &[(1, 100.0), (2, 20.0)])]);
        assert_eq!(found[1], [0.0, 2.0]);
    }

    #[test]
    fn a_counter_that_fell_gives_no_rate_and_goes_on_from_where_it_is() {
        let found = rates(&[
            (0, &[(1, 100.0), (2, 5.0)]),
            (10, &[(1, 3.0), (2, 15.0)]),
            (20, &[(1, 13.0), (2, 15.0)]),
        ]);
        assert_eq!(found, [vec![], vec![], vec![1.0, 0.0]]);
    }

    #[test]
    fn a_new_series_has_no_rate_yet() {
        assert_eq!(rates(&[(0, &[(1, 0.0)]), (10, &[(1, 10.0), (2, 1e9)])])[1], [1.0]);
    }

    #[test]
    fn figures_of_long_ago_are_compared_with_nothing() {
        assert_eq!(rates(&[(0, &[(1, 0.0)]), (3600, &[(1, 10.0)])])[1], Vec::<f64>::new());
        assert_eq!(rates(&[(5, &[(1, 0.0)]), (5, &[(1, 10.0)])])[1], Vec::<f64>::new(), "no time has passed");
    }

    #[test]
    fn an_answer_that_comes_too_soon_gives_the_rate_of_the_last_one() {
        let found = rates(&[(0, &[(1, 0.0)]), (10, &[(1, 100.0)]), (11, &[(1, 200.0)]), (20, &[(1, 200.0)])]);
        assert_eq!(found, [vec![], vec![10.0], vec![10.0], vec![10.0]], "a leap within a second is none");
    }

    #[test]
    fn long_intervals_have_rates_too() {
        let start = Instant::now();
        let hour = Duration::from_hours(1);
        let none = Counters::default();
        let mut first = none.begin(start, hour);
        first.rates(0, [(1, 0.0)].into_iter());
        let counters = first.end();
        assert_eq!(counters.begin(start + hour, hour).rates(0, [(1, 7200.0)].into_iter()), [2.0]);
    }
}
