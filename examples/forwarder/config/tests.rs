//! Files, right and wrong.

use std::net::IpAddr;
use std::time::Duration;

use overplane::rate::RateLimit;
use overplane::wire::vxlan::ReservedBits;
use overplane::{DontFragment, Dscp, Ecn, Kind, MacAddr, MssClamp, Ttl, VlanMode, Vni};

use super::parse;
use crate::plan::{Plan, Target, Via};
use crate::report::Format;

const EXAMPLE: &str = include_str!("../forwarder.toml");

#[test]
fn the_example_says_what_its_comments_say() {
    let plan = parse("forwarder.toml", EXAMPLE).unwrap();
    let summary = "4 segments, 6 ports, 3 flood list entries, 1 peer, 4 FDB entries, 7 routes";
    assert_eq!(plan.summary(), summary);
    crate::overlay::rehearse(&plan).unwrap();
    let [red, blue, routed, flannel] = plan.segments.as_slice() else { panic!("four segments") };
    assert_eq!(red.fdb[0].1, Target::Vtep("10.9.0.2:4789".parse().unwrap()));
    assert_eq!(red.fdb[1].1, Target::Port(1));
    assert_eq!((blue.segment.mtu, blue.segment.ageing), (Some(1400), None));
    assert_eq!(routed.segment.kind, Kind::Routed);
    assert_eq!(routed.routes[0].1, Via::One(Target::Port(0)));
    let vtep = |text: &str| Target::Vtep(text.parse().unwrap());
    let shared = Via::Group(vec![(vtep("10.9.0.3:8285"), 1), (vtep("10.9.0.4:8285"), 2)]);
    assert_eq!((&routed.routes[3].1, &routed.routes[4].1), (&shared, &Via::Blackhole));
    let mac = |text: &str| text.parse().unwrap();
    let here = mac("0e:2a:00:00:00:01");
    let kind = Kind::RoutedVxlan { vni: Vni::new(1).unwrap(), mac: here };
    assert_eq!((flannel.segment.kind, flannel.segment.udp_port), (kind, 8472));
    let vtep = "10.9.0.2:8472".parse().unwrap();
    let gateway = flannel.ports[1].options.gateway.as_ref().unwrap();
    assert_eq!((gateway.host, gateway.addresses.len()), (Some(mac("02:00:00:00:00:11")), 2));
    assert_eq!(flannel.vtep_macs, [(vtep, mac("0e:2a:00:00:00:02"))]);
}

/// Whoever uncomments a default changes nothing, so the comments have to be true.
#[test]
fn the_defaults_in_the_example_are_the_defaults() {
    let key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', '#']));
    let without = ["mtu", "second_local", "control", "metrics"];
    let has_default = |line: &str| !without.iter().any(|key| line.starts_with(key));
    let uncomment = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if key(rest) && has_default(rest) || rest.starts_with('[') => {
            format!("{rest}\n")
        }
        _ => format!("{line}\n"),
    };
    let explicit: String = EXAMPLE.lines().map(uncomment).collect();
    assert_ne!(explicit, EXAMPLE);
    let (explicit, default) = (parse("a", &explicit).unwrap(), parse("a", EXAMPLE).unwrap());
    assert_eq!(format!("{explicit:?}"), format!("{default:?}"));
}

