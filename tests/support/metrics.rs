//! Reading the text that `/metrics` answers.

/// The value of the first series of that name that has all of these labels.
pub fn metric_value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (set, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let has =
            |(label, value): &(&str, &str)| split(set).any(|pair| pair == format!("{label}=\"{value}\""));
        // A timestamp or an exemplar may follow.
        labels.iter().all(has).then(|| value.split(' ').next()?.parse().ok())?
    })
}

/// Number of series of that name.
pub fn series(text: &str, name: &str) -> usize {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines().filter(of_name).count()
}

/// The pairs of a label set; commas inside values do not split.
fn split(set: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    set.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
}

#[test]
fn metric_values_are_found_by_name_and_labels() {
    let text =
        "# HELP up x\nup_total{a=\"1\"} 9\nup{a=\"x,y\",b=\"2\"} 1.5\nup{a=\"3\",b=\"2\"} 0\nplain 7\n";
    assert_eq!(metric_value(text, "up", &[("a", "x,y")]), Some(1.5));
    assert_eq!(metric_value(text, "up", &[("b", "2"), ("a", "3")]), Some(0.0));
    assert_eq!(metric_value(text, "plain", &[]), Some(7.0));
    assert_eq!(metric_value(text, "up", &[("a", "4")]), None);
    assert_eq!(series(text, "up"), 2);
}
