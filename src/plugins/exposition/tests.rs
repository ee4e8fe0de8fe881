use super::{
    line::{LABELS_MAX, TEXT_MAX},
    *,
};
use crate::probe::Failure;
use proptest::prelude::*;
use rstest::rstest;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn map(pairs: Pairs<'_>) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The series of one metric.
fn series(body: &str, name: &str, labels: Pairs<'_>, label: Option<&str>) -> Result<Vec<Series>, Failure> {
    let labels = map(labels);
    let wanted = Wanted { name, labels: &labels, distinct_by: &[], label };
    let mut found = read(text(body.as_bytes()), &[wanted]).map_err(|failure| failure.class)?;
    assert_eq!(found.len(), 1);
    Ok(found.remove(0))
}

/// Of the format whose timestamps are milliseconds.
fn text(body: &[u8]) -> Text<'_> {
    Text { body, seconds: false }
}

/// What is known of samples without labels.
fn bare(body: &[u8], most: usize) -> Result<BTreeMap<String, f64>, Failure> {
    unlabelled(text(body), most).map(|found| found.numbers).map_err(|failure| failure.class)
}

fn numbers(body: &str, name: &str, labels: Pairs<'_>) -> Vec<f64> {
    let found = series(body, name, labels, None).unwrap_or_else(|failure| panic!("{body:?}: {failure:?}"));
    found.iter().map(|one| one.number).filter(|number| number.is_finite()).collect()
}

/// Texts and numbers.
fn texts(body: &str, name: &str, label: &str) -> Vec<(Option<String>, f64)> {
    series(body, name, &[], Some(label)).unwrap().into_iter().map(|one| (one.text, one.number)).collect()
}

/// The first example of the format's description, with the comments that it has.
const TEXT: &str = r#"# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf -3982045

# A histogram, which has a pretty complex representation in the text format:
# HELP http_request_duration_seconds A histogram of the request duration.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.05"} 24054
http_request_duration_seconds_bucket{le="+Inf"} 144320
http_request_duration_seconds_sum 53423
http_request_duration_seconds_count 144320
"#;

/// Examples of OpenMetrics' specification.
const OPENMETRICS: &str = r#"# TYPE acme_http_router_request_seconds summary
# UNIT acme_http_router_request_seconds seconds
# HELP acme_http_router_request_seconds Latency though all of ACME's HTTP request router.
acme_http_router_request_seconds_sum{path="/api/v1",method="GET"} 9036.32
acme_http_router_request_seconds_count{path="/api/v1",method="GET"} 807283.0
acme_http_router_request_seconds_created{path="/api/v1",method="GET"} 1605281325.0
# TYPE go_goroutines gauge
go_goroutines 69
# TYPE foo histogram
foo_bucket{le="0.01"} 0
foo_bucket{le="0.1"} 8 # {} 0.054
foo_bucket{le="1"} 11 # {trace_id="KOO5S4vxi0o"} 0.67
foo_bucket{le="10"} 17 # {trace_id="oHg5SJYRHA0"} 9.8 1520879607.789
foo_count 17
# TYPE a counter
a_total 1 1520879607.789 # {trace_id="x\"}"} 1 1
# EOF
"#;