#[test]
fn every_option_arrives() {
    let text = r#"
        stats = "json"
        control = "/run/a.sock"
        metrics = { address = "[::1]:9472" }
        dataplane = { local = "fd00::1", second_local = "10.9.0.1", workers = 3, fdb_capacity = 1000, batch = 7, source_ports = 0, source_port_range = "50000-50001", receive_buffer = 10000, send_buffer = 20000, dont_fragment = "inherit", zero_checksums = "send-v6,accept-v6", path_mtu_expiry = 60, probing = { timeout = 2, max_probes = 4, interval = 5, raise = 60, base = 1300 }, follow_host = false, reserved_bits = "strict", offload = "checksum,tso", spin = 20 }
        [[segment]]
        kind = "bridge"
        vni = 0xff
        udp_port = 8472
        mtu = 1300
        too_big_errors = false
        clamp_mss = 1200
        probe = true
        answer_probes = false
        open = true
        learning = false
        ageing = 60
        fdb_limit = 5
        fdb_port_limit = 4
        fdb_evict = false
        ecn = "off"
        dscp = 46
        ttl = "inherit"
        neighbours = { suppress = true, snoop = false, limit = 7, ageing = 9, static = [{ address = "fd08::9", mac = "02:00:00:00:00:09", router = true }] }
        snooping = { enabled = true, flood_unregistered = true, membership_interval = 50, querier_interval = 40, limit = 9, querier = { v4 = "10.8.0.9", v6 = "fe80::9", mac = "02:00:00:00:00:08", interval = 20, response_interval = 5 }, static = [{ group = "239.1.1.1", port = "ovl0" }, { group = "239.1.1.1", vtep = "fd00::2" }], router = [{ vtep = "fd00::2" }] }
        gbp = true
        any_vni = true
        flood = ["ff05::42"]
        peers = ["fd00::2", "[fd00::3]:9", "10.9.0.2"]
        vtep_group = 0
        group_fwd_mask = 0x4000
        storm = { broadcast = 100, multicast = { per_second = 5, burst = 7 }, unknown_unicast = "none" }
        loops = { moves = 3, window = 4, hold = 60 }
        [[segment.vtep]]
        address = "fd00::2"
        group = 31
        [[segment.port]]
        device = "ovl0"
        isolated = true
        group = 3
        storm = { unknown_unicast = 1000 }
        vlan = [7, "4092-4094"]
        pvid = 5
        mac = "02:00:00:00:00:07"
        hairpin = true
        learning = false
        flood_unknown_unicast = false
        flood_multicast = false
        flood_broadcast = false
        fast_leave = true
        multicast_routers = false
    "#;
    let Plan { config, segments, stats, control, metrics, .. } = parse("a", text).unwrap();
    assert_eq!((stats, control), (Format::Json, Some("/run/a.sock".into())));
    assert_eq!(metrics, "[::1]:9472".parse().ok());
    assert_eq!(config.local, "fd00::1".parse::<IpAddr>().unwrap());
    assert_eq!(config.second_local, Some([10, 9, 0, 1].into()));
    assert_eq!((config.workers, config.batch, config.source_ports), (3, 7, 0));
    assert_eq!(config.fdb_capacity, 1000);
    assert_eq!((config.receive_buffer, config.send_buffer), (10_000, 20_000));
    assert_eq!(config.source_port_range, Some(50_000..=50_001));
    assert_eq!(config.dont_fragment, DontFragment::Inherit);
    let unchecked = config.zero_checksums;
    assert!(!unchecked.send_v4 && unchecked.send_v6 && unchecked.accept_v6);
    assert_eq!(config.reserved_bits, ReservedBits::Strict);
    assert_eq!(config.offloads.to_string(), "checksum,tso");
    assert_eq!(config.spin.as_micros(), 20);
    assert_eq!((config.path_mtu_expiry.as_secs(), config.follow_host), (60, false));
    let probing = config.probing;
    let times = [probing.timeout, probing.interval, probing.raise].map(|time| time.as_secs());
    assert_eq!((times, probing.max_probes, probing.base), ([2, 5, 60], 4, 1300));
    let segment = &segments[0].segment;
    assert!(segment.mtu_options.probe && !segment.mtu_options.answer_probes);
    assert_eq!(segment.id().to_string(), "VXLAN 255 on UDP port 8472");
    assert_eq!((segment.mtu, segment.open, segment.learning), (Some(1300), true, false));
    assert!(!segment.mtu_options.too_big_errors);
    assert_eq!(segment.mtu_options.clamp_mss, MssClamp::To(1200));
    assert_eq!((segment.ageing, segment.fdb_limit), (Some(Duration::from_secs(60)), 5));
    assert_eq!((segment.fdb_port_limit, segment.fdb_evict), (Some(4), false));
    let outer = segment.outer;
    assert_eq!((outer.ecn, outer.dscp, outer.ttl), (Ecn::Off, Dscp::Fixed(46), Ttl::Inherit));
    let options = &segment.neighbours;
    assert_eq!((options.suppress, options.snoop, options.limit), (true, false, 7));
    assert_eq!(options.ageing, Some(Duration::from_secs(9)));
    let (address, mac) = ("fd08::9".parse().unwrap(), "02:00:00:00:00:09".parse().unwrap());
    assert_eq!(segments[0].neighbours, [(address, mac, true)]);
    let snooping = &segment.snooping;
    assert!(snooping.enabled && snooping.flood_unregistered && snooping.limit == 9);
    let intervals = [snooping.membership_interval, snooping.querier_interval];
    assert_eq!(intervals.map(|time| time.as_secs()), [50, 40]);
    let querier = snooping.querier.as_ref().unwrap();
    assert_eq!((querier.v4, querier.v6), ("10.8.0.9".parse().ok(), "fe80::9".parse().ok()));
    assert_eq!(querier.mac, "02:00:00:00:00:08".parse().ok());
    let intervals = [querier.interval, querier.response_interval].map(|time| time.as_secs());
    assert_eq!(intervals, [20, 5]);
    let (group, peer) = ("239.1.1.1".parse().ok(), Target::Vtep("[fd00::2]:8472".parse().unwrap()));
    assert_eq!(segments[0].mdb, [(group, Target::Port(0)), (group, peer), (None, peer)]);
    let port = &segments[0].ports[0].options;
    assert!(port.fast_leave && !port.multicast_routers);
    assert!(segment.header.gbp && segment.header.any_vni);
    let peers =
        ["[fd00::2]:8472", "[fd00::3]:9", "10.9.0.2:8472"].map(|peer| peer.parse().unwrap());
    assert_eq!(segments[0].peers, peers);
    assert_eq!(segments[0].flood, ["[ff05::42]:8472".parse().unwrap()]);
    let port = &segments[0].ports[0].options;
    assert_eq!((port.isolated, port.hairpin, port.learning), (true, true, false));
    assert_eq!((port.group, port.mac), (3, Some(MacAddr([2, 0, 0, 0, 0, 7]))));
    let scope = segment.scope;
    let storm = segment.storm;
    assert_eq!(storm.broadcast, Some(RateLimit::new(100)));
    assert_eq!(storm.multicast, Some(RateLimit { per_second: 5, burst: 7 }));
    assert_eq!(storm.unknown_unicast, None);
    assert_eq!(port.storm.unknown_unicast, Some(RateLimit::new(1000)));
    let loops = segment.loops;
    let seconds = [loops.window, loops.hold].map(|time| time.as_secs());
    assert_eq!((loops.moves, seconds), (3, [4, 60]));
    let VlanMode::Only { vlans, pvid } = &port.vlan else { panic!("{:?}", port.vlan) };
    assert_eq!((vlans.iter().collect::<Vec<_>>(), *pvid), (vec![7, 4092, 4093, 4094], Some(5)));
    assert_eq!((scope.vtep_group, scope.group_fwd_mask), (0, 0x4000));
    assert_eq!(segments[0].groups, [(peers[0], 31)]);
    let floods = [port.flood_unknown_unicast, port.flood_multicast, port.flood_broadcast];
    assert_eq!(floods, [false; 3]);
}

