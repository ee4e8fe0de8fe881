//! What the policy says of an address, in every form that it can have. What users may write, and what then is dialled,
//! is in the integration tests.

use super::*;
use rstest::rstest;

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| parse_cidr(text).unwrap()).collect()
}

fn policy(denied: &[&str], allowed: &[&str], only: &[&str]) -> AddressPolicy {
    AddressPolicy {
        denied: networks(denied),
        allowed: networks(allowed),
        only: networks(only),
        ports: Ports::default(),
    }
}

/// The first of these addresses about which the policy says something else.
#[track_caller]
fn assert_all(policy: &AddressPolicy, addresses: &[&str], open: bool) {
    for address in addresses {
        assert_eq!(policy.check(address.parse().unwrap()).is_ok(), open, "{address}");
    }
}

const ORDINARY: [&str; 12] = [
    "192.168.1.100",
    "10.0.0.1",
    "172.16.0.1",
    "203.0.113.7",
    "100.64.0.1",
    "fd00::1",
    "2001:db8::1",
    "::ffff:192.168.1.1",
    "64:ff9b::192.168.1.1",
    "64:ff9b:1::192.168.1.1",
    "2002:c0a8:101::1",
    "fd00::5efe:c0a8:101",
];

const LOOPBACK: [&str; 19] = [
    "127.0.0.1",
    "127.8.8.8",
    "127.255.255.255",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::7f12:3456",
    // In the local prefix of NAT64: at its end, after 48, 56 and 64 bits, and with something in what is left over.
    "64:ff9b:1::7f00:1",
    "64:ff9b:1:7f00:0:100::",
    "64:ff9b:1:7f00:0:100:808:808",
    "64:ff9b:1:7f:0:1:808:808",
    "64:ff9b:1:1:7f:0:100:0",
    "2002:7f00:1::",
    "2001:0:7f00:1:0:0:3f57:fefe",
    "fd00::5efe:127.0.0.1",
    "2002:c0a8:101:0:0:5efe:127.0.0.1",
];

const ALWAYS: [&str; 34] = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "::",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf::1",
    "ff01::1",
    "ff02::1",
    "ff0e::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::100.100.100.200",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:a9fe:a9:fe00::",
    "2002:a9fe:a9fe::",
    "2001:0:c0a8:101:0:0:5601:5601",
    "fd00::200:5efe:a9fe:a9fe",
];

#[test]
fn ordinary_addresses_are_open_and_loopback_is_not() {
    let default = AddressPolicy::default();
    assert_all(&default, &ORDINARY, true);
    assert_all(&default, &LOOPBACK, false);
    assert_all(&default, &ALWAYS, false);
}

#[test]
fn no_flag_opens_what_is_always_denied() {
    let everything = ["0.0.0.0/0", "::/0"];
    let open = policy(&[], &everything, &everything);
    assert_all(&open, &ALWAYS, false);
    assert_all(&open, &LOOPBACK, true);
    assert_all(&open, &ORDINARY, true);
}

#[test]
fn what_is_denied_is_closed_in_every_form() {
    let denied = policy(&["192.168.0.0/16", "fd00:10::/32"], &[], &[]);
    let closed = [
        "192.168.1.1",
        "::ffff:192.168.1.1",
        "::192.168.1.1",
        "64:ff9b::192.168.1.1",
        "64:ff9b:1::192.168.1.1",
        "2002:c0a8:101::1",
        "fd00:10::1",
    ];
    assert_all(&denied, &closed, false);
    assert_all(&denied, &["192.169.0.1", "10.0.0.1", "fd00:11::1"], true);
}

#[test]
fn allowed_networks_reopen_loopback_and_denied_ones_only() {
    let policy = policy(&["10.0.0.0/8"], &["127.0.0.0/8", "10.1.0.0/16"], &[]);
    assert_all(
        &policy,
        &["127.3.2.1", "::ffff:127.0.0.1", "10.1.2.3", "64:ff9b::10.1.2.3", "192.168.1.1"],
        true,
    );
    assert_all(&policy, &["::1", "10.2.0.1", "64:ff9b::10.2.0.1"], false);
}

