//! Command lines, right and wrong.

use clap::CommandFactory;
use overplane::{DontFragment, Dscp, Ecn, Offload, Offloads, Ttl};

use super::*;

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

pub fn plan(line: &str) -> Result<Plan, Failure> {
    match Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command) {
        Ok(Command::Vxlan(vxlan)) => vxlan.plan(),
        Ok(Command::Udp(udp)) => udp.plan(),
        Ok(Command::Flannel(flannel)) => flannel.plan(),
        Ok(_) => Err(Failure::run("no plan")),
        Err(e) => Err(Failure::Usage(e.to_string())),
    }
}

#[test]
fn vxlan_arguments_make_a_bridge_segment() {
    let line = "forwarder vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --remote 10.9.0.3:8472 \
                --dev ovl0 --address 10.8.0.1/24 --mtu 1400 --suppress --snoop --workers 2 --offload auto,-uso --spin 0 \
                --ecn compatibility --dscp inherit --ttl 9 --source-port-range 50000-50009 \
                --dont-fragment inherit --zero-checksums send-v4 --probe";
    let plan = plan(line).unwrap();
    let segment = &plan.segments[0];
    assert_eq!(plan.config.workers, 2);
    assert!(plan.config.spin.is_zero());
    assert_eq!(plan.config.offloads, Offloads::ALL.without(Offload::Uso));
    assert_eq!(segment.segment.id().to_string(), "VXLAN 42 on UDP port 4789");
    assert_eq!(segment.segment.mtu, Some(1400));
    assert!(segment.segment.neighbours.suppress && segment.segment.neighbours.snoop);
    assert!(segment.segment.mtu_options.probe);
    assert!(segment.segment.snooping.enabled);
    let flood = ["10.9.0.2:4789", "10.9.0.3:8472"].map(|vtep| vtep.parse().unwrap());
    assert_eq!(segment.flood, flood);
    assert_eq!(plan.config.source_port_range, Some(50_000..=50_009));
    assert_eq!(plan.config.dont_fragment, DontFragment::Inherit);
    assert!(plan.config.zero_checksums.send_v4 && !plan.config.zero_checksums.accept_v6);
    let outer = segment.segment.outer;
    assert_eq!(outer.ecn, Ecn::Compatibility);
    assert_eq!((outer.dscp, outer.ttl), (Dscp::Inherit, Ttl::Fixed(9)));
    assert_eq!(segment.ports[0].device, "ovl0");
    assert_eq!(segment.ports[0].addresses[0].to_string(), "10.8.0.1/24");
    assert!(segment.segment.addresses.is_empty());
}

#[test]
fn further_devices_have_the_options_of_the_first() {
    let line = "forwarder vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address 10.8.0.1/24 \
                --add-dev tap1 --add-dev tap2 --isolated --port-storm-broadcast 100/7";
    let plan = plan(line).unwrap();
    let ports = &plan.segments[0].ports;
    let names: Vec<&str> = ports.iter().map(|port| port.device.as_str()).collect();
    assert_eq!(names, ["ovl0", "tap1", "tap2"]);
    for port in ports {
        assert!(port.options.isolated && port.options == ports[0].options);
        assert_eq!(port.addresses.is_empty(), port.device != "ovl0");
    }
    crate::overlay::rehearse(&plan).unwrap();
}

#[test]
fn a_group_as_a_remote_makes_the_segment_open() {
    let line = "forwarder vxlan --vni 42 --local 10.9.0.1 --remote 239.1.1.1 --dev ovl0";
    let plan = plan(line).unwrap();
    assert!(plan.segments[0].segment.open);
    assert_eq!(plan.segments[0].flood, ["239.1.1.1:4789".parse().unwrap()]);
}

#[test]
fn udp_arguments_make_a_routed_segment() {
    let line = "forwarder udp --local 10.9.0.1 --dev flannel0 --address 10.7.1.0/16 --route 10.7.2.0/24=10.9.0.2";
    let plan = plan(line).unwrap();
    let segment = &plan.segments[0];
    assert_eq!(segment.segment.id().to_string(), "IP in UDP on port 8285");
    let next_hop = Via::One(Target::Vtep("10.9.0.2:8285".parse().unwrap()));
    assert_eq!(segment.routes, [("10.7.2.0/24".parse().unwrap(), next_hop)]);
}