#[rstest]
#[case(TEXT, "http_requests_total", &[], &[1027.0, 3.0])]
#[case(TEXT, "http_requests_total", &[("code", "400")], &[3.0])]
#[case(TEXT, "http_requests_total", &[("code", "400"), ("method", "get")], &[])]
#[case(TEXT, "msdos_file_access_time_seconds", &[("path", "C:\\DIR\\FILE.TXT")], &[1_458_255_915.0])]
#[case(TEXT, "msdos_file_access_time_seconds", &[("error", "Cannot find file:\n\"FILE.TXT\"")], &[1_458_255_915.0])]
#[case(TEXT, "metric_without_timestamp_and_labels", &[], &[12.47])]
#[case(TEXT, "something_weird", &[], &[])]
#[case(TEXT, "http_request_duration_seconds_bucket", &[("le", "+Inf")], &[144_320.0])]
#[case(OPENMETRICS, "acme_http_router_request_seconds_sum", &[("path", "/api/v1")], &[9036.32])]
#[case(OPENMETRICS, "go_goroutines", &[], &[69.0])]
#[case(OPENMETRICS, "foo_bucket", &[], &[0.0, 8.0, 11.0, 17.0])]
#[case(OPENMETRICS, "a_total", &[], &[1.0])]
#[case("a{b=\"1\"} 1\na 2\na{b=\"\",c=\"1\"} 3", "a", &[("b", "")], &[2.0, 3.0])]
#[case("a NaN\na{b=\"1\"} -Inf\na{b=\"2\"} 0", "a", &[], &[0.0])]
#[case("a 1 \r\n\r\n# x\r\nb 2\r\n", "a", &[], &[1.0])]
#[case("\ta { b = \"1\" , } \t 1\t2 ", "a", &[("b", "1")], &[1.0])]
#[case("a{}1", "a", &[], &[1.0])]
#[case("{\"my.metric\", a=\"b\"} 1\n{a=\"b\",\"my.metric\",} 2", "my.metric", &[("a", "b")], &[2.0])]
#[case("{\"a\\\"\\\\\\n\"} 1", "a\"\\\n", &[], &[1.0])]
#[case("a{\"b.c\"=\"d\"} 1", "a", &[("b.c", "d")], &[1.0])]
#[case("a{p=\"C:\\Temp\\x\"} 1", "a", &[("p", "C:\\Temp\\x")], &[1.0])]
#[case("a:b{_c9=\"\u{1f600}\"} 1", "a:b", &[("_c9", "\u{1f600}")], &[1.0])]
#[case("a 1\na 2\na{b=\"\"} 3", "a", &[], &[3.0])]
#[case("a 1\na NaN", "a", &[], &[])]
#[case("a 1e400\nb 1e-400", "a", &[], &[])]
#[case("a 1e400\nb 1e-400", "b", &[], &[0.0])]
#[case("", "a", &[], &[])]
#[case("# HELP a b\n#\n \n# EOF", "a", &[], &[])]
fn samples_are_read(
    #[case] body: &str,
    #[case] name: &str,
    #[case] labels: Pairs<'_>,
    #[case] found: &[f64],
) {
    assert_eq!(numbers(body, name, labels), found, "{body}");
}

#[rstest]
#[case("<!DOCTYPE html>\n<html></html>")]
#[case("\n\n  <html>")]
#[case("{}")]
#[case("{\n  \"a\": 1\n}")]
#[case("{\"a\": 1, \"b\": \"c\"}")]
#[case("[{\"a\": 1}]")]
#[case("\"a\"")]
#[case("12")]
#[case("true")]
#[case("Not Found")]
#[case("404 page not found")]
#[case("2024-01-01 00:00:00 started")]
#[case("body { color: red }")]
#[case("a: \"b\"")]
#[case("a")]
#[case("a{b=\"c\"}")]
#[case("a1")]
#[case("9a 1")]
#[case("a-b 1")]
#[case("a 1,5")]
#[case("a 1_000")]
#[case("a 0x1p3")]
#[case("a 1 2 3")]
#[case("a 1 x")]
#[case("a 1 NaN")]
#[case("a 1 # x")]
#[case("a 1 # {b=\"c\"}")]
#[case("a 1 # {\"b\"} 1")]
#[case("a{b} 1")]
#[case("a{b=c} 1")]
#[case("a{b='c'} 1")]
#[case("a{b=\"c} 1")]
#[case("a{b=\"c\\")]
#[case("a{b=\"c\" d=\"e\"} 1")]
#[case("a{b=\"c\",b=\"d\"} 1")]
#[case("a{,} 1")]
#[case("a{b:c=\"d\"} 1")]
#[case("a{=\"d\"} 1")]
#[case("a{\"\"=\"d\"} 1")]
#[case("a{\"b\"} 1")]
#[case("{\"\"} 1")]
#[case("{\"a\",\"b\"} 1")]
#[case("{b=\"c\"} 1")]
#[case("a{b=\"line\nbreak\"} 1")]
#[case("\u{feff}a 1")]
#[case("fine 1\nfine 2\nodd\nfine 3\n")]
fn one_odd_line_makes_all_invalid(#[case] body: &str) {
    assert_eq!(series(body, "fine", &[], None), Err(Failure::InvalidResponse));
    assert_eq!(bare(body.as_bytes(), 8), Err(Failure::InvalidResponse));
}