/// What a file begins with when only its segments matter; they start on line 3.
const HEAD: &str = "[dataplane]\nlocal = \"10.9.0.1\"\n";

#[test]
fn errors_name_line_key_and_what_is_allowed() {
    let dataplane = "[[segment]]\nkind = \"routed\"\n[dataplane]\n";
    let bridge = format!("{HEAD}[[segment]]\nkind = \"bridge\"\nvni = 42\n");
    let routed = format!("{HEAD}[[segment]]\nkind = \"routed\"\n");
    let port = "[[segment.port]]\ndevice = \"ovl0\"\n";
    let cases = [
        (
            String::new(),
            vec![
                "1: dataplane: missing; allowed: a table with the key local",
                "1: segment: missing; allowed: one [[segment]] or more",
            ],
        ),
        (
            "dataplane = 1\nsegment = 2".into(),
            vec![
                "1: dataplane: 1 is not allowed; allowed: a table",
                "2: segment: 2 is not allowed; allowed: a list of tables, each under [[segment]]",
            ],
        ),
        (
            "segment = []\n[dataplane]\nlocal = \"10.9.0.1\"".into(),
            vec!["1: segment: empty; allowed: one [[segment]] or more"],
        ),
        (
            format!("{bridge}{port}addresses = [\"10.9.0.1/24\"]"),
            vec![
                "8: segment.port.addresses: \"10.9.0.1/24\": 10.9.0.1 is this node's underlay address",
            ],
        ),
        (
            format!(
                "{dataplane}local = \"10.9.0.1\"\nsecond_local = \"10.9.0.2\"\nsource_port_range = \"9-8\"\nzero_checksums = \"send\""
            ),
            vec![
                "5: dataplane.second_local: \"10.9.0.2\" is not allowed; allowed: a unicast address of this node, of the other family than local",
                "6: dataplane.source_port_range: \"9-8\" is not allowed; allowed: \"host\", or FIRST-LAST as in 49152-65535",
                "7: dataplane.zero_checksums: \"send\" is not allowed; allowed: \"none\", or of send-v4, send-v6, accept-v6 those wanted, joined by commas",
            ],
        ),
        (
            dataplane.into(),
            vec!["3: dataplane.local: missing; allowed: a unicast address of this node"],
        ),
        (
            format!("{dataplane}local = \"0.0.0.0\""),
            vec![
                "4: dataplane.local: \"0.0.0.0\" is not allowed; allowed: a unicast address of this node",
            ],
        ),
        (
            format!("{dataplane}local = 10"),
            vec!["4: dataplane.local: 10 is not allowed; allowed: a unicast address of this node"],
        ),
        (
            format!(
                "{dataplane}local = \"10.9.0.1\"\nworkers = 0\nbatch = 1025\nsource_ports = 65\nreceive_buffer = -1\nsend_buffer = 2.5\ndont_fragment = true\nreserved_bits = \"keep\"\nbatches = 1\noffload = \"auto,-tos\"\nspin = 10001"
            ),
            vec![
                "5: dataplane.workers: 0 is not allowed; allowed: 1 to 64",
                "6: dataplane.batch: 1025 is not allowed; allowed: 1 to 1024",
                "7: dataplane.source_ports: 65 is not allowed; allowed: 0 to 64",
                "8: dataplane.receive_buffer: -1 is not allowed; allowed: 4096 to 1073741824",
                "9: dataplane.send_buffer: 2.5 is not allowed; allowed: 4096 to 1073741824",
                "10: dataplane.dont_fragment: true is not allowed; allowed: \"set\", \"unset\" or \"inherit\"",
                "11: dataplane.reserved_bits: \"keep\" is not allowed; allowed: \"ignore\" or \"strict\"",
                "12: dataplane.batches: unknown key; allowed: local, second_local, workers, fdb_capacity, batch, source_ports, source_port_range, receive_buffer, send_buffer, dont_fragment, zero_checksums, path_mtu_expiry, probing, follow_host, reserved_bits, offload, spin",
                "13: dataplane.offload: \"-tos\" is no offload; allowed: auto, off, checksum, tso, uso, coalesce-tcp, coalesce-udp, udp-gso, udp-gro, and each of these with '-' in front after auto",
                "14: dataplane.spin: 10001 is not allowed; allowed: 0 to 10000",
            ],
        ),
        (
            format!("{dataplane}local = \"10.9.0.1\"\noffload = true"),
            vec![
                "5: dataplane.offload: true is not allowed; allowed: \"auto\", \"off\", or names joined by commas",
            ],
        ),
        (
            format!("{HEAD}[[segment]]\nkind = \"tree\""),
            vec![
                "4: segment.kind: \"tree\" is not allowed; allowed: \"bridge\", \"routed\" or \"routed-vxlan\"",
            ],
        ),
        (
            format!("{HEAD}[[segment]]\nvni = 1"),
            vec!["3: segment.kind: missing; allowed: \"bridge\", \"routed\" or \"routed-vxlan\""],
        ),
        (
            format!(
                "{routed}{port}gateway = {{ mac = \"ee\", addresses = [\"::\"], answer_all = 1, name = 2 }}"
            ),
            vec![
                "7: segment.port.gateway.name: unknown key; allowed: mac, addresses, answer_all, host",
                "7: segment.port.gateway.mac: \"ee\" is not allowed; allowed: an individual MAC address as in 02:00:00:00:00:01",
                "7: segment.port.gateway.addresses: \"::\" is not allowed; allowed: an address of one host, as in 169.254.1.1",
                "7: segment.port.gateway.answer_all: 1 is not allowed; allowed: true or false",
            ],
        ),
        (
            format!("{bridge}{port}gateway = {{}}"),
            vec!["8: segment.port.gateway: not allowed in a bridge segment"],
        ),
        (
            format!("{HEAD}[[segment]]\nkind = \"routed-vxlan\"\nvni = 1"),
            vec![
                "3: segment.mac: missing; allowed: an individual MAC address as in 02:00:00:00:00:01",
            ],
        ),
        (
            format!(
                "{HEAD}[[segment]]\nkind = \"routed-vxlan\"\nvni = 1\nmac = \"01:00:00:00:00:01\"\nflood = []\n[[segment.vtep]]\naddress = \"10.9.0.2\"\n[[segment.vtep]]\naddress = \"10.9.0.2\"\nmac = \"02:00:00:00:00:01\""
            ),
            vec![
                "6: segment.mac: \"01:00:00:00:00:01\" is not allowed; allowed: an individual MAC address as in 02:00:00:00:00:01",
                "7: segment.flood: not allowed in a routed segment in VXLAN",
                "8: segment.vtep.mac: missing; allowed: an individual MAC address as in 02:00:00:00:00:01",
                "11: segment.vtep.address: \"10.9.0.2\" is given on line 9 already",
            ],
        ),
        (
            format!(
                "{bridge}neighbours = {{ suppress = false, limit = 65537, ageing = 0, static = [{{ address = \"ff02::1\", mac = \"02:00:00:00:00:01\" }}, {{ address = \"10.8.0.2\", mac = \"02:00:00:00:00:01\" }}] }}"
            ),
            vec![
                "6: segment.neighbours.limit: 65537 is not allowed; allowed: 0 to 65536",
                "6: segment.neighbours.ageing: 0 is not allowed; allowed: 1 to 262144 seconds, or \"never\"",
                "6: segment.neighbours.static.address: \"ff02::1\" is not allowed; allowed: an address of one host, as in 10.8.0.9",
                "6: segment.neighbours.static: of no use unless suppress is true",
            ],
        ),
        (
            format!(
                "{bridge}snooping = {{ limit = 65537, membership_interval = 0, querier = {{ v6 = \"fd00::1\", interval = 255 }}, static = [{{ group = \"224.0.0.5\", vtep = \"10.9.0.2\" }}], router = [{{ }}] }}"
            ),
            vec![
                "6: segment.snooping.membership_interval: 0 is not allowed; allowed: 1 to 262144",
                "6: segment.snooping.limit: 65537 is not allowed; allowed: 0 to 65536",
                "6: segment.snooping.querier.v6: \"fd00::1\" is not allowed; allowed: a link-local address, as in fe80::1",
                "6: segment.snooping.querier.interval: 255 is not allowed; allowed: 2 to 254",
                "6: segment.snooping.static.group: \"224.0.0.5\" is not allowed; allowed: a multicast address as in 239.1.1.1 or ff05::1, not in 224.0.0.0/24 and not ff02::1",
                "6: segment.snooping.router: vtep and port are missing; allowed: one of vtep (a unicast ADDRESS, or ADDRESS:PORT) and port (a device of the segment)",
                "6: segment.snooping.querier: of no use unless enabled is true",
                "6: segment.snooping.static: of no use unless enabled is true",
                "6: segment.snooping.router: of no use unless enabled is true",
            ],
        ),
        (
            format!(
                "{bridge}snooping = {{ enabled = true, querier_interval = 9, querier = {{ }} }}"
            ),
            vec![
                "6: segment.snooping.querier: v4 and v6 are missing; allowed: one of them or both",
                "6: segment.snooping.querier: allowed: response_interval less than interval, and that less than querier_interval",
            ],
        ),
        (
            format!("{HEAD}[[segment]]\nkind = \"bridge\""),
            vec!["3: segment.vni: missing; allowed: 0 to 16777215"],
        ),
        (
            format!("{HEAD}[[segment]]\nkind = \"bridge\"\nvni = 16777216"),
            vec!["5: segment.vni: 16777216 is not allowed; allowed: 0 to 16777215"],
        ),
        (
            format!(
                "{bridge}udp_port = 0\nmtu = 67\nopen = 1\nageing = 0\nfdb_limit = 1048577\nlearning = \"no\""
            ),
            vec![
                "6: segment.udp_port: 0 is not allowed; allowed: 1 to 65535",
                "7: segment.mtu: 67 is not allowed; allowed: 68 to 65535",
                "8: segment.open: 1 is not allowed; allowed: true or false",
                "9: segment.ageing: 0 is not allowed; allowed: 1 to 262144 seconds, or \"never\"",
                "10: segment.fdb_limit: 1048577 is not allowed; allowed: 0 to 1048576",
                "11: segment.learning: \"no\" is not allowed; allowed: true or false",
            ],
        ),
        (
            format!("{bridge}ageing = \"soon\""),
            vec![
                "6: segment.ageing: \"soon\" is not allowed; allowed: 1 to 262144 seconds, or \"never\"",
            ],
        ),
        (
            format!("{routed}vni = 1\nflood = []\nfdb = []"),
            vec![
                "5: segment.vni: not allowed in a routed segment",
                "6: segment.flood: not allowed in a routed segment",
                "7: segment.fdb: not allowed in a routed segment",
            ],
        ),
        (
            format!("{routed}probe = true"),
            vec!["5: segment.probe: not allowed in a routed segment"],
        ),
        (
            format!(
                "{dataplane}local = \"10.9.0.1\"\ndont_fragment = \"unset\"\nprobing = {{ timeout = 0, max_probes = 11, base = 551, wait = 1 }}\n[[segment]]\nkind = \"bridge\"\nvni = 1\nprobe = true"
            ),
            vec![
                "6: dataplane.probing.wait: unknown key; allowed: timeout, max_probes, interval, raise, base",
                "6: dataplane.probing.timeout: 0 is not allowed; allowed: 1 to 60",
                "6: dataplane.probing.max_probes: 11 is not allowed; allowed: 1 to 10",
                "6: dataplane.probing.base: 551 is not allowed; allowed: 552 to 9000",
                "10: segment.probe: true is not allowed where dataplane.dont_fragment is \"unset\"",
            ],
        ),
        (format!("{bridge}route = []"), vec!["6: segment.route: not allowed in a bridge segment"]),
        (
            format!("{routed}colour = 1"),
            vec![
                "5: segment.colour: unknown key; allowed: kind, udp_port, open, ecn, dscp, ttl, peers, port, mtu, too_big_errors, clamp_mss, route",
            ],
        ),
        (
            format!("{bridge}flood = \"10.9.0.2\""),
            vec![
                "6: segment.flood: \"10.9.0.2\" is not allowed; allowed: a list of VTEPs, each an ADDRESS of a node or of a group of nodes, or ADDRESS:PORT",
            ],
        ),
        (
            format!(
                "{bridge}flood = [\n\"10.9.0.2\",\n\"10.9.0.2:4789\",\n\"host\",\n\"fd00::2\",\n\"10.9.0.1\",\n]\npeers = [\"10.9.0.2:8472\"]"
            ),
            vec![
                "8: segment.flood: \"10.9.0.2:4789\" is given on line 7 already",
                "9: segment.flood: \"host\" is not allowed; allowed: an ADDRESS of a node or of a group of nodes, or ADDRESS:PORT",
                "10: segment.flood: [fd00::2]:4789 and this node's underlay address 10.9.0.1 differ in family",
                "11: segment.flood: 10.9.0.1:4789 is this node itself",
                "13: segment.peers: 10.9.0.2:8472: 10.9.0.2 has UDP port 4789 on line 7, and one VTEP has one port in a segment",
            ],
        ),
        (
            format!("{bridge}[[segment]]\nkind = \"bridge\"\nvni = 42"),
            vec![
                "6: segment: VXLAN 42 on UDP port 4789: VXLAN 42 on UDP port 4789 is on line 3; only segments of different VNI share a UDP port",
            ],
        ),
        (
            format!("{bridge}[[segment]]\nkind = \"routed\"\nudp_port = 4789"),
            vec![
                "6: segment: IP in UDP on port 4789: VXLAN 42 on UDP port 4789 is on line 3; only segments of different VNI share a UDP port",
            ],
        ),
        (
            format!("{bridge}port = [{{ device = \"a/b\" }}, {{ name = \"tap0\" }}]"),
            vec![
                "6: segment.port.device: \"a/b\" is not allowed; allowed: 1 to 15 bytes without '/', ':', '%' and spaces",
                "6: segment.port.name: unknown key; allowed: device, addresses, isolated, group, mac, storm, vlan, pvid, hairpin, learning, flood_unknown_unicast, flood_multicast, flood_broadcast, fast_leave, multicast_routers",
                "6: segment.port.device: missing; allowed: 1 to 15 bytes without '/', ':', '%' and spaces",
            ],
        ),
        (
            format!("{bridge}vtep_group = 32\ngroup_fwd_mask = 4"),
            vec![
                "6: segment.vtep_group: 32 is not allowed; allowed: 0 to 31",
                "7: segment.group_fwd_mask: 4 is not allowed; allowed: bits 3 to 15: 0 to 0xfff8",
            ],
        ),
        (
            format!("{bridge}vtep = [{{ address = \"10.9.0.7\" }}, {{ group = 1 }}]"),
            vec![
                "6: segment.vtep.group: missing; allowed: 0 (none) to 31",
                "6: segment.vtep.address: missing; allowed: a unicast ADDRESS, or ADDRESS:PORT",
            ],
        ),
        (
            format!("{bridge}{port}mac = \"03:00:00:00:00:01\""),
            vec![
                "8: segment.port.mac: \"03:00:00:00:00:01\" is not allowed; allowed: an individual MAC address as in 02:00:00:00:00:01",
            ],
        ),
        (
            format!(
                "{bridge}storm = {{ broadcast = 0, multicast = {{ per_second = 1 }} }}\nloops = {{ moves = 251 }}"
            ),
            vec![
                "6: segment.storm.broadcast: 0 is not allowed; allowed: frames a second, 1 to 10000000, or \"none\", or a table with per_second and burst",
                "6: segment.storm.multicast.burst: missing; allowed: 1 to 1000000 frames",
                "7: segment.loops.moves: 251 is not allowed; allowed: 0 to 250",
            ],
        ),
        (
            format!("{bridge}{port}vlan = [0, \"5-4\"]"),
            vec![
                "8: segment.port.vlan: 0 is not allowed; allowed: 1 to 4094, or \"FIRST-LAST\"",
                "8: segment.port.vlan: \"5-4\" is not allowed; allowed: 1 to 4094, or \"FIRST-LAST\"",
            ],
        ),
        (
            format!("{bridge}{port}vlan = \"untagged\"\npvid = 5"),
            vec![
                "6: segment.port: pvid is not allowed here; allowed beside a list of VLANs, or alone",
            ],
        ),
        (
            format!("{bridge}{port}isolated = 1"),
            vec!["8: segment.port.isolated: 1 is not allowed; allowed: true or false"],
        ),
        (
            format!("{routed}[[segment.port]]\ndevice = \"tun0\"\nhairpin = true"),
            vec!["7: segment.port.hairpin: not allowed in a routed segment"],
        ),
        (
            format!("{bridge}{port}[[segment]]\nkind = \"routed\"\n{port}"),
            vec!["11: segment.port.device: \"ovl0\" is given on line 7 already"],
        ),
        (
            format!(
                "{bridge}{port}addresses = [\"10.8.0.1\", \"10.8.0.2/33\", \"10.8.0.3/24\", \"10.8.0.3/16\"]"
            ),
            vec![
                "8: segment.port.addresses: \"10.8.0.1\" is not allowed; allowed: ADDRESS/LENGTH as in 10.8.0.1/24",
                "8: segment.port.addresses: \"10.8.0.2/33\" is not allowed; allowed: ADDRESS/LENGTH as in 10.8.0.1/24",
                "8: segment.port.addresses: \"10.8.0.3/16\" is given on line 8 already",
            ],
        ),
        (
            format!("{bridge}mtu = 1279\n{port}addresses = [\"fd08::1/64\"]"),
            vec![
                "9: segment.port.addresses: \"fd08::1/64\": an IPv6 address needs an MTU of 1280 or more, and segment.mtu is 1279",
            ],
        ),
        (
            format!(
                "{bridge}{port}[[segment.fdb]]\nmac = \"00:00:00:00:00:00\"\nvtep = \"10.9.0.2\"\n[[segment.fdb]]\nmac = \"02:00:00:00:00:01\"\nport = \"ovl1\"\n[[segment.fdb]]\nmac = \"02-00-00-00-00-01\"\n[[segment.fdb]]\nport = \"ovl0\"\nvtep = \"10.9.0.2\""
            ),
            vec![
                "9: segment.fdb.mac: \"00:00:00:00:00:00\" is not allowed; allowed: a MAC address as in 02:00:00:00:00:01, and not zero",
                "13: segment.fdb.port: \"ovl1\" is not allowed; allowed: a device of the segment: \"ovl0\"",
                "14: segment.fdb: vtep and port are missing; allowed: one of vtep (a unicast ADDRESS, or ADDRESS:PORT) and port (a device of the segment)",
                "15: segment.fdb.mac: \"02-00-00-00-00-01\" is given on line 12 already",
                "16: segment.fdb.mac: missing; allowed: a MAC address as in 02:00:00:00:00:01, and not zero",
                "17: segment.fdb.port: not allowed beside vtep; allowed: one of vtep and port",
            ],
        ),
        (
            format!(
                "{routed}[[segment.route]]\nprefix = \"10.7.0.0/33\"\nport = \"tun0\"\n[[segment.route]]\nprefix = \"10.7.2.1/24\"\nvtep = \"10.9.0.2\"\n[[segment.route]]\nprefix = \"10.7.2.0/24\"\nvtep = \"10.9.0.3\"\nmetric = 1"
            ),
            vec![
                "6: segment.route.prefix: \"10.7.0.0/33\" is not allowed; allowed: ADDRESS/LENGTH as in 10.7.2.0/24",
                "7: segment.route.port: \"tun0\" is not allowed; allowed: nothing, as the segment has no port",
                "12: segment.route.prefix: \"10.7.2.0/24\" is given on line 9 already",
                "14: segment.route.metric: unknown key; allowed: prefix, vtep, port, via, type",
            ],
        ),
        (
            format!(
                "{routed}{port}[[segment.route]]\nprefix = \"10.7.1.0/24\"\ntype = \"prohibit\"\n[[segment.route]]\nprefix = \"10.7.2.0/24\"\ntype = \"local\"\nport = \"ovl0\"\n[[segment.route]]\nprefix = \"10.7.3.0/24\"\n[[segment.route]]\nprefix = \"10.7.4.0/24\"\nvia = []\n[[segment.route]]\nprefix = \"10.7.5.0/24\"\nvia = [\n{{ vtep = \"10.9.0.2\", weight = 0 }},\n{{ weight = 2 }},\n{{ port = \"ovl0\", cost = 1 }},\n{{ port = \"ovl0\" }},\n7,\n]"
            ),
            vec![
                "9: segment.route.type: \"prohibit\" is not allowed; allowed: \"blackhole\", \"unreachable\" or \"local\"",
                "12: segment.route.type: too much; allowed: one of vtep, port, via and type",
                "14: segment.route: vtep, port, via and type are missing; allowed: one of vtep (a unicast ADDRESS, or ADDRESS:PORT), port (a device of the segment), via (a list of these) and type",
                "18: segment.route.via: a list is not allowed; allowed: a list of 1 to 256 tables, each with vtep or port, and weight or not",
                "22: segment.route.via.weight: 0 is not allowed; allowed: 1 to 256",
                "23: segment.route.via: vtep and port are missing; allowed: one of vtep (a unicast ADDRESS, or ADDRESS:PORT) and port (a device of the segment)",
                "24: segment.route.via.cost: unknown key; allowed: vtep, port, weight",
                "25: segment.route.via: the same next hop twice; give it the sum of the weights",
                "26: segment.route.via: 7 is not allowed; allowed: a table",
            ],
        ),
        (format!("{bridge}vni = 43"), vec!["6: duplicate key"]),
    ];
    for (text, expected) in cases {
        let found = parse("f.toml", &text).map(|plan| plan.summary()).unwrap_err();
        let expected: Vec<String> = expected.iter().map(|line| format!("f.toml:{line}")).collect();
        assert_eq!(found, expected, "of\n{text}");
    }
}

