//! What one replica does about each thing that it may find, as tables.

use super::election::*;
use rstest::rstest;
use std::time::Duration;

const TIMING: Timing = Timing { lease: secs(15), deadline: secs(10), retry: secs(2) };
const HOUR: Duration = secs(3600);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn record(holder: &str, duration: Option<i32>, renewed: i64) -> Record {
    Record {
        holder: Some(holder.to_owned()).filter(|holder| !holder.is_empty()),
        duration_seconds: duration,
        acquired: Some(1),
        renewed: Some(renewed),
        transitions: Some(4),
    }
}

fn found(record: &Record) -> Answer {
    Answer::Found(Some((record.clone(), "7".to_owned())))
}

fn candidate() -> Election {
    let mut election = Election::new("me".to_owned(), TIMING);
    election.stand(HOUR);
    assert_eq!(election.next(HOUR, 1), Todo::Ask(Request::Read));
    election
}

/// One that has held the lease since `HOUR`, in version 8.
fn holder() -> Election {
    let mut election = candidate();
    election.answered(Answer::Found(None), HOUR, 0.5);
    assert!(matches!(election.next(HOUR, 1), Todo::Ask(Request::Create(_))));
    election.answered(Answer::Written("8".to_owned()), HOUR + secs(1), 0.5);
    assert_eq!(election.holds_until(), Some(HOUR + secs(10)), "from when it was sent");
    election
}

/// When a candidate that keeps seeing `second` after `first` takes the lease, counted from when it saw `second`.
fn taken_after(first: Option<Option<Record>>, second: Option<Record>) -> Duration {
    let mut election = candidate();
    let mut now = HOUR;
    if let Some(first) = first {
        election.answered(Answer::Found(first.map(|record| (record, "6".to_owned()))), now, 0.0);
        now += secs(2);
        assert_eq!(election.next(now, 2), Todo::Ask(Request::Read));
    }
    let begin = now;
    let answer = Answer::Found(second.map(|record| (record, "7".to_owned())));
    election.answered(answer.clone(), now, 0.0);
    loop {
        match election.next(now, 3) {
            Todo::Wait(until) => now = until,
            Todo::Ask(Request::Read) => election.answered(answer.clone(), now, 0.0),
            Todo::Ask(Request::Create(_) | Request::Update(..)) => return now.saturating_sub(begin),
            Todo::Stop(loss) => panic!("{loss:?}"),
        }
        assert!(now < begin + HOUR, "never");
    }
}

#[rstest]
#[case::held(record("other", Some(15), 9), 15)]
#[case::held_by_one_with_longer_times(record("other", Some(40), 9), 40)]
#[case::held_with_shorter_times(record("other", Some(1), 9), 15)]
#[case::without_a_duration(record("other", None, 9), 15)]
#[case::zero(record("other", Some(0), 9), 15)]
#[case::negative(record("other", Some(-15), 9), 15)]
#[case::the_least_number(record("other", Some(i32::MIN), 9), 15)]
#[case::forever(record("other", Some(i32::MAX), 9), 60)]
#[case::renewed_in_the_far_future(record("other", Some(15), i64::MAX), 15)]
#[case::its_own_name_that_it_never_wrote(record("me", Some(15), 9), 15)]
#[case::released(record("", Some(1), 9), 0)]
#[case::never_held(record("", None, 9), 0)]
#[case::nothing_at_all(Record::default(), 0)]
fn a_lease_that_is_seen_for_the_first_time(#[case] seen: Record, #[case] seconds: u64) {
    assert_eq!(taken_after(None, Some(seen)), secs(seconds));
}

#[rstest]
#[case::deleted(None, 15)]
#[case::emptied_by_hand(Some(record("", Some(15), 9)), 15)]
#[case::released(Some(record("", Some(1), 9)), 0)]
#[case::renewed(Some(record("other", Some(15), 10)), 15)]
#[case::unchanged(Some(record("other", Some(15), 9)), 13)]
fn a_lease_that_was_held_two_seconds_ago(#[case] second: Option<Record>, #[case] seconds: u64) {
    assert_eq!(taken_after(Some(Some(record("other", Some(15), 9))), second), secs(seconds));
}

