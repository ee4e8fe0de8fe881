//! Rates of counters: what they stood at in the last answer, and by how much they grew since. Pure; the time is given.
//!
//! An agent that collects for others answers with what it heard some time ago. Where both samples tell their times, these
//! are what the growth is divided by: cAdvisor looks every 10 to 15 seconds and is asked every 10, and by our clock its
//! steady 2,000 millicores read 1,003 to 3,054.

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
    rates: Vec<(usize, Vec<Rate>)>,
    /// Sorted by value and series; 48 bytes each, which a map would double.
    last: Vec<Counter>,
}

/// One series of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub series: u64,
    /// What its rate is known by.
    pub group: u64,
    /// Not finite: unknown.
    pub number: f64,
    /// When the agent took it, in seconds, where it tells.
    pub at: Option<f64>,
}

/// The growth of one series a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub group: u64,
    /// Not finite: unknown.
    pub number: f64,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    value: usize,
    series: u64,
    number: f64,
    /// NaN where the agent does not tell.
    at: f64,
    /// NaN while there is none.
    rate: f64,
    /// Answers in a row that showed this same sample again.
    again: u32,
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
    /// Longest time between two samples that are compared.
    most: f64,
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
        let after = Self { at: Some(at), ..Self::default() };
        Reading { before: self, after, seconds, most: most.as_secs_f64(), too_soon }
    }
}

