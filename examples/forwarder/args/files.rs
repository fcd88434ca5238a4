//! Flags beside the keys of files: that both say the same, and that none is missing.

use std::collections::BTreeSet;

use clap::{Arg, CommandFactory};

use super::Arguments;
use super::tests::plan;
use crate::config;

/// Keys with their values, and the flags that say the same.
const SAME: &[(&[(&str, &str)], &str)] = &[
    (&[("dataplane.second_local", r#""fd00::1""#)], "--second-local fd00::1"),
    (&[("dataplane.workers", "3")], "--workers 3"),
    (&[("dataplane.fdb_capacity", "1000")], "--fdb-capacity 1000"),
    (&[("dataplane.batch", "7")], "--batch 7"),
    (&[("dataplane.source_ports", "0")], "--source-ports 0"),
    (&[("dataplane.source_port_range", r#""5-9""#)], "--source-port-range 5-9"),
    (&[("dataplane.receive_buffer", "10000")], "--receive-buffer 10000"),
    (&[("dataplane.send_buffer", "0x2000")], "--send-buffer 0x2000"),
    (&[("dataplane.dont_fragment", r#""unset""#)], "--dont-fragment unset"),
    (&[("dataplane.zero_checksums", r#""send-v4""#)], "--zero-checksums send-v4"),
    (&[("dataplane.path_mtu_expiry", "60")], "--path-mtu-expiry 60"),
    (&[("dataplane.follow_host", "false")], "--no-follow-host"),
    (&[("dataplane.reserved_bits", r#""strict""#)], "--reserved-bits strict"),
    (&[("dataplane.offload", r#""auto,-uso""#)], "--offload auto,-uso"),
    (&[("dataplane.spin", "0")], "--spin 0"),
    (&[("privileges.user", r#""overplane""#)], "--user overplane"),
    (&[("privileges.keep_user", "true")], "--keep-user"),
    (&[("privileges.keep_capabilities", "true")], "--keep-capabilities"),
    (&[("privileges.seccomp", "false")], "--no-seccomp"),
    (&[("privileges.landlock", "false")], "--no-landlock"),
    (
        &[
            ("privileges.seccomp", "false"),
            ("privileges.landlock", "false"),
            ("privileges.allow_new_privs", "true"),
        ],
        "--no-seccomp --no-landlock --allow-new-privs",
    ),
    (&[("privileges.writable", r#"["/run/a", "/var/b"]"#)], "--writable /run/a --writable /var/b"),
    (&[FILE], "--capture a.pcapng"),
    (
        &[FILE, ("capture.filter", r#""fate=dropped,vni=7""#)],
        "--capture a.pcapng --capture-filter fate=dropped,vni=7",
    ),
    (&[FILE, ("capture.snap", "96")], "--capture a.pcapng --capture-snap 96"),
    (&[PROBE, ("dataplane.probing.timeout", "2")], "--probe --probing-timeout 2"),
    (&[PROBE, ("dataplane.probing.max_probes", "4")], "--probe --probing-max-probes 4"),
    (&[PROBE, ("dataplane.probing.interval", "5")], "--probe --probing-interval 5"),
    (&[PROBE, ("dataplane.probing.raise", "60")], "--probe --probing-raise 60"),
    (&[PROBE, ("dataplane.probing.base", "1300")], "--probe --probing-base 1300"),
    (&[("segment.udp_port", "4790")], "--port 4790"),
    (&[("segment.mtu", "1300")], "--mtu 1300"),
    (&[("segment.too_big_errors", "false")], "--no-too-big-errors"),
    (&[("segment.clamp_mss", r#""mtu""#)], "--clamp-mss mtu"),
    (&[("segment.clamp_mss", "1200")], "--clamp-mss 1200"),
    (&[PROBE], "--probe"),
    (&[("segment.answer_probes", "false")], "--no-answer-probes"),
    (&[("segment.open", "true")], "--open"),
    (&[("segment.ecn", r#""off""#)], "--ecn off"),
    (&[("segment.dscp", "46")], "--dscp 46"),
    (&[("segment.ttl", r#""inherit""#)], "--ttl inherit"),
    (&[("segment.peers", r#"["10.9.0.3", "10.9.0.4:9"]"#)], "--peer 10.9.0.3 --peer 10.9.0.4:9"),
    (&[("segment.learning", "false")], "--no-learning"),
    (&[("segment.ageing", "60")], "--ageing 60"),
    (&[("segment.ageing", r#""never""#)], "--ageing never"),
    (&[("segment.fdb_limit", "5")], "--fdb-limit 5"),
    (&[("segment.fdb_port_limit", "4")], "--fdb-port-limit 4"),
    (&[("segment.fdb_evict", "false")], "--no-fdb-evict"),
    (&[("segment.vtep_group", "0")], "--vtep-group 0"),
    (&[("segment.group_fwd_mask", "0x4000")], "--group-fwd-mask 0x4000"),
    (&[("segment.storm.broadcast", "100")], "--storm-broadcast 100"),
    (&[("segment.storm.multicast", "{ per_second = 5, burst = 7 }")], "--storm-multicast 5/7"),
    (&[("segment.storm.unknown_unicast", "9")], "--storm-unknown-unicast 9"),
    (&[("segment.loops.moves", "0")], "--loops-moves 0"),
    (&[("segment.loops.window", "4")], "--loops-window 4"),
    (&[("segment.loops.hold", "60")], "--loops-hold 60"),
    (&[("segment.gbp", "true")], "--gbp"),
    (&[("segment.any_vni", "true")], "--any-vni"),
    (&[SUPPRESS], "--suppress"),
    (&[SUPPRESS, ("segment.neighbours.limit", "7")], "--suppress --neighbours-limit 7"),
    (&[SUPPRESS, ("segment.neighbours.ageing", "9")], "--suppress --neighbours-ageing 9"),
    (&[SNOOP], "--snoop"),
    (
        &[SNOOP, ("segment.snooping.flood_unregistered", "true")],
        "--snoop --snooping-flood-unregistered",
    ),
    (
        &[SNOOP, ("segment.snooping.membership_interval", "50")],
        "--snoop --snooping-membership-interval 50",
    ),
    (
        &[SNOOP, ("segment.snooping.querier_interval", "40")],
        "--snoop --snooping-querier-interval 40",
    ),
    (&[SNOOP, ("segment.snooping.limit", "9")], "--snoop --snooping-limit 9"),
    (&[SNOOP, QUERIER], "--snoop --querier-v4 10.8.0.9"),
    (&[SNOOP, ("segment.snooping.querier.v6", r#""fe80::9""#)], "--snoop --querier-v6 fe80::9"),
    (
        &[SNOOP, QUERIER, ("segment.snooping.querier.mac", r#""02:00:00:00:00:08""#)],
        "--snoop --querier-v4 10.8.0.9 --querier-mac 02:00:00:00:00:08",
    ),
    (
        &[SNOOP, QUERIER, ("segment.snooping.querier.interval", "20")],
        "--snoop --querier-v4 10.8.0.9 --querier-interval 20",
    ),
    (
        &[SNOOP, QUERIER, ("segment.snooping.querier.response_interval", "5")],
        "--snoop --querier-v4 10.8.0.9 --querier-response-interval 5",
    ),
    (
        &[("segment.port.addresses", r#"["10.8.0.1/16", "fd08::1/64"]"#)],
        "--address 10.8.0.1/16 --address fd08::1/64",
    ),
    (&[("segment.port.isolated", "true")], "--isolated"),
    (&[("segment.port.group", "3")], "--port-group 3"),
    (&[("segment.port.storm.broadcast", "100")], "--port-storm-broadcast 100"),
    (&[("segment.port.storm.multicast", "101")], "--port-storm-multicast 101"),
    (&[("segment.port.storm.unknown_unicast", "102")], "--port-storm-unknown-unicast 102"),
    (&[("segment.port.vlan", r#""untagged""#)], "--vlan untagged"),
    (
        &[("segment.port.vlan", r#"[7, "4092-4094"]"#), ("segment.port.pvid", "5")],
        "--vlan 7,4092-4094 --pvid 5",
    ),
    (&[("segment.port.pvid", "5")], "--pvid 5"),
    (&[("segment.port.hairpin", "true")], "--hairpin"),
    (&[("segment.port.learning", "false")], "--no-port-learning"),
    (&[("segment.port.flood_unknown_unicast", "false")], "--no-flood-unknown-unicast"),
    (&[("segment.port.flood_multicast", "false")], "--no-flood-multicast"),
    (&[("segment.port.flood_broadcast", "false")], "--no-flood-broadcast"),
    (&[("segment.port.fast_leave", "true")], "--fast-leave"),
    (&[("segment.port.multicast_routers", "false")], "--no-multicast-routers"),
];

const FILE: (&str, &str) = ("capture.file", r#""a.pcapng""#);
const PROBE: (&str, &str) = ("segment.probe", "true");
const SUPPRESS: (&str, &str) = ("segment.neighbours.suppress", "true");
const SNOOP: (&str, &str) = ("segment.snooping.enabled", "true");
const QUERIER: (&str, &str) = ("segment.snooping.querier.v4", r#""10.8.0.9""#);

/// An overlay as a command line and as a file, which has no options yet.
struct Overlay {
    line: &'static str,
    segment: &'static str,
    /// Under `[[segment.port]]`.
    port: &'static str,
}

const VXLAN: Overlay = Overlay {
    line: "forwarder vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2:4789 --dev ovl0",
    segment: "kind = \"bridge\"\nvni = 42\nflood = [\"10.9.0.2:4789\"]\n",
    port: "device = \"ovl0\"\n",
};

const UDP: Overlay = Overlay {
    line: "forwarder udp --local 10.9.0.1 --route 10.7.2.0/24=10.9.0.2:8285 --dev ovl0 --address 10.7.1.0/16",
    segment: "kind = \"routed\"\nroute = [{ prefix = \"10.7.2.0/24\", vtep = \"10.9.0.2:8285\" }]\n",
    port: "device = \"ovl0\"\n",
};

const FLANNEL: Overlay = Overlay {
    line: "forwarder flannel --local 10.9.0.1 --mac 0e:2a:00:00:00:01 --dev ovl0 --address 10.7.1.0/16 \
           --lease 10.7.2.0/24=10.9.0.2:8472,0e:2a:00:00:00:02",
    segment: "kind = \"routed-vxlan\"\nvni = 1\nmac = \"0e:2a:00:00:00:01\"\n\
              route = [{ prefix = \"10.7.2.0/24\", vtep = \"10.9.0.2:8472\" }]\n\
              vtep = [{ address = \"10.9.0.2:8472\", mac = \"0e:2a:00:00:00:02\" }]\n",
    port: "device = \"ovl0\"\n",
};

impl Overlay {
    fn arguments(&self) -> Vec<Arg> {
        let command = Arguments::command();
        let name = self.line.split(' ').nth(1).unwrap();
        command.find_subcommand(name).unwrap().get_arguments().cloned().collect()
    }

    fn has(&self, flags: &str) -> bool {
        let known = self.arguments();
        let is_known =
            |flag: &str| known.iter().any(|arg| arg.get_long() == flag.strip_prefix("--"));
        flags.split(' ').filter(|word| word.starts_with("--")).all(is_known)
    }

    fn file(&self, keys: &[(&str, &str)]) -> String {
        let under = |table: &str, not: &str| -> String {
            let own =
                keys.iter().filter_map(|(key, value)| Some((key.strip_prefix(table)?, value)));
            let own = own.filter(|(key, _)| not.is_empty() || !key.starts_with(not));
            own.map(|(key, value)| format!("{key} = {value}\n")).collect()
        };
        let mut port = self.port.to_owned() + &under("segment.port.", "");
        if !self.line.contains("vxlan") && !port.contains("addresses") {
            port.push_str("addresses = [\"10.7.1.0/16\"]\n");
        }
        let (privileges, dataplane) = (under("privileges.", ""), under("dataplane.", ""));
        let capture = under("capture.", "");
        let segment = under("segment.", "port.");
        format!(
            "[privileges]\n{privileges}[capture]\n{capture}[dataplane]\nlocal = \"10.9.0.1\"\n{dataplane}[[segment]]\n{}{segment}[[segment.port]]\n{port}",
            self.segment
        )
    }
}

#[test]
fn a_flag_says_what_its_key_says() {
    for overlay in [VXLAN, UDP, FLANNEL] {
        let mut same = 0;
        let plain = format!("{:?}", plan(overlay.line).unwrap());
        assert_eq!(plain, format!("{:?}", config::parse("a", &overlay.file(&[])).unwrap()));
        // What a routed overlay needs is there already, and once is enough.
        let wanted = |flags: &str| overlay.line.contains("vxlan") || !flags.contains("--address");
        for (keys, flags) in SAME.iter().filter(|(_, it)| overlay.has(it) && wanted(it)) {
            let line = format!("{} {flags}", overlay.line);
            let flagged = plan(&line).unwrap_or_else(|failure| panic!("{line}: {failure}"));
            let file = overlay.file(keys);
            let filed = config::parse("a", &file).unwrap_or_else(|why| panic!("{file}: {why:?}"));
            assert_eq!(format!("{flagged:?}"), format!("{filed:?}"), "{line}");
            assert_ne!(format!("{flagged:?}"), plain, "{line} says nothing");
            same += 1;
        }
        assert!(same > 20, "{same}");
    }
}

/// The keys that these tables can have, as the reader itself lists them.
fn keys(overlay: &Overlay, tables: &[&str]) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for table in tables {
        let file = overlay.file(&[(&format!("{table}.colour"), "1")]);
        let problems = config::parse("a", &file).unwrap_err();
        let list = problems.iter().find_map(|line| line.split_once("unknown key; allowed: "));
        let (_, list) = list.unwrap_or_else(|| panic!("{table}: {problems:?}"));
        keys.extend(list.split(", ").map(|key| format!("{table}.{key}")));
    }
    keys.retain(|key| !tables.contains(&key.as_str()));
    keys
}

#[test]
fn every_key_has_a_flag_or_is_named_as_one_of_files() {
    let dataplane = ["privileges", "capture", "dataplane", "dataplane.probing"];
    let common = ["segment", "segment.port"];
    let bridge = [
        "segment.storm",
        "segment.loops",
        "segment.neighbours",
        "segment.snooping",
        "segment.snooping.querier",
        "segment.port.storm",
    ];
    let bridge = keys(&VXLAN, &[&dataplane[..], &common, &bridge].concat());
    let routed = &keys(&UDP, &common) | &keys(&FLANNEL, &common);
    // What a line has to say anyhow.
    let needed = "dataplane.local segment.kind segment.vni segment.flood segment.port.device";
    let needed_routed =
        "segment.kind segment.vni segment.mac segment.route segment.vtep segment.port.device";
    for (overlay, keys, needed, in_files) in [
        (VXLAN, bridge, needed, super::IN_FILES),
        (FLANNEL, routed, needed_routed, super::IN_FILES_ROUTED),
    ] {
        let same = SAME.iter().filter(|(_, flags)| overlay.has(flags));
        let flagged: BTreeSet<&str> = same
            .flat_map(|(keys, _)| keys.iter().map(|(key, _)| *key))
            .chain(needed.split(' '))
            .collect();
        for key in needed.split(' ') {
            assert!(keys.contains(key), "{key} is no key");
        }
        for key in keys.iter().filter(|key| !flagged.contains(key.as_str())) {
            let name = key.strip_prefix("segment.").unwrap_or(key);
            let name = name.strip_prefix("port.").unwrap_or(name);
            let named = |end: char| in_files.contains(&format!("{name}{end}"));
            assert!([',', ')', ' '].into_iter().any(named), "{key} has no flag");
        }
    }
}

#[test]
fn every_flag_is_compared_with_its_key() {
    let apart = ["vni", "local", "remote", "dev", "add-dev", "route", "lease", "mac", "help"];
    let compared: BTreeSet<&str> = SAME
        .iter()
        .flat_map(|(_, flags)| flags.split(' '))
        .filter_map(|word| word.strip_prefix("--"))
        .collect();
    for overlay in [VXLAN, UDP, FLANNEL] {
        for arg in overlay.arguments().iter().filter_map(Arg::get_long) {
            assert!(compared.contains(arg) || apart.contains(&arg), "--{arg}");
        }
    }
}

#[test]
fn the_defaults_in_the_help_are_the_defaults() {
    let mut stated = 0;
    for overlay in [VXLAN, FLANNEL] {
        for arg in overlay.arguments() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let default = help.split("[default: ").nth(1).and_then(|rest| rest.strip_suffix(']'));
            let (Some(default), Some(flag)) = (default, arg.get_long()) else { continue };
            if default.contains(' ') || flag == "second-local" {
                continue;
            }
            // With what the flag is of no use without, in both.
            let with = SAME.iter().map(|(_, flags)| *flags);
            let with = with.filter_map(|flags| flags.split_once(&format!("--{flag} ")));
            let with = with.map(|(with, _)| with.trim()).next().unwrap();
            let with = if with.starts_with("--") { format!(" {with}") } else { String::new() };
            let plain = plan(&format!("{}{with}", overlay.line)).unwrap();
            let line = format!("{}{with} --{flag} {default}", overlay.line);
            let said = plan(&line).unwrap_or_else(|failure| panic!("{line}: {failure}"));
            assert_eq!(format!("{said:?}"), format!("{plain:?}"), "{line}");
            stated += 1;
        }
    }
    assert!(stated > 30, "{stated}");
}

#[test]
fn what_is_allowed_is_the_same_in_both() {
    // More can be written in a file, in tables and lists, and what is before a key tells how far it goes.
    let differ = [
        "storm",
        "vlan",
        "peers",
        "addresses",
        "offload",
        "udp_port",
        "querier.interval",
        "privileges",
        "capture.file",
        "capture.filter",
    ];
    let mut compared = 0;
    for (keys, flags) in SAME {
        let (key, _) = keys.last().unwrap();
        let (flag, value) = flags.rsplit_once(' ').unwrap_or((flags, ""));
        if value.is_empty() || value.starts_with("--") || differ.iter().any(|it| key.contains(it)) {
            continue;
        }
        let wrong = [&keys[..keys.len() - 1], &[(*key, "\"colour\"")]].concat();
        let problems = config::parse("a", &VXLAN.file(&wrong)).unwrap_err().join("\n");
        let allowed = problems.split_once("allowed; ").map(|(_, allowed)| allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("{problems}"));
        let line = format!("{} {flag} colour", VXLAN.line);
        let failure = plan(&line).unwrap_err().to_string();
        let name = flag.rsplit(' ').next().unwrap();
        assert!(failure.contains(name) && failure.contains(allowed), "{failure}: {problems}");
        compared += 1;
    }
    assert!(compared > 30, "{compared}");
}