#[test]
fn broken_syntax_is_reported_with_its_lines_and_nothing_else() {
    let found = parse("f.toml", "[dataplane]\nlocal = \n[[segment]]\nkind = \"bridge\nvni = 1")
        .unwrap_err();
    assert!(found.len() >= 2, "{found:?}");
    assert!(found[0].starts_with("f.toml:2: "), "{found:?}");
    assert!(found.iter().skip(1).any(|line| line.starts_with("f.toml:4: ")), "{found:?}");
    assert!(!found.iter().any(|line| line.contains("missing; allowed")), "{found:?}");
}

/// The keys in a page of the documentation, such as `segment.fdb.mac` with or without a value behind it.
fn documented_keys(page: &str) -> impl Iterator<Item = &str> {
    let spans = page.split('`').skip(1).step_by(2);
    let keys = spans.map(|span| span.split(" = ").next().unwrap_or(span));
    keys.filter(|key| key.starts_with("dataplane.") || key.starts_with("segment."))
}

/// Whether some file with this key has nothing to say against the key itself. What it stands for is not known here, so
/// it gets a value that no key allows.
fn is_known(key: &str) -> bool {
    let (table, rest) = key.split_once('.').unwrap();
    let (list, last) = rest.split_once('.').unwrap_or(("", rest));
    ["bridge", "routed", "routed-vxlan"].iter().any(|kind| {
        let head = format!("[dataplane]\nlocal = \"10.9.0.1\"\n[[segment]]\nkind = \"{kind}\"\n");
        let texts = match (table, list) {
            ("dataplane", _) => vec![format!("dataplane.{rest} = {{}}\n")],
            (_, "") => vec![format!("{head}{last} = {{}}\n")],
            _ => vec![
                format!("{head}[[segment.{list}]]\n{last} = {{}}\n"),
                format!("{head}{list} = {{ {last} = {{}} }}\n"),
            ],
        };
        texts.iter().any(|text| {
            let problems = parse("a", text).err().unwrap_or_default();
            let of_key = |path: &str| format!(" {path}: ");
            let about = |path| problems.iter().filter(move |line| line.contains(&of_key(path)));
            let against =
                |line: &&String| line.contains("unknown key") || line.contains("not allowed in");
            let parent_is_wrong = !list.is_empty()
                && about(&key[..key.len() - last.len() - 1])
                    .any(|line| against(&line) || line.contains("is not allowed"));
            // A kind that there is not makes nothing known.
            let kind_is_wrong = key != "segment.kind" && about("segment.kind").next().is_some();
            key == "segment.kind"
                || !kind_is_wrong && !parent_is_wrong && !about(key).any(|line| against(&line))
        })
    })
}

