//! What the doctor finds on hosts where all is well, and on others.

use std::process::Output;
use std::{env, fs};

use overplane_lab::{Namespace, Vxlan, privileged};
use serde_json::Value;

use super::program::{command, pair};

fn ask(host: &Namespace, arguments: &str) -> (Option<i32>, String, String) {
    let mut asking = command(arguments);
    let Output { status, stdout, stderr } = host.run(|| asking.output()).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn the_doctor_names_what_is_in_the_way() {
    if !privileged("the_doctor_names_what_is_in_the_way") {
        return;
    }
    let hosts = pair();
    let file = env::temp_dir().join(format!("overplane-{}-doctor.toml", std::process::id()));
    let text = r#"
        dataplane = { local = "10.9.0.1" }
        [[segment]]
        kind = "bridge"
        vni = 42
        flood = ["10.9.0.2"]
        port = [{ device = "ovl0" }]
    "#;
    let doctor = format!("doctor {}", file.display());
    fs::write(&file, text).unwrap();
    let (code, out, err) = ask(&hosts[0], &doctor);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for line in [
        "ok       capabilities: CAP_NET_ADMIN\n",
        "ok       /dev/net/tun: can be opened\n",
        "ok       address 10.9.0.1: on eth0, MTU 1500\n",
        "ok       VXLAN 42 on UDP port 4789: eth0 leaves 1450 bytes\n",
        "ok       UDP port 4789 of 10.9.0.1: is free\n",
        "ok       VTEPs: there is a route to 1 of 1\n",
        "ok       offload udp-gso: works",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }

    // An address that is nowhere, a VTEP without a way there, and a port that the kernel has.
    let other =
        Vxlan { remotes: &[[10, 9, 0, 2].into()], ..Vxlan::new("vx0", 7, [10, 9, 0, 1].into()) };
    hosts[0].add_vxlan(&other).unwrap();
    hosts[0].up("vx0").unwrap();
    hosts[0].set_mtu("eth0", 1300).unwrap();
    hosts[0].sysctl("net/ipv4/conf/eth0/rp_filter", "1").unwrap();
    fs::write(&file, text.replace("[\"10.9.0.2\"]", "[\"10.9.0.2\", \"192.0.2.9\"]")).unwrap();
    let (code, out, err) = ask(&hosts[0], &format!("{doctor} -j"));
    assert_eq!((code, err.as_str()), (Some(1), "error: 2 things stand in the way\n"), "{out}");
    let found: Value = serde_json::from_str(&out).unwrap();
    let found = |state: &str| -> Vec<&str> {
        let found = found.as_array().unwrap().iter().filter(|finding| finding["state"] == state);
        found.map(|finding| finding["about"].as_str().unwrap()).collect()
    };
    assert_eq!(found("error"), ["UDP port 4789 of 10.9.0.1", "VTEP 192.0.2.9:4789"]);
    assert_eq!(found("warning"), ["VXLAN 42 on UDP port 4789", "rp_filter of eth0"]);
    fs::write(&file, text.replace("10.9.0.1", "10.9.0.77")).unwrap();
    let (code, out, _) = ask(&hosts[0], &doctor);
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("error    address 10.9.0.77: the local address 10.9.0.77 is on no interface"),
        "{out}"
    );

    // Without a file only the host is looked at; a file that is wrong is as for check.
    assert_eq!(ask(&hosts[0], "doctor").0, Some(0));
    fs::write(&file, "nonsense").unwrap();
    assert_eq!(ask(&hosts[0], &doctor).0, Some(2));
    fs::remove_file(&file).unwrap();
}