#[test]
fn an_absent_lease_is_made_at_once() {
    assert_eq!(taken_after(None, None), Duration::ZERO);
}

#[test]
fn whoever_does_not_stand_only_looks() {
    let mut election = Election::new("me".to_owned(), TIMING);
    for look in 0..20 {
        let now = HOUR + secs(2 * look);
        assert_eq!(election.next(now, 1), Todo::Ask(Request::Read));
        election.answered(Answer::Found(None), now, 0.0);
    }
    election.stand(HOUR + secs(39));
    assert_eq!(election.next(HOUR + secs(39), 1), Todo::Ask(Request::Read));
    election.answered(Answer::Found(None), HOUR + secs(39), 0.0);
    assert!(matches!(election.next(HOUR + secs(39), 1), Todo::Ask(Request::Create(_))));
}

#[test]
fn the_record_tells_of_the_change_of_holder_and_of_renewals() {
    let mut election = candidate();
    election.answered(found(&record("", Some(1), 9)), HOUR, 0.0);
    let Todo::Ask(Request::Update(first, version)) = election.next(HOUR, 100) else { panic!("{election:?}") };
    assert_eq!(version, "7");
    let expected = Record {
        holder: Some("me".to_owned()),
        duration_seconds: Some(15),
        acquired: Some(100),
        renewed: Some(100),
        transitions: Some(5),
    };
    assert_eq!(first, expected);
    election.answered(Answer::Written("8".to_owned()), HOUR, 0.0);
    let Todo::Ask(Request::Update(second, version)) = election.next(HOUR + secs(2), 200) else {
        panic!("{election:?}")
    };
    assert_eq!((second, version.as_str()), (Record { renewed: Some(200), ..expected }, "8"));
    // A wall clock that stands still is no reason to look dead.
    election.answered(Answer::Written("9".to_owned()), HOUR + secs(2), 0.0);
    let Todo::Ask(Request::Update(third, _)) = election.next(HOUR + secs(4), 200) else {
        panic!("{election:?}")
    };
    assert_eq!(third.renewed, Some(201));
}

#[rstest]
#[case(Some(-7), Some(1))]
#[case(Some(i32::MAX), Some(i32::MAX))]
#[case(None, Some(1))]
fn absurd_counts_of_transitions_do_no_harm(#[case] seen: Option<i32>, #[case] written: Option<i32>) {
    let mut election = candidate();
    let seen = Record { transitions: seen, ..record("", Some(1), 9) };
    election.answered(found(&seen), HOUR, 0.0);
    let Todo::Ask(Request::Update(record, _)) = election.next(HOUR, 100) else { panic!("{election:?}") };
    assert_eq!(record.transitions, written);
}

#[test]
fn a_holder_stops_at_its_deadline_whatever_the_api_server_does() {
    for answer in [Answer::Failed, Answer::Refused] {
        let mut election = holder();
        let mut now = HOUR + secs(1);
        let mut asked = 0;
        let loss = loop {
            match election.next(now, 5) {
                Todo::Wait(until) => now = until,
                Todo::Ask(_) => {
                    asked += 1;
                    election.answered(answer.clone(), now, 0.5);
                }
                Todo::Stop(loss) => break loss,
            }
        };
        assert_eq!((loss, now), (Loss::Expired, HOUR + secs(10)));
        assert!((3..50).contains(&asked), "{asked}");
        assert_eq!(election.holds_until(), None);
    }
}

#[test]
fn a_holder_that_wakes_up_late_has_lost_before_it_asks() {
    let mut election = holder();
    assert_eq!(election.next(HOUR + secs(10), 5), Todo::Stop(Loss::Expired));
    assert_eq!(election.next(HOUR, 5), Todo::Stop(Loss::Expired), "for good");
}

