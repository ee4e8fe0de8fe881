//! What the schema cannot say about a field, as CEL rules that the API server checks. Each has one message, which
//! says what to write instead; where a value can be wrong in several ways, the message is chosen for the first.

use crate::plugins::version_range::RANGE_PATTERN;
use kube::core::{Message, Rule};

/// 1 to 65535, without leading zeros.
const PORT: &str = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
/// A label of a DNS name; underscores occur in names of machines.
const LABEL: &str = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
const SCHEME: &str = "^(https?://)?";
/// A name or an address, good or not, as far as a port could follow it.
const ANY_HOST: &str = r"([^/:\[\]]+|\[[^\]]*\])";
const DURATION: &str = "^([0-9]{1,5}(ms|s|m|h)){1,3}$";

fn matches(regex: &str) -> String {
    format!("self.matches(r'{regex}')")
}

/// A rule with a fixed message.
fn rule(expression: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule::new(expression).message(Message::Message(message.into()))
}

/// `spec.host`. What passes is what [`super::endpoint::Endpoint::parse`] takes, but for names over 253 characters.
pub fn host() -> Rule {
    const BRACKETED: &str = r"\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]";
    const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    // Printable ASCII but for what ends or confuses a path.
    const PREFIX: &str = r#"(/[!-"$->A-Z^-~]*)?$"#;
    let shape = matches(&format!("{SCHEME}({LABEL}([.]{LABEL})*[.]?|{BRACKETED})(:{PORT})?{PREFIX}"));
    let numeric =
        matches(&format!(r"{SCHEME}([^/:\[\]]*[.])?([0-9]+|0[xX][0-9A-Fa-f]*)[.]?(:[^/]*)?(/.*)?$"));
    let v4 = matches(&format!("{SCHEME}{OCTET}([.]{OCTET}){{3}}(:[^/]*)?(/.*)?$"));
    let bracket =
        "!self.contains('[') || isIP(self.find(r'\\[[^\\]]*\\]').replace('[', '').replace(']', ''))";
    let valid = format!(
        "{shape} && (self.contains('://') || !self.contains('/')) && (!{numeric} || {v4}) && ({bracket})"
    );
    // A colon before two slashes is that of a scheme.
    let port = matches(&format!("{SCHEME}{ANY_HOST}:([^/]|/[^/]|/?$)"));
    let good_port = matches(&format!("{SCHEME}{ANY_HOST}:{PORT}(/.*)?$"));
    let faults = [
        (
            matches("[^!-~]"),
            "host must not contain spaces or letters outside ASCII; write an international name in its xn-- form",
        ),
        (
            "self.contains('@')".into(),
            "host must not contain user information; put credentials into a Secret and name it in secretRef",
        ),
        (
            "self.contains('?') || self.contains('#')".into(),
            "host must not contain a query or a fragment; write host[:port] or http(s)://host[:port][/prefix]",
        ),
        (
            "self.contains('://') && !self.startsWith('http://') && !self.startsWith('https://')".into(),
            "the scheme of host must be http:// or https://",
        ),
        (
            "!self.contains('://') && self.contains('/')".into(),
            "a path prefix in host needs a scheme; write for example http://gpu1.lab:11434/ollama",
        ),
        (
            matches(&format!("{SCHEME}[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(/.*)?$")),
            "an IPv6 address in host must be in brackets; write for example [fd00::1]:11434",
        ),
        (format!("{port} && !{good_port}"), "the port in host must be a number between 1 and 65535"),
        (
            format!("{numeric} && !{v4}"),
            "a host whose last label is a number must be an IPv4 address of four decimal numbers, for example 192.168.1.100",
        ),
        (
            "self.contains('[') || self.contains(']')".into(),
            "brackets in host must hold a whole IPv6 address without a zone; write for example [fd00::1]:11434",
        ),
    ];
    let general = "host must be a name, an IPv4 address or an IPv6 address in brackets, each with an optional :port, or http(s)://host[:port][/prefix]";
    let mut message = format!("'{general}'");
    for (fault, text) in faults.iter().rev() {
        message = format!("{fault} ? '{text}' : ({message})");
    }
    Rule::new(valid).message(Message::Expression(message))
}

/// A duration in one of the fields; `least` and `most` are durations too.
pub fn duration(field: &str, least: &str, most: &str, example: &str) -> Rule {
    rule(
        format!(
            "{} && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')",
            matches(DURATION)
        ),
        format!("{field} must be a duration between {least} and {most}, for example {example}"),
    )
}