#[test]
fn what_is_not_utf8_is_invalid() {
    for body in [&b"a{b=\"\xff\"} 1"[..], b"\x1f\x8b\x08\x00\x00", b"a\xc3 1"] {
        assert_eq!(bare(body, 8), Err(Failure::InvalidResponse));
    }
}

/// The client is Prometheus' own for Python; `tests/fixtures/exposition/make.py` writes both.
#[test]
fn both_formats_of_a_client_say_the_same() {
    let text = include_str!("../../../tests/fixtures/exposition/text.txt");
    let openmetrics = include_str!("../../../tests/fixtures/exposition/openmetrics.txt");
    for (name, label, count) in [
        ("node_cpu_seconds_total", "cpu", 4),
        ("node_cpu_seconds_created", "mode", 2),
        ("odd", "path", 7),
        ("none", "why", 3),
        ("my.load é", "", 1),
        ("hw.temperature", "hw.id", 1),
        ("latency_seconds_bucket", "le", 3),
        ("node_uname_info", "nodename", 1),
        ("power", "power", 2),
    ] {
        let found = series(text, name, &[], Some(label)).unwrap();
        assert_eq!(found.len(), count, "{name}");
        let body = Text { body: openmetrics.as_bytes(), seconds: true };
        let wanted = Wanted { name, labels: &map(&[]), distinct_by: &[], label: Some(label) };
        // As text, which NaN is equal in; milliseconds of the one are seconds of the other.
        assert_eq!(format!("{found:?}"), format!("{:?}", read(body, &[wanted]).unwrap()[0]), "{name}");
    }
    assert_eq!(bare(text.as_bytes(), 99), bare(openmetrics.as_bytes(), 99));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        texts(text, "odd", "path"),
        [
            (some("C:\\new\\\"x\""), 0.0),
            (some("line\nbreak"), 1.0),
            (some("a,b={c} # d"), 2.0),
            (some("日本 😀"), 3.0),
            (None, 4.0),
            (some("\\"), 5.0),
            (some("\\n"), 6.0),
        ]
    );
    assert_eq!(texts(openmetrics, "hw.temperature", "hw.id"), [(some("gpu 0"), 71.5)]);
    assert_eq!(texts(openmetrics, "node_uname_info", "nodename"), [(some("gpu-1.example.com"), 1.0)]);
}

/// cAdvisor 0.49 and Pushgateway 1.11 send the times of their samples, and Telegraf 1.37 those of a device that changed
/// its labels, in any order: an hour-old 31 hid 91.
#[rstest]
#[case::newest_first("t 91 1395070000000\nt 31 1395066363000\n", false, 91.0)]
#[case::newest_last("t 31 1395066363000\nt 91 1395070000000\n", false, 91.0)]
#[case::same_time("t 31 1395066363000\nt 91 1395066363000\n", false, 91.0)]
#[case::of_now("t 91\nt 31 1395066363000\n", false, 91.0)]
#[case::no_times("t 31\nt 91\n", false, 91.0)]
#[case::seconds("t 91 1395070000.5\nt 31 1395070000.25\n# EOF\n", true, 91.0)]
fn of_one_series_the_newest_sample_counts(#[case] body: &str, #[case] seconds: bool, #[case] expected: f64) {
    let body = Text { body: body.as_bytes(), seconds };
    let wanted = Wanted { name: "t", labels: &map(&[]), distinct_by: &[], label: None };
    let found = read(body, &[wanted]).unwrap().remove(0);
    assert_eq!(found.iter().map(|one| one.number).collect::<Vec<_>>(), [expected]);
    assert!(found[0].at.is_none_or(|at| (1.395e9..1.396e9).contains(&at)), "{found:?}");
    assert_eq!(unlabelled(body, 8).unwrap().numbers["t"].to_bits(), expected.to_bits());
}