/// What a holder finds when its renewal was refused.
#[rstest]
#[case::another_holder(Some(record("other", Some(15), 9)), Err("other"))]
#[case::edited(Some(record("me", Some(i32::MAX), 9)), Ok(true))]
#[case::emptied(Some(record("", Some(15), 9)), Ok(true))]
#[case::deleted(None, Ok(false))]
fn a_refused_renewal(#[case] seen: Option<Record>, #[case] expected: Result<bool, &str>) {
    let mut election = holder();
    assert!(matches!(election.next(HOUR + secs(2), 5), Todo::Ask(Request::Update(..))));
    election.answered(Answer::Refused, HOUR + secs(2), 0.5);
    assert!(matches!(election.next(HOUR + secs(2), 5), Todo::Wait(_)), "no tight circle");
    assert_eq!(election.next(HOUR + secs(3), 5), Todo::Ask(Request::Read));
    election.answered(Answer::Found(seen.map(|record| (record, "9".to_owned()))), HOUR + secs(3), 0.5);
    match (election.next(HOUR + secs(3), 5), expected) {
        (Todo::Stop(loss), Err(other)) => assert_eq!(loss, Loss::Taken(other.to_owned())),
        (Todo::Ask(Request::Update(_, version)), Ok(true)) => assert_eq!(version, "9"),
        (Todo::Ask(Request::Create(_)), Ok(false)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_answer_is_recognised_by_the_record() {
    let mut election = holder();
    let Todo::Ask(Request::Update(sent, _)) = election.next(HOUR + secs(2), 5) else {
        panic!("{election:?}")
    };
    election.answered(Answer::Failed, HOUR + secs(7), 0.5);
    assert_eq!(election.holds_until(), Some(HOUR + secs(10)));
    assert_eq!(election.next(HOUR + secs(9), 5), Todo::Ask(Request::Read));
    election.answered(found(&sent), HOUR + secs(9), 0.5);
    assert_eq!(election.holds_until(), Some(HOUR + secs(12)), "from when it was sent");
}

#[test]
fn a_win_that_is_learnt_of_too_late_is_none_yet() {
    let mut election = candidate();
    election.answered(Answer::Found(None), HOUR, 0.5);
    let Todo::Ask(Request::Create(sent)) = election.next(HOUR, 1) else { panic!("{election:?}") };
    election.answered(Answer::Written("8".to_owned()), HOUR + secs(10), 0.5);
    assert_eq!(election.holds_until(), None);
    let Todo::Ask(Request::Update(again, version)) = election.next(HOUR + secs(10), 2) else {
        panic!("{election:?}")
    };
    assert_eq!(version, "8");
    assert_ne!(again, sent);
    election.answered(Answer::Written("9".to_owned()), HOUR + secs(11), 0.5);
    assert_eq!(election.holds_until(), Some(HOUR + secs(20)));
}

#[test]
fn a_release_leaves_what_others_take_at_once() {
    let mut election = holder();
    let Some(Request::Update(record, version)) = election.release(HOUR + secs(1), 9) else {
        panic!("{election:?}")
    };
    assert_eq!((version.as_str(), record.holder.as_deref()), ("8", None));
    assert_eq!(taken_after(Some(Some(self::record("other", Some(15), 9))), Some(record)), Duration::ZERO);
    assert_eq!(candidate().release(HOUR, 9), None);
    assert_eq!(holder().release(HOUR + secs(10), 9), None, "it may be another's by now");
}

#[rstest]
#[case(15, 10, 2, Ok(()))]
#[case(10, 10, 2, Err(TimingError::Deadline))]
#[case(15, 10, 9, Err(TimingError::Retry))]
#[case(15, 12, 10, Ok(()))]
fn times_must_leave_room(
    #[case] lease: u64,
    #[case] deadline: u64,
    #[case] retry: u64,
    #[case] expected: Result<(), TimingError>,
) {
    assert_eq!(Timing::new(secs(lease), secs(deadline), secs(retry)).map(drop), expected);
}