/// Two durations of one object, each of which has a rule of its own that speaks first.
pub fn timeout_within_interval() -> Rule {
    let checked = |field: &str| format!("has(self.{field}) && self.{field}.matches(r'{DURATION}')");
    rule(
        format!(
            "!({} && {}) || duration(self.timeout) <= duration(self.interval)",
            checked("interval"),
            checked("timeout")
        ),
        "timeout must not be longer than interval",
    )
    .field_path(".timeout")
}

/// A quantity above 0, written as text or as a whole number.
pub fn quantity(field: &str, examples: &str) -> Rule {
    rule(
        "type(self) == int ? self > 0 : (isQuantity(self) && quantity(self).isGreaterThan(quantity('0')))",
        format!("{field} must be a quantity above 0, for example {examples}"),
    )
}

/// Text for people: any script, but nothing that steers a terminal or the direction of writing.
pub fn plain_text(field: &str) -> Rule {
    rule(
        format!("!{}", matches(r"[\x00-\x1f\x7f-\x{9f}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]")),
        format!("{field} must not contain control characters or line breaks"),
    )
}

/// A name in lowerCamelCase, as keys and values of plugins have.
pub fn camel_case(what: &str, example: &str) -> Rule {
    rule(
        matches("^[a-z][A-Za-z0-9]{0,62}$"),
        format!("{what} must be lowerCamelCase, at most 63 letters and digits, for example {example}"),
    )
}

pub fn object_name() -> Rule {
    rule(
        matches("^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"),
        "name must be the name of an object in this namespace: lower case letters, digits, dots and dashes",
    )
}

pub fn provider_ref() -> Rule {
    let message = "self.backendType == 'Plugin' ? 'backendType Plugin needs providerRef, the FleetPlugin that talks to the host; write providerRef: {name: my-plugin}' : 'providerRef is only for backendType Plugin; remove it, or set backendType: Plugin'";
    Rule::new("(self.backendType == 'Plugin') == has(self.providerRef)")
        .message(Message::Expression(message.into()))
        .field_path(".providerRef")
}

/// Of a map by configKeys.
pub fn config_keys(field: &str, example: &str) -> Rule {
    rule(
        "self.all(key, key.matches('^[a-z][A-Za-z0-9]{0,62}$'))",
        format!(
            "a key of {field} is the configKey of a plugin: lowerCamelCase, at most 63 letters and digits, for example {example}"
        ),
    )
}

pub fn plugin_port_numbers() -> Rule {
    rule(
        "self.all(key, self[key] >= 0 && self[key] <= 65535)",
        "a port in pluginPorts must be between 1 and 65535, or 0 to turn the plugin off on this server",
    )
}

/// What looks like an address in brackets is looked into when the object is judged.
pub fn plugin_host_values() -> Rule {
    let host = format!(r"({LABEL}([.]{LABEL})*[.]?|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])(:{PORT})?");
    rule(
        format!("self.all(key, self[key].matches(r'^{host}$'))"),
        "a value of pluginHosts is a name, an IPv4 address or an IPv6 address in brackets, each with an optional :port, without a scheme or path, for example 192.168.1.60:80",
    )
}

pub fn health_path_backends() -> Rule {
    rule(
        "!has(self.healthPath) || self.backendType in ['VLLM', 'Generic']",
        "healthPath is for backendType VLLM and Generic; remove it, or write one of these as backendType",
    )
    .field_path(".healthPath")
}

pub fn tls_server_name() -> Rule {
    rule(
        matches(&format!("^{LABEL}([.]{LABEL})*$")),
        "tlsServerName must be a DNS name without a port, for example gpu1.lab",
    )
}

pub fn host_header() -> Rule {
    rule(
        matches(&format!(r"^({LABEL}([.]{LABEL})*|\[[0-9A-Fa-f:.]+\])(:{PORT})?$")),
        "hostHeader must be a host name or address with an optional :port, for example localhost or localhost:11434",
    )
}

pub fn end_time() -> Rule {
    const DATE: &str =
        "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))";
    const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9]";
    rule(
        matches(&format!("^[0-9]{{4}}-{DATE}T{TIME}:[0-5][0-9]([.][0-9]{{1,9}})?(Z|[+-]{TIME})$")),
        "endTime must be an RFC 3339 time with a zone, for example 2026-12-01T18:00:00Z",
    )
}

/// The name becomes a part of condition types and of the names of events, which have room for 63 characters of it.
pub fn plugin_name() -> Rule {
    rule(
        "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
        "the name of a FleetPlugin must be at most 63 lower case letters, digits and dashes, without dots",
    )
}

