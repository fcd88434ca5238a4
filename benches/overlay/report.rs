//! The results for people.

use std::fmt::Write;

use crate::Result;
use crate::args::Plan;
use crate::bars::Verdict;
use crate::results::{Results, Summary};
use crate::row::{Metric, PAYLOAD, Row};
use crate::table::Table;

/// Which numbers stand side by side.
const TABLES: [&[Metric]; 4] = [
    &[
        Metric::Rate(Row::Tcp1),
        Metric::Rate(Row::Tcp4),
        Metric::Rate(Row::TcpBoth),
        Metric::Cpu(Row::Tcp1),
    ],
    &[
        Metric::Rate(Row::Udp1),
        Metric::Rate(Row::Udp16),
        Metric::Rate(Row::Gso1),
        Metric::Rate(Row::Gso16),
        Metric::Rate(Row::GsoGro),
    ],
    &[
        Metric::Cpu(Row::Udp1),
        Metric::Cpu(Row::Udp16),
        Metric::Cpu(Row::Gso1),
        Metric::Cpu(Row::Gso16),
        Metric::Cpu(Row::GsoGro),
    ],
    &[Metric::Median, Metric::P99, Metric::Memory, Metric::Idle],
];

/// Says that something came out everywhere, or where nothing did.
pub fn tried(plan: &Plan, results: &Results) -> Result<()> {
    let metrics = || plan.rows.iter().flat_map(|row| row.metrics());
    for system in &plan.systems {
        // The kernel's ends have no processes, and a process may do nothing at all while idle.
        for metric in metrics().filter(|metric| matches!(metric, Metric::Rate(_) | Metric::Median))
        {
            let came = results.samples(*system, metric).iter().any(|value| *value > 0.0);
            if !came {
                return Err(format!("{metric}, {}: nothing came out", system.name()).into());
            }
        }
        println!("Testing overlay/{}: works", system.key());
    }
    Ok(())
}

/// Everything, as tables.
pub fn text(plan: &Plan, results: &Results) -> String {
    let mut text = format!(
        "{}\nmedian [min–max] of {} rounds of {} s; UDP: {PAYLOAD} bytes of payload, datagrams \
         that reached the receiving socket;\nCPU: of the whole machine\n",
        results.machine,
        plan.rounds,
        plan.window.as_secs_f64(),
    );
    let busy = Summary::of(&results.busy_otherwise);
    let busy = busy.map_or_else(String::new, |it| range(it, |percent| format!("{percent:.0}")));
    let _ = writeln!(text, "busy with something else before the rounds: {busy} % of the CPUs\n");
    for metrics in TABLES {
        if let Some(table) = numbers(plan, results, metrics) {
            let _ = writeln!(text, "{table}");
        }
    }
    let verdicts = Verdict::all(results);
    if !verdicts.is_empty() {
        let _ =
            write!(text, "overplane beside others, ratios within a round\n\n{}", bars(&verdicts));
    }
    text
}

/// The systems by those of the metrics that were measured; none if none was.
fn numbers(plan: &Plan, results: &Results, metrics: &[Metric]) -> Option<Table> {
    let measured = |metric: &&Metric| {
        plan.systems.iter().any(|system| !results.samples(*system, **metric).is_empty())
    };
    let metrics: Vec<&Metric> = metrics.iter().filter(measured).collect();
    metrics.first()?;
    let heads = metrics.iter().map(|metric| format!("{metric}, {}", metric.unit()));
    let mut table = Table::new([String::new()].into_iter().chain(heads).collect());
    for system in &plan.systems {
        let cells = metrics.iter().map(|metric| {
            let summary = Summary::of(results.samples(*system, **metric));
            summary.map_or_else(|| "–".into(), |it| range(it, |value| metric.show(value)))
        });
        table.row([system.name().into()].into_iter().chain(cells).collect());
    }
    Some(table)
}

fn bars(verdicts: &[Verdict]) -> Table {
    let head = ["", "median [min–max]", "bar", "holds"];
    let mut table = Table::new(head.map(String::from).into());
    for verdict in verdicts {
        table.row(vec![
            verdict.bar.name.into(),
            range(verdict.summary, |value| verdict.bar.show(value)),
            verdict.bar.bound(),
            if verdict.holds() { "yes" } else { "no" }.into(),
        ]);
    }
    table
}

fn range(summary: Summary, show: impl Fn(f64) -> String) -> String {
    let Summary { median, min, max } = summary;
    // A single sample has no range.
    if min == max {
        show(median)
    } else {
        format!("{} [{}–{}]", show(median), show(min), show(max))
    }
}
