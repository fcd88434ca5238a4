//! The forwarder as what is in `contrib` starts it: with the user and the capabilities that it is given there.

use std::env;
use std::fs;
use std::io::Read;
use std::process;

use overplane_lab::{Namespace, privileged};

use super::program::{Running, command, pair};
use super::threads::{NET_ADMIN, VXLAN, capabilities, threads, wait_for_threads};

/// Starts a forwarder by `setpriv` of util-linux, which every Debian has; `None` where there is none.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn start_as(host: &Namespace, how: &[String], arguments: &[String]) -> Option<Running> {
    let mut starting = process::Command::new("setpriv");
    starting.args(how).arg(command("").get_program()).args(arguments);
    starting.stdin(process::Stdio::null());
    starting.stdout(process::Stdio::piped()).stderr(process::Stdio::piped());
    match host.run(|| starting.spawn()) {
        Ok(child) => Some(Running(child)),
        Err(e) => {
            assert!(env::var_os("CI").is_none(), "setpriv has to be there in CI, but: {e}");
            eprintln!("SKIPPED: setpriv of util-linux: {e}");
            None
        }
    }
}

/// The value of a key of the systemd unit.
fn of_the_unit(key: &str) -> String {
    let unit = fs::read_to_string("contrib/systemd/overplane-forwarder.service").unwrap();
    let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{key} is not in the unit")).to_owned()
}

/// Capabilities as `setpriv` has them, and no others.
fn only<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.fold("-all".into(), |list, name| {
        format!("{list},+{}", name.trim().trim_start_matches("CAP_").to_lowercase())
    })
}

/// A start as by the systemd unit, by a user with the capabilities that it gives.
#[test]
fn who_is_not_root_stays_who_it_is_and_keeps_no_more_than_it_needs() {
    if !privileged("who_is_not_root_stays_who_it_is_and_keeps_no_more_than_it_needs") {
        return;
    }
    let hosts = pair();
    assert_eq!(of_the_unit("AmbientCapabilities"), of_the_unit("CapabilityBoundingSet"));
    // Who may open /dev/net/tun is udev's to say, and it is not at work everywhere.
    let unit = of_the_unit("AmbientCapabilities");
    let given = only(unit.split(' ').chain(["CAP_DAC_OVERRIDE"]));
    let how = [
        "--reuid=1".to_owned(),
        "--regid=1".to_owned(),
        "--clear-groups".to_owned(),
        "--no-new-privs".to_owned(),
        format!("--bounding-set={given}"),
        format!("--inh-caps={given}"),
        format!("--ambient-caps={given}"),
    ];
    let arguments: Vec<String> = VXLAN.split_whitespace().map(str::to_owned).collect();
    let Some(forwarder) = start_as(&hosts[0], &how, &arguments) else { return };
    wait_for_threads(&forwarder, &["overplane-0", "signals"]);
    for (name, status) in threads(&forwarder) {
        assert_eq!(status["Uid"], "1 1 1 1", "{name}");
        for (set, kept) in
            [("CapEff", NET_ADMIN), ("CapPrm", NET_ADMIN), ("CapInh", 0), ("CapAmb", 0)]
        {
            assert_eq!(capabilities(&status, set), kept, "{set} of {name}");
        }
    }
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("user 1; CAP_NET_ADMIN (bounding set left: no CAP_SETPCAP)"), "{err}");
}

/// A start as by the DaemonSet: its arguments, and root with its capabilities.
#[test]
fn a_containers_root_becomes_nobody_with_one_capability() {
    if !privileged("a_containers_root_becomes_nobody_with_one_capability") {
        return;
    }
    let hosts = pair();
    let text = fs::read_to_string("contrib/kubernetes/daemonset.yaml").unwrap();
    let lines = || text.lines().map(str::trim);
    let given = lines().find_map(|line| line.strip_prefix("add: [")?.strip_suffix(']')).unwrap();
    assert!(lines().any(|line| line == "allowPrivilegeEscalation: false"));
    let given = only(given.split(','));
    let how = [
        "--no-new-privs".to_owned(),
        format!("--bounding-set={given}"),
        format!("--inh-caps={given}"),
    ];
    let arguments: Vec<String> = lines()
        .skip_while(|line| *line != "args:")
        .skip(1)
        .map_while(|line| line.strip_prefix("- "))
        .map(|argument| argument.replace("$(NODE_ADDRESS)", "10.9.0.1"))
        .collect();
    let Some(mut forwarder) = start_as(&hosts[0], &how, &arguments) else { return };
    forwarder.wait_for(&hosts[0], "ovl0");
    wait_for_threads(&forwarder, &["overplane-0", "signals"]);
    for (name, status) in threads(&forwarder) {
        assert_eq!(status["Uid"], "65534 65534 65534 65534", "{name}");
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(capabilities(&status, set), NET_ADMIN, "{set} of {name}");
        }
        assert_eq!(capabilities(&status, "CapInh"), 0, "{name}");
    }
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
}

/// Root that may not become anybody else is told so and goes on, unless it was asked for by name.
#[test]
fn root_that_cannot_become_nobody_goes_on_and_says_so() {
    if !privileged("root_that_cannot_become_nobody_goes_on_and_says_so") {
        return;
    }
    let hosts = pair();
    let given = only(["net_admin"].into_iter());
    let how = [format!("--bounding-set={given}"), format!("--inh-caps={given}")];
    let mut arguments: Vec<String> = VXLAN.split_whitespace().map(str::to_owned).collect();
    let Some(forwarder) = start_as(&hosts[0], &how, &arguments) else { return };
    wait_for_threads(&forwarder, &["overplane-0", "signals"]);
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("WARN becoming nobody (65534:65534): EPERM"), "{err}");
    assert!(err.contains("privileges: user 0; CAP_NET_ADMIN; "), "{err}");
    arguments.extend(["--user".into(), "nobody".into()]);
    let Some(mut refused) = start_as(&hosts[0], &how, &arguments) else { return };
    let mut err = String::new();
    refused.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(refused.0.wait().unwrap().code(), Some(1), "{err}");
    assert!(err.contains("error: becoming nobody (65534:65534): EPERM"), "{err}");
    assert!(!hosts[0].exists("ovl0"));
}

#[test]
fn the_configuration_of_the_package_is_right() {
    let output = command("check contrib/debian/overplane.toml").output().unwrap();
    let expected = "contrib/debian/overplane.toml: 1 segment, 1 port, 1 flood list entry, 0 peers, \
                    0 FDB entries, 0 routes\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(0));
}