pub fn needs_agent() -> Rule {
    rule(
        "self.type != 'Agent' || has(self.agent)",
        "type Agent needs spec.agent; write at least agent: {defaultPort: 9100, endpoint: /metrics}",
    )
    .field_path(".agent")
}

pub fn needs_version() -> Rule {
    rule(
        "self.type != 'Agent' || has(self.version)",
        "type Agent needs spec.version, a semantic version such as 1.0.0",
    )
    .field_path(".version")
}

pub fn type_is_fixed() -> Rule {
    rule("self == oldSelf", "type cannot be changed; delete the FleetPlugin and create it anew")
}

pub fn semantic_version() -> Rule {
    const NUMBER: &str = "(0|[1-9][0-9]*)";
    const PRE: &str = "(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)";
    const BUILD: &str = "[0-9A-Za-z-]+";
    rule(
        matches(&format!("^{NUMBER}[.]{NUMBER}[.]{NUMBER}(-{PRE}([.]{PRE})*)?([+]{BUILD}([.]{BUILD})*)?$")),
        "version must be a semantic version: three numbers and an optional suffix, for example 1.0.0 or 1.2.0-rc.1",
    )
}

pub fn default_port() -> Rule {
    rule(
        "self >= 1 && self <= 65535",
        "defaultPort must be between 1 and 65535; to turn a plugin off on one server set pluginPorts.<configKey>: 0 there",
    )
}

/// A path as it stands in a request, with or without a query.
pub fn path(field: &str, example: &str) -> Rule {
    rule(
        matches(r#"^/[!-"$-\[\]-~]*$"#),
        format!(
            "{field} must be a path that starts with /, in printable ASCII without spaces, backslashes or a fragment, for example {example}"
        ),
    )
}

pub fn unique_value_names() -> Rule {
    rule(
        "self.all(v, self.filter(w, w.name == v.name).size() == 1)",
        "two values have the same name; names must be unique within a plugin",
    )
}

pub fn version_range(field: &str) -> Rule {
    rule(
        matches(RANGE_PATTERN),
        format!(
            "{field} must be a range of versions as npm writes them, without commas, for example >=0.1 <1 or ^1.2 || 2.x"
        ),
    )
}

pub fn plugin_range_names() -> Rule {
    rule(
        "self.all(name, name.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$') && name.size() <= 253)",
        "a key of dependencies.plugins is the name of a FleetPlugin in this namespace, for example metrics-core",
    )
}

pub fn plugin_ranges() -> Rule {
    rule(
        format!("self.all(name, self[name].matches(r'{RANGE_PATTERN}'))"),
        "a value of dependencies.plugins is a range of versions as npm writes them, without commas, for example >=2 or ^1.2",
    )
}

pub fn one_source() -> Rule {
    rule(
        "(has(self.jsonPaths) ? 1 : 0) + (has(self.metric) ? 1 : 0) + (has(self.expression) ? 1 : 0) == 1",
        "a value needs exactly one of jsonPaths, metric and expression, for example jsonPaths: [$.queue.depth]",
    )
}

pub fn rate_needs_numbers() -> Rule {
    rule(
        "!has(self.rate) || !self.rate || ((!has(self.type) || self.type == 'Integer') && !has(self.expression))",
        "rate is for values of type Integer with jsonPaths or metric; remove it, or write the rate as a value of its own",
    )
    .field_path(".rate")
}

pub fn label_is_for_hostnames() -> Rule {
    rule(
        "!has(self.metric) || has(self.metric.label) == (has(self.type) && self.type == 'Hostname')",
        "metric.label is for values of type Hostname, which need it; the other types take the number of the series",
    )
    .field_path(".metric")
}

pub fn metric_name() -> Rule {
    rule(
        "!self.contains('{') && !self.contains('\"') && !self.contains(' ')",
        "metric.name must be a name without labels or spaces; labels go into metric.labels",
    )
}

pub fn unique_rule_names() -> Rule {
    rule(
        "self.all(v, self.filter(w, w.name == v.name).size() == 1)",
        "two rules have the same name; names must be unique within a plugin",
    )
}

pub fn rule_name() -> Rule {
    rule(
        matches("^[A-Z][A-Za-z0-9]{0,62}$"),
        "the name of a rule must be UpperCamelCase, at most 63 letters and digits, for example QueueLong",
    )
}

pub fn json_path() -> Rule {
    rule("self.all(path, path.startsWith('$'))", "a JSON path starts with $, for example $.temperatures.gpu")
}

pub fn selector_operators() -> Rule {
    rule(
        "!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",
        "an expression of serverSelector needs operator In or NotIn with values, or Exists or DoesNotExist without",
    )
}