/// Exporters of client_golang 1.20 (common 0.66) and client_python 0.22 and later write quotes where `allow-utf-8` is
/// asked for, and else what they escape it to.
#[rstest]
#[case::quoted("{\"gpu.temperature\",\"hw.id\"=\"0\"} 71\n", &[71.0])]
#[case::underscores("gpu_temperature{hw_id=\"0\"} 71\n", &[71.0])]
#[case::encoded("U__gpu_2e_temperature{U__hw_2e_id=\"0\"} 71\n", &[71.0])]
#[case::both("gpu_temperature{hw_id=\"0\"} 1\n{\"gpu.temperature\",\"hw.id\"=\"0\"} 71\n", &[71.0])]
#[case::another_label("gpu_temperature{hw_id=\"1\"} 71\n", &[])]
fn a_name_in_utf8_is_found_in_each_of_its_forms(#[case] body: &str, #[case] expected: &[f64]) {
    assert_eq!(numbers(body, "gpu.temperature", &[("hw.id", "0")]), expected);
}

#[test]
fn series_that_agree_in_the_named_labels_are_one_group() {
    let body = "u{UUID=\"a\",pod=\"1\"} 1\nu{UUID=\"a\",pod=\"2\"} 2\nu{UUID=\"b\"} 3\nu 4\nu{pod=\"3\"} 5\n";
    let (labels, by) = (map(&[]), ["UUID".to_owned()]);
    let wanted = Wanted { name: "u", labels: &labels, distinct_by: &by, label: None };
    let found = read(text(body.as_bytes()), &[wanted]).unwrap().remove(0);
    let groups: Vec<u64> = found.iter().map(|one| one.group).collect();
    assert_eq!((groups[0], groups[3]), (groups[1], groups[4]), "an absent label is an empty one");
    assert_eq!(groups.iter().collect::<std::collections::HashSet<_>>().len(), 3);
}

#[rstest]
#[case("<html>", "the answer is a page (HTML or XML), not metrics")]
#[case("{\"a\": 1}", "the answer is JSON, not Prometheus' text format")]
#[case("a 1\n\nodd\nb 2\n", "line 3 of the answer is not in Prometheus' text format")]
fn what_cannot_be_read_is_named(#[case] body: &str, #[case] message: &str) {
    assert_eq!(unlabelled(text(body.as_bytes()), 8).unwrap_err().message(), message);
}

#[test]
fn keys_tell_series_apart_in_every_process() {
    let keys =
        |body: &str| series(body, "a", &[], None).unwrap().into_iter().map(|one| one.key).collect::<Vec<_>>();
    let known = keys("a{b=\"1\",c=\"2\"} 1");
    assert_eq!(known, [0x3c18_2130_a876_647f]);
    assert_eq!(known, keys("a{c=\"2\", d=\"\", \"b\"=\"1\"} 7 8"));
    let different =
        keys("a 1\na{b=\"1\"} 1\na{b=\"c\"} 1\na{bc=\"1\"} 1\na{b=\"1\",c=\"3\"} 1\na{c=\"1\",b=\"2\"} 1");
    assert_eq!(different.iter().collect::<std::collections::HashSet<_>>().len(), 6);
}

#[test]
fn several_are_wanted_at_once() {
    let (all, user) = (map(&[]), map(&[("mode", "user")]));
    let wanted = [("cpu", &all), ("load", &all), ("cpu", &user), ("absent", &all)]
        .map(|(name, labels)| Wanted { name, labels, distinct_by: &[], label: Some("mode") });
    let found =
        read(text(b"cpu{mode=\"user\"} 1\nload 2\nother 3\ncpu{mode=\"idle\"} 4\n"), &wanted).unwrap();
    let numbers = |n: usize| found[n].iter().map(|one| one.number).collect::<Vec<_>>();
    assert_eq!(
        [numbers(0), numbers(1), numbers(2), numbers(3)],
        [vec![1.0, 4.0], vec![2.0], vec![1.0], vec![]]
    );
    assert_eq!(read(text(b"a 1"), &[]), Ok(vec![]));
}