#[test]
fn flannel_arguments_make_a_routed_segment_in_vxlan() {
    let line = "forwarder flannel --local 10.9.0.1 --dev flannel0 --mac 0e:2a:00:00:00:01 \
                --address 10.244.0.0/16 --lease 10.244.1.0/24=10.9.0.2,0e:2a:00:00:00:02";
    let plan = plan(line).unwrap();
    let segment = &plan.segments[0];
    assert_eq!(segment.segment.id().to_string(), "VXLAN 1 on UDP port 8472");
    let vtep = "10.9.0.2:8472".parse().unwrap();
    let route = ("10.244.1.0/24".parse().unwrap(), Via::One(Target::Vtep(vtep)));
    assert_eq!(segment.routes, [route]);
    assert_eq!(segment.vtep_macs, [(vtep, MacAddr([0x0e, 0x2a, 0, 0, 0, 2]))]);
}

#[test]
fn the_help_names_every_offload() {
    let mut command = Arguments::command();
    let vxlan = command.find_subcommand_mut("vxlan").unwrap();
    let help = vxlan.render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let names: Vec<&str> = Offload::ALL.iter().map(|offload| offload.name()).collect();
    assert!(help.contains(&format!("The names: {}", names.join(", "))), "{help}");
}

#[test]
fn the_page_for_those_who_come_from_elsewhere_names_flags_that_exist() {
    let command = Arguments::command();
    let all = command.get_subcommands().flat_map(|sub| sub.get_arguments());
    let known: Vec<&str> =
        all.chain(command.get_arguments()).filter_map(|arg| arg.get_long()).collect();
    // Of the third column on: what is in the first is the flag of another program.
    let page = include_str!("../../../docs/coming-from.md");
    let cells = page.lines().filter_map(|line| line.split('|').nth(2));
    let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let flags: Vec<&str> = spans.filter_map(|span| span.strip_prefix("--")).collect();
    assert!(flags.len() > 5);
    for flag in flags {
        assert!(known.contains(&flag), "--{flag}");
    }
}

