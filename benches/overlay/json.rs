//! The results for programs.

use serde_json::{Map, Value, json};

use crate::args::Plan;
use crate::bars::Verdict;
use crate::results::{Results, Summary};

/// Everything, down to the samples; what is no number is `null`.
pub fn document(plan: &Plan, results: &Results) -> Value {
    let metrics = || plan.rows.iter().flat_map(|row| row.metrics());
    let mut systems = Map::new();
    for system in &plan.systems {
        let measured = metrics().filter_map(|metric| {
            let samples = results.samples(*system, metric);
            let mut number = numbers(samples, Summary::of(samples))?;
            number.insert("unit".into(), metric.unit().into());
            Some((metric.key(), Value::Object(number)))
        });
        systems.insert(system.key(), Value::Object(measured.collect()));
    }
    let bars = Verdict::all(results).into_iter().filter_map(|verdict| {
        let mut number = numbers(&verdict.samples, Some(verdict.summary))?;
        number.insert("name".into(), verdict.bar.name.into());
        number.insert("bar".into(), verdict.bar.bound().into());
        number.insert("holds".into(), verdict.holds().into());
        Some(Value::Object(number))
    });
    json!({
        "machine": results.machine.json(),
        "busy_otherwise_percent": results.busy_otherwise,
        "rounds": plan.rounds,
        "seconds": plan.window.as_secs_f64(),
        "systems": systems,
        "bars": bars.collect::<Vec<_>>(),
    })
}

fn numbers(samples: &[f64], summary: Option<Summary>) -> Option<Map<String, Value>> {
    let Summary { median, min, max } = summary?;
    let number = [
        ("median", json!(median)),
        ("min", json!(min)),
        ("max", json!(max)),
        ("samples", json!(samples)),
    ];
    Some(number.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