/// What an address stands for is opened as such: the tunnel around it opens nothing.
#[test]
fn a_form_is_not_opened_by_the_network_of_another() {
    let policy = policy(&["10.0.0.0/8"], &["64:ff9b::/96", "2002::/16"], &[]);
    assert_all(&policy, &["64:ff9b::10.0.0.1", "2002:a00:1::1", "64:ff9b::127.0.0.1"], false);
}

/// Each flag does one thing: the allow-list opens nothing, and what is re-opened still has to be in it.
#[test]
fn an_allow_list_closes_everything_else_and_opens_nothing() {
    let only = policy(&["10.9.0.0/16"], &["127.0.0.0/8", "10.9.9.0/24"], &["10.0.0.0/8", "fd00::/8"]);
    assert_all(&only, &["10.0.0.1", "::ffff:10.0.0.1", "10.9.9.1", "fd00::1"], true);
    assert_all(&only, &["192.168.1.1", "10.9.0.1", "127.0.0.1", "2001:db8::1", "fd00:ec2::254"], false);
    // What is dialled has to be in the list, not what a gateway would make of it.
    assert_all(&only, &["64:ff9b::10.0.0.1", "2002:a00:1::1"], false);
    let both = policy(&[], &["127.0.0.0/8"], &["127.0.0.0/8"]);
    assert_all(&both, &["127.0.0.1"], true);
    assert_all(
        &policy(&[], &[], &["127.0.0.0/8", "169.254.0.0/16"]),
        &["127.0.0.1", "169.254.169.254"],
        false,
    );
}

#[rstest]
#[case("metadata", false)]
#[case("Metadata.Google.Internal.", false)]
#[case("METADATA.GOOGLE.INTERNAL", false)]
#[case("metadata.goog", false)]
#[case("instance-data.ec2.internal", false)]
#[case("metadata.azure.internal", false)]
#[case("localhost", false)]
#[case("LOCALHOST.", false)]
#[case("a.b.localhost", false)]
#[case("gpu1.lab", true)]
#[case("metadata.lab", true)]
#[case("localhost.lab", true)]
#[case("notlocalhost", true)]
fn names_that_lead_to_what_is_denied_are_refused(#[case] name: &str, #[case] open: bool) {
    assert_eq!(AddressPolicy::default().check_name(name).is_ok(), open);
    // With loopback open its names are; those of metadata services never are.
    for loopback in ["127.0.0.0/8", "::1/128"] {
        let opened = policy(&[], &[loopback], &[]).check_name(name).is_ok();
        assert_eq!(opened, open || name.to_lowercase().contains("localhost"), "{loopback}");
    }
}

#[rstest]
#[case("192.168.1.1:22", AddressNotAllowed::Port)]
#[case("gpu1.lab:2379", AddressNotAllowed::Port)]
#[case("https://gpu1.lab:10250", AddressNotAllowed::Port)]
#[case("[fd00::1]:6443", AddressNotAllowed::Port)]
// The address comes first: which port would be open on it is nobody's business.
#[case("127.0.0.1:22", AddressNotAllowed::Address)]
fn an_endpoint_needs_an_open_port_too(#[case] host: &str, #[case] refused: AddressNotAllowed) {
    assert_eq!(AddressPolicy::default().check_endpoint(&Endpoint::parse(host).unwrap()), Err(refused));
}

#[test]
fn a_change_is_told_and_no_change_is_not() {
    let shared = SharedPolicy::new(AddressPolicy::default());
    let mut changes = shared.changes();
    assert!(!shared.set(AddressPolicy::default()) && !changes.has_changed().unwrap());
    assert!(shared.set(AddressPolicy::default().denying(networks(&["10.0.0.0/8"]))));
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    assert_all(&shared.get(), &["10.0.0.1"], false);
}