#[test]
fn the_page_for_those_who_come_from_elsewhere_names_keys_that_exist() {
    let page = include_str!("../../../docs/coming-from.md");
    let mut keys = 0;
    for key in documented_keys(page) {
        assert!(is_known(key), "{key} is no key");
        keys += 1;
    }
    assert!(keys > 20, "{keys} keys");
    for wrong in ["segment.colour", "segment.port.colour", "segment.colour.mac", "dataplane.colour"]
    {
        assert!(!is_known(wrong), "{wrong}");
    }
}

#[test]
fn privileges_that_contradict_each_other_are_refused() {
    let wrong = [
        ("user = \"no body\"", "user: \"no body\" is not allowed; allowed: the name or number"),
        ("keep_user = true\nuser = \"a\"", "user: not allowed beside keep_user = true"),
        ("allow_new_privs = true", "allow_new_privs: true is not allowed: both filters"),
        ("seccomp = 1", "seccomp: 1 is not allowed; allowed: true or false"),
        ("writable = [\"run\"]", "writable: \"run\" is not allowed; allowed: an absolute path"),
        (
            "writable = \"/run\"",
            "writable: \"/run\" is not allowed; allowed: a list of directories",
        ),
        ("root = true", "root: unknown key; allowed: user, keep_user, "),
    ];
    for (keys, expected) in wrong {
        let text = format!("[privileges]\n{keys}\n");
        let problems = parse("f.toml", &text).unwrap_err();
        let line = 1 + keys.lines().count();
        let expected = format!("f.toml:{line}: privileges.{expected}");
        assert!(problems.iter().any(|it| it.starts_with(&expected)), "{expected}: {problems:?}");
    }
}