#[test]
fn samples_without_labels_are_the_first_by_name() {
    let names = |body: &str, most| {
        bare(body.as_bytes(), most)
            .unwrap()
            .into_iter()
            .map(|(name, number)| format!("{name}={number}"))
            .collect::<Vec<_>>()
    };
    let lines = ["d 4", "b NaN", "c{x=\"1\"} 9", "c 3", "a 1", "e +Inf", "c{x=\"\"} 5"];
    assert_eq!(names(&lines.join("\n"), 2), ["a=1", "c=5"]);
    assert_eq!(
        names(&lines.map(|line| line.replace('5', "3")).into_iter().rev().collect::<Vec<_>>().join("\n"), 2),
        ["a=1", "c=3"]
    );
    assert_eq!(names(&lines.join("\n"), 9), ["a=1", "c=5", "d=4"]);
    assert_eq!(names("a 1\na NaN\n", 9), Vec::<String>::new());
    assert_eq!(names("a 1", 0), Vec::<String>::new());
}

#[test]
fn bounds_are_named() {
    let large = Err(Failure::ResponseTooLarge);
    let each = |count: usize, make: fn(usize) -> String| (0..count).map(make).collect::<Vec<_>>().concat();
    let lines = |count| each(count, |n| format!("a{{n=\"{n}\"}} 1\n"));
    assert_eq!(numbers(&lines(SERIES_MAX), "a", &[]).len(), SERIES_MAX);
    assert_eq!(series(&lines(SERIES_MAX + 1), "a", &[], None), large);
    assert_eq!(numbers(&lines(SERIES_MAX + 1), "b", &[]), [0.0; 0]);

    let labels = |count| format!("a{{{}}} 1", each(count, |n| format!("l{n}=\"\",")));
    assert_eq!(numbers(&labels(LABELS_MAX), "a", &[]), [1.0]);
    assert_eq!(series(&labels(LABELS_MAX + 1), "a", &[], None), large);

    let long = |length: usize| "é".repeat(length / 2);
    let placed = |place: &str, length: usize| place.replace('?', &long(length));
    for place in ["a{b=\"?\"} 1", "a{\"?\"=\"b\"} 1", "a 1\n{\"?\"} 1"] {
        assert_eq!(numbers(&placed(place, TEXT_MAX), "a", &[]), [1.0]);
        assert_eq!(series(&placed(place, TEXT_MAX + 2), "a", &[], None), large);
    }
    assert_eq!(series(&format!("{} 1", "a".repeat(TEXT_MAX + 1)), "a", &[], None), large);
    assert_eq!(series(&format!("a 1{}", " ".repeat(LINE_MAX)), "a", &[], None), large);
    assert_eq!(
        series(&format!("a 1 <{}", " ".repeat(LINE_MAX)), "a", &[], None),
        Err(Failure::InvalidResponse)
    );

    let texts =
        (0..=KEPT_TEXT_MAX / TEXT_MAX).map(|n| format!("a{{n=\"{n}\",b=\"{}\"}} 1\n", long(TEXT_MAX)));
    let texts: String = texts.collect();
    assert_eq!(series(&texts, "a", &[], Some("b")), large);
    assert!(series(&texts, "a", &[], Some("n")).is_ok());
}

/// Labels that a sample without any lacks only at the last one that is looked at.
fn eight_labels(seed: usize) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = (0..7).map(|n| (format!("l{n}"), String::new())).collect();
    labels.insert("last".to_owned(), seed.to_string());
    labels
}

#[test]
fn the_work_for_one_answer_is_bounded() {
    let labels: Vec<_> = (0..32).map(eight_labels).collect();
    let wanted: Vec<_> =
        labels.iter().map(|labels| Wanted { name: "a", labels, distinct_by: &[], label: None }).collect();
    let start = std::time::Instant::now();
    let class = read(text("a 1\n".repeat(1 << 18).as_bytes()), &wanted).unwrap_err().class;
    assert_eq!(class, Failure::ResponseTooLarge);
    // Some 0.3 s without optimization; a multiple of that is for machines with other work.
    assert!(start.elapsed().as_secs() < 3, "{:?}", start.elapsed());
}

