//! Throughput and latency beside the kernel's own VXLAN.

use std::net::SocketAddr;
use std::time::Duration;

use overplane_lab::{Transfer, tcp_echo_latency, tcp_transfer};

use super::hosts::{End, Hosts, UDP, VXLAN};
use crate::failure::Failure;
use crate::table::Table;

/// The overlays compared, the one that others are measured by first.
const OVERLAYS: [(&str, End); 3] = [
    ("kernel VXLAN", End::KernelAside),
    ("forwarder vxlan", End::Forwarder(VXLAN)),
    ("forwarder udp", End::Forwarder(UDP)),
];
/// How often each is measured; one after the other, as speed here swings from moment to moment.
pub const ROUNDS: usize = 3;
/// How long TCP sends.
const TRANSFER: Duration = Duration::from_millis(700);
/// How often a byte goes back and forth.
const ECHOES: usize = 1000;

/// Measures the overlays between the same two hosts.
pub fn measure() -> Result<Table, Failure> {
    let mut hosts = Hosts::new()?;
    for (_, end) in OVERLAYS {
        hosts.join([end, end])?;
    }
    let [left, right] = &hosts.both;
    let mut rates = [const { Vec::new() }; OVERLAYS.len()];
    let mut times = [const { Vec::new() }; OVERLAYS.len()];
    for _ in 0..ROUNDS {
        for (number, (_, end)) in OVERLAYS.iter().enumerate() {
            let server = SocketAddr::new(end.addresses(2)[0], 0);
            let what = Transfer::of_duration(TRANSFER);
            rates[number].push(tcp_transfer(left, right, server, what)?.gbps());
            let echoes = tcp_echo_latency(left, right, server, ECHOES)?;
            times[number].push(median(echoes).unwrap_or_default());
        }
    }
    hosts.stop()?;
    let mut table = Table::new(["", "TCP, one flow", "of the kernel's", "round trip"]);
    let mut kernel = None;
    for ((name, _), (rates, times)) in OVERLAYS.iter().zip(rates.into_iter().zip(times)) {
        let rate = median_rate(rates);
        let part = rate / *kernel.get_or_insert(rate) * 100.0;
        let time = median(times).unwrap_or_default().as_secs_f64() * 1e6;
        table.row([
            (*name).into(),
            format!("{rate:.2} Gb/s"),
            format!("{part:.0} %"),
            format!("{time:.0} µs"),
        ]);
    }
    Ok(table)
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn median_rate(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(0.0)
}