#[test]
fn captures_that_make_no_sense_are_refused() {
    let wrong = [
        ("file = \"\"", 2, "capture.file: \"\" is not allowed; allowed: the path of a file"),
        ("file = 1", 2, "capture.file: 1 is not allowed; allowed: the path of a file"),
        ("filter = \"vni=1\"", 1, "capture: of no use without the key file"),
        ("snap = 96", 1, "capture: of no use without the key file"),
        ("snap = 0", 2, "capture.snap: 0 is not allowed; allowed: 1 to 65600"),
        ("filter = \"vni=x\"", 2, "capture.filter: vni: \"x\" is not allowed; allowed: 0 to"),
        ("filter = \"fate\"", 2, "capture.filter: \"fate\": expected KEY=VALUE; allowed keys:"),
        ("filter = true", 2, "capture.filter: true is not allowed; allowed: words such as"),
        ("path = \"a\"", 2, "capture.path: unknown key; allowed: file, filter, snap"),
    ];
    for (keys, line, expected) in wrong {
        let problems = parse("f.toml", &format!("[capture]\n{keys}\n")).unwrap_err();
        let expected = format!("f.toml:{line}: {expected}");
        assert!(problems.iter().any(|it| it.starts_with(&expected)), "{expected}: {problems:?}");
    }
}