#[test]
fn wrong_arguments_are_refused_with_what_is_allowed() {
    let vxlan = "forwarder vxlan --local 10.9.0.1 --dev ovl0";
    let udp = "forwarder udp --local 10.9.0.1 --dev ovl0 --address 10.7.1.0/16";
    for (line, message) in [
        (format!("{vxlan} --vni 16777216 --remote 10.9.0.2"), "from 0 to 16777215"),
        (format!("{vxlan} --vni 1 --remote fd00::2"), "differ in family"),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.1"),
            "--remote 10.9.0.1: 10.9.0.1:4789 is this node itself",
        ),
        (
            format!("{vxlan} --vni 1 --remote host"),
            "\"host\" is not allowed; allowed: an ADDRESS of a node or of a group of nodes, or ADDRESS:PORT",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --mtu 67"),
            "'--mtu <MTU>': allowed: 68 to 65535",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --workers 0"),
            "'--workers <WORKERS>': allowed: 1 to 64",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --offload tos"),
            "\"tos\" is no offload; allowed: auto, off, checksum, tso",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --dscp 64"),
            "allowed: 0 to 63, or \"inherit\"",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --ttl 0"),
            "allowed: 1 to 255, \"system\" or \"inherit\"",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --probe --dont-fragment unset"),
            "--probe: of no use with --dont-fragment unset; allowed: set or inherit",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --second-local 10.9.0.3"),
            "--second-local: 10.9.0.3 is not allowed; allowed: a unicast address of this node, of the other family",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --peer 239.1.1.1"),
            "allowed: a unicast ADDRESS",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --peer 10.9.0.3 --peer 10.9.0.3:4789"),
            "--peer: 10.9.0.3:4789 is given twice",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --add-dev ovl0"),
            "--add-dev: ovl0 is given twice",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --storm-broadcast 0"),
            "'--storm-broadcast <RATE>': allowed: frames a second, 1 to 10000000, or these and \"/\" and a burst of 1 to 1000000, or \"none\"",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --vlan 7,0"),
            "allowed: \"transparent\", \"untagged\", or VLANs joined by commas, each 1 to 4094, or \"FIRST-LAST\"",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --vlan untagged --pvid 5"),
            "--pvid is not allowed here; allowed beside a list of VLANs, or alone",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --group-fwd-mask 4"),
            "allowed: bits 3 to 15: 0 to 0xfff8",
        ),
        (format!("{vxlan} --vni 1 --remote 10.9.0.2 --neighbours-limit 5"), "--suppress"),
        (format!("{vxlan} --vni 1 --remote 10.9.0.2 --snooping-limit 5"), "--snoop"),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --snoop --querier-interval 5"),
            "<--querier-v4 <ADDRESS>|--querier-v6 <ADDRESS>>",
        ),
        (
            format!(
                "{vxlan} --vni 1 --remote 10.9.0.2 --snoop --querier-v4 10.8.0.1 --querier-interval 9"
            ),
            "--querier-response-interval 10, --querier-interval 9 and --snooping-querier-interval 255 do not go together",
        ),
        (
            format!(
                "{vxlan} --vni 1 --remote 10.9.0.2 --address 10.8.0.1/24 --address 10.8.0.1/16"
            ),
            "--address: 10.8.0.1 is given twice",
        ),
        (
            format!("{vxlan} --vni 1 --remote 10.9.0.2 --address fd08::1/64 --mtu 1279"),
            "--address fd08::1/64: an IPv6 address needs an MTU of 1280 or more, and --mtu is 1279",
        ),
        (format!("{vxlan} --vni 1 --remote 10.9.0.2 --probing-timeout 5"), "--probe"),
        (format!("{udp} --route 10.7.2.0/24"), "allowed: PREFIX=ADDRESS"),
        (format!("{udp} --route 10.7.2.0/33=10.9.0.2"), "is not an IP prefix"),
        (format!("{udp} --route 10.7.2.0/24=10.9.0.2 --route 10.7.2.0/24=10.9.0.3"), "given twice"),
        (
            "forwarder flannel --local 10.9.0.1 --dev a --mac 01:00:00:00:00:01".into(),
            "allowed: an individual MAC address",
        ),
        ("forwarder flannel --lease 10.7.2.0/24=10.9.0.2".into(), "allowed: PREFIX=ADDRESS,MAC"),
        ("forwarder udp --local 0.0.0.0 --dev a".into(), "allowed: a unicast address of this node"),
        ("forwarder udp --local 10.9.0.1 --dev a/b".into(), "1 to 15 bytes"),
    ] {
        let failure = plan(&line).unwrap_err();
        assert!(matches!(failure, Failure::Usage(_)), "{line}");
        assert!(failure.to_string().contains(message), "{line}: {failure}");
    }
}

#[test]
fn an_address_for_metrics_is_read_as_in_files() {
    let read = |address: &str| {
        let line = format!("forwarder run a.toml --metrics {address}");
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.metrics)
    };
    for address in ["127.0.0.1:9472", "[::1]:9472", "0.0.0.0:0"] {
        assert_eq!(read(address).unwrap(), address.parse().ok());
    }
    for wrong in
        ["9472", "localhost:9472", "127.0.0.1", "::1:9472", "239.1.1.1:9472", "127.0.0.1:65536"]
    {
        let refused = read(wrong).unwrap_err().to_string();
        assert!(refused.contains(values::LISTENER), "{refused}");
        let file =
            format!("metrics = {{ address = \"{wrong}\" }}\n[dataplane]\nlocal = \"10.9.0.1\"");
        let problems = crate::config::parse("a", &file).unwrap_err();
        let expected = format!(
            "a:1: metrics.address: {wrong:?} is not allowed; allowed: {}",
            values::LISTENER
        );
        assert!(problems.contains(&expected), "{problems:?}");
    }
    let problems = crate::config::parse("a", "[metrics]\nport = 1").unwrap_err();
    let missing = format!("a:1: metrics.address: missing; allowed: {}", values::LISTENER);
    assert!(problems.contains(&missing), "{problems:?}");
    assert!(
        problems.contains(&"a:2: metrics.port: unknown key; allowed: address".into()),
        "{problems:?}"
    );
}