impl Reading<'_> {
    /// By how much each series of a value grew a second. Empty if nothing is known yet, and also if any of the series
    /// fell: its program started anew, and what the others grew by is not the whole. A series that was not there
    /// before has no rate yet; one whose number is unknown, or was, has a rate that is unknown. More series than can be
    /// remembered have none at all.
    pub fn rates(&mut self, value: usize, series: impl Iterator<Item = Sample>) -> Vec<Rate> {
        if self.too_soon {
            let last = self.before.rates.iter().find(|(of, _)| *of == value);
            return last.map(|(_, rates)| rates.clone()).unwrap_or_default();
        }
        let mut rates = Vec::new();
        let mut whole = true;
        for Sample { series, group, number, at } in series {
            if self.after.last.len() == COUNTERS_MAX {
                return Vec::new();
            }
            let at = at.unwrap_or(f64::NAN);
            let mut now = Counter { value, series, number, at, rate: f64::NAN, again: 0 };
            if let (Some(before), Some(seconds)) = (self.before.counter(value, series), self.seconds) {
                match step(before, &now, seconds, self.most) {
                    Step::Again => now = Counter { again: before.again.saturating_add(1), ..*before },
                    Step::Fell => whole = false,
                    Step::Rate(rate) => now.rate = rate,
                    Step::Unknown => {}
                }
                // What the agent shows again and again it does not measure any more.
                let stale = now.again > INTERVALS_MAX;
                rates.push(Rate { group, number: if stale { f64::NAN } else { now.rate } });
            }
            self.after.last.push(now);
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

/// What became of a counter.
enum Step {
    /// It is the sample of before: the agent has not looked again.
    Again,
    Fell,
    Rate(f64),
    Unknown,
}

/// By the samples' own times where both have one; by the time between the answers otherwise.
fn step(before: &Counter, now: &Counter, seconds: f64, most: f64) -> Step {
    // NaN where either does not tell.
    let own = now.at - before.at;
    if own == 0.0 {
        return Step::Again;
    }
    let seconds = if own.is_nan() { seconds } else { own };
    // A clock that was set back, or one that leapt.
    if !(seconds > 0.0 && seconds <= most) || !before.number.is_finite() || !now.number.is_finite() {
        Step::Unknown
    } else if now.number < before.number {
        Step::Fell
    } else {
        Step::Rate((now.number - before.number) / seconds)
    }
}

impl Counters {
    /// Whether any counter stands elsewhere than it did then. A first reading has moved nothing.
    pub fn moved_since(&self, before: &Self) -> bool {
        let same = |now: &Counter| {
            let then = before.counter(now.value, now.series);
            then.is_some_and(|then| then.number.to_bits() == now.number.to_bits())
        };
        before.at.is_some() && !self.last.iter().all(same)
    }

    fn counter(&self, value: usize, series: u64) -> Option<&Counter> {
        let place = self.last.binary_search_by_key(&(value, series), Counter::key).ok()?;
        self.last.get(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn sample((series, number): (u64, f64)) -> Sample {
        Sample { series, group: series, number, at: None }
    }

    /// The rates of one value over answers at these seconds.
    fn rates_of(answers: &[(u64, Vec<Sample>)]) -> Vec<Vec<f64>> {
        let start = Instant::now();
        let mut counters = Counters::default();
        answers
            .iter()
            .map(|(second, series)| {
                let mut reading = counters.begin(start + Duration::from_secs(*second), INTERVAL);
                let rates = reading.rates(0, series.iter().copied());
                counters = reading.end();
                rates.into_iter().map(|rate| rate.number).collect()
            })
            .collect()
    }

    /// The same without times of their own.
    fn rates(answers: &[(u64, &[(u64, f64)])]) -> Vec<Vec<f64>> {
        let answers: Vec<_> = answers
            .iter()
            .map(|(second, series)| (*second, series.iter().copied().map(sample).collect()))
            .collect();
        rates_of(&answers)
    }

    /// One series with a number and its time at each answer, ten seconds apart; NaN: no rate, or an unknown one.
    fn timed(samples: &[(f64, f64)]) -> Vec<f64> {
        let answer = |(index, &(number, at)): (usize, &(f64, f64))| {
            (10 * index as u64, vec![Sample { series: 1, group: 1, number, at: Some(at) }])
        };
        let found = rates_of(&samples.iter().enumerate().map(answer).collect::<Vec<_>>());
        found.into_iter().map(|rates| rates.first().copied().unwrap_or(f64::NAN)).collect()
    }

    /// cAdvisor 0.49 looks at its containers every 10 to 15 seconds, and sends the time of each sample. By our clock the
    /// steady 2 seconds a second of this one were 2.6, 0, 2.4 and 3.
    #[test]
    fn a_rate_divides_by_the_time_between_the_samples() {
        let found = timed(&[(0.0, 100.0), (26.0, 113.0), (26.0, 113.0), (50.0, 125.0), (80.0, 140.0)]);
        assert_eq!(found[1..], [2.0; 4]);
    }

    #[rstest]
    #[case::set_back(&[(0.0, 100.0), (10.0, 110.0), (20.0, 60.0), (30.0, 70.0)], &[1.0, f64::NAN, 1.0])]
    #[case::leapt(&[(0.0, 100.0), (10.0, 110.0), (20.0, 4000.0), (30.0, 4010.0)], &[1.0, f64::NAN, 1.0])]
    #[case::still_at_first(&[(5.0, 100.0), (5.0, 100.0), (25.0, 120.0)], &[f64::NAN, 1.0])]
    fn a_clock_that_is_set_makes_no_rate(#[case] samples: &[(f64, f64)], #[case] expected: &[f64]) {
        assert_eq!(format!("{:?}", &timed(samples)[1..]), format!("{expected:?}"));
    }

    #[test]
    fn a_sample_that_is_never_taken_anew_loses_its_rate() {
        let mut samples = vec![(0.0, 100.0), (10.0, 110.0)];
        samples.extend([(10.0, 110.0); 12]);
        let found = timed(&samples);
        assert!(found[1..12].iter().all(|rate| (*rate - 1.0).abs() < f64::EPSILON), "{found:?}");
        assert!(found[13].is_nan(), "{found:?}");
    }

    #[test]
    fn an_unknown_number_has_an_unknown_rate_and_so_has_the_next() {
        let found = rates(&[
            (0, &[(1, 0.0), (2, 0.0)]),
            (10, &[(1, 10.0), (2, f64::NAN)]),
            (20, &[(1, 20.0), (2, 50.0)]),
            (30, &[(1, 30.0), (2, 60.0)]),
        ]);
        let unknown = |rates: &[f64]| rates[0] == 1.0 && rates[1].is_nan();
        assert!(unknown(&found[1]) && unknown(&found[2]), "{found:?}");
        assert_eq!(found[3], [1.0, 1.0]);
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
            reading.rates(0, series.iter().copied().map(sample));
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
        first.rates(0, [(1, 0.0)].into_iter().map(sample));
        let counters = first.end();
        let found = counters.begin(start + hour, hour).rates(0, [(1, 7200.0)].into_iter().map(sample));
        assert_eq!(found, [Rate { group: 1, number: 2.0 }]);
    }
}