#[test]
fn all_values_of_a_large_metric_are_read() {
    let labels: Vec<_> = (0..32).map(eight_labels).collect();
    let wanted: Vec<_> =
        labels.iter().map(|labels| Wanted { name: "a", labels, distinct_by: &[], label: None }).collect();
    let line = |n: usize| format!("a{{last=\"{}\",cpu=\"{n}\"}} {n}\n", n % 32);
    let found = read(text((0..2000).map(line).collect::<String>().as_bytes()), &wanted).unwrap();
    assert_eq!(found.iter().map(Vec::len).sum::<usize>(), 2000);
    assert_eq!(found[31][1].number.to_bits(), 63_f64.to_bits());
}

#[test]
fn what_is_wanted_twice_is_found_twice() {
    let labels = map(&[("b", "1")]);
    let want = |label| Wanted { name: "a", labels: &labels, distinct_by: &[], label };
    let found = read(text(b"a{b=\"1\"} 2\n"), &[want(None), want(Some("b")), want(None)]).unwrap();
    assert_eq!(found[0], found[2]);
    assert_eq!((found[0][0].text.as_deref(), found[1][0].text.as_deref()), (None, Some("1")));
}

/// Name, labels and number.
type Sample = (String, BTreeMap<String, String>, f64);

/// Any that an exporter may write.
fn sample() -> impl Strategy<Value = Sample> {
    let name = "[a-z_:][a-z0-9_:]{0,3}|[^\\x00]{1,4}";
    let labels = proptest::collection::btree_map("[a-z_][a-z0-9_]{0,3}|.{1,4}", any::<String>(), 0..4);
    (name, labels, -1e300..1e300)
}

/// In quotes, with escapes.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        body in proptest::collection::vec(any::<u8>(), 0..256),
        odd in "[a{}\"=,\\\\ \n\r\t#1é.]{0,64}",
    ) {
        let labels = map(&[("a", "")]);
        for body in [&body[..], odd.as_bytes()] {
            let _ = read(text(body), &[Wanted { name: "a", labels: &labels, distinct_by: &[], label: Some("a") }]);
            let _ = unlabelled(text(body), 2);
        }
    }

    #[test]
    fn what_is_written_is_read(samples in proptest::collection::vec(sample(), 1..6), odd in any::<bool>()) {
        let (comma, end) = if odd { (" , ", "\r\n") } else { (",", "\n") };
        let line = |(name, labels, number): &Sample| {
            let labels = labels.iter().map(|(name, value)| format!("{}={}", quote(name), quote(value)));
            let mut parts: Vec<String> = [quote(name)].into_iter().chain(labels).collect();
            if odd {
                parts.reverse();
            }
            format!("{{{}}} {number:e} 1{end}", parts.join(comma))
        };
        let body = samples.iter().map(line).collect::<Vec<_>>().concat();
        for (name, labels, _) in &samples {
            let filled = |labels: &BTreeMap<String, String>| {
                let mut labels = labels.clone();
                labels.retain(|_, value| !value.is_empty());
                labels
            };
            let same = |other: &&Sample| other.0 == *name && filled(&other.1) == filled(labels);
            let last = samples.iter().rev().find(same).unwrap().2;
            let (label, text) = labels.first_key_value().map_or(("", ""), |(label, text)| (label, text));
            // One in UTF-8 that must be empty must be so in its other forms too, which may be another label here.
            if labels.iter().any(|(name, value)| value.is_empty() && !is_classic(name)) {
                continue;
            }
            let wanted = Wanted { name, labels, distinct_by: &[], label: Some(label) };
            let found = read(self::text(body.as_bytes()), &[wanted]).unwrap().remove(0);
            let right = found.iter().any(|one| one.number.to_bits() == last.to_bits());
            prop_assert!(right, "{:?} of {}", found, body);
            prop_assert!(found.iter().all(|one| one.text.as_deref().unwrap_or_default() == text));
        }
    }
}
