//! What changes cost whoever makes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use overplane::{Change, Publisher, Reader, Tables};

use crate::tables::NOW;

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Applies and publishes `change(n)` so many `times` and prints the median and the longest time of each step.
pub fn one(tables: &mut Tables, times: u32, what: &str, change: impl Fn(u32) -> Vec<Change>) {
    let publisher = Arc::new(Publisher::new(tables.clone()));
    let mut reader = Reader::new(publisher.clone());
    let mut taken: [Vec<Duration>; 4] = Default::default();
    for n in 0..times {
        let changes = change(n);
        let start = Instant::now();
        tables.apply(NOW, changes).unwrap();
        taken[0].push(start.elapsed());
        let start = Instant::now();
        publisher.publish(tables.clone());
        taken[1].push(start.elapsed());
        let start = Instant::now();
        assert!(reader.refresh());
        taken[2].push(start.elapsed());
        let start = Instant::now();
        assert_eq!(publisher.reclaim(), 0);
        taken[3].push(start.elapsed());
    }
    let shown = taken.map(|mut times| {
        times.sort();
        format!("{:9.1} {:9.1}", micros(times[times.len() / 2]), micros(times[times.len() - 1]))
    });
    println!("{what:<28}{}", shown.join("  "));
}

/// Applies many changes at once.
pub fn bulk(tables: &mut Tables, what: &str, changes: Vec<Change>) {
    let count = changes.len();
    let start = Instant::now();
    tables.apply(NOW, changes).unwrap();
    println!("{what:<28}{count:>9} changes in {:7.1} ms", micros(start.elapsed()) / 1e3);
}
