//! The two text formats that counters are scraped in.
//!
//! Written here, for they are few lines and the well-known crate, `prometheus-client`, writes one of them only.

use std::fmt::{self, Display, Write};
use std::time::Duration;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4, which everything reads
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    Text,
    /// OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
    OpenMetrics,
}

impl Format {
    /// As the header `Content-Type` has it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the forwarder is started again.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; what it says is in its labels.
    Info,
}

impl Kind {
    /// What the names of its samples have behind the name of the family.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
            Self::Info => "_info",
        }
    }

    fn name(self, format: Format) -> &'static str {
        match (self, format) {
            (Self::Counter, _) => "counter",
            (Self::Gauge, _) | (Self::Info, Format::Text) => "gauge",
            (Self::Info, Format::OpenMetrics) => "info",
        }
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Whole(number as u64)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Whole(is.into())
    }
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Self {
        Self::Real(time.as_secs_f64())
    }
}

/// The unit that a name ends in.
pub fn unit(name: &str) -> Option<&'static str> {
    ["bytes", "seconds"]
        .into_iter()
        .find(|unit| name.strip_suffix(unit).is_some_and(|before| before.ends_with('_')))
}

/// A text that grows family by family.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    text: String,
    /// The name of the samples of the family that is being written, and of their labels.
    name: String,
    labels: &'static [&'static str],
}

impl Exposition {
    pub fn new(format: Format) -> Self {
        Self { format, text: String::new(), name: String::new(), labels: &[] }
    }

    /// Begins a family; its samples have these labels.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str, labels: &'static [&'static str]) {
        self.name = format!("{name}{}", kind.suffix());
        self.labels = labels;
        // The older format knows of samples only, not of families.
        let family = match self.format {
            Format::Text => &self.name,
            Format::OpenMetrics => name,
        };
        let kind = kind.name(self.format);
        let quotes = self.format == Format::OpenMetrics;
        self.text.push_str(&format!("# HELP {family} "));
        let _ = Escaped { text: &mut self.text, quotes }.write_str(help);
        self.text.push_str(&format!("\n# TYPE {family} {kind}\n"));
        if let (Format::OpenMetrics, Some(unit)) = (self.format, unit(name)) {
            self.text.push_str(&format!("# UNIT {family} {unit}\n"));
        }
    }

    /// Adds a sample to the family, with a value for each of its labels.
    pub fn sample(&mut self, labels: &[&dyn Display], value: impl Into<Value>) {
        debug_assert_eq!(labels.len(), self.labels.len(), "{}", self.name);
        self.text.push_str(&self.name);
        let mut before = '{';
        for (name, label) in self.labels.iter().zip(labels) {
            self.text.push(before);
            self.text.push_str(name);
            self.text.push_str("=\"");
            // Neither this nor what is below fails: both write to a string.
            let _ = write!(Escaped { text: &mut self.text, quotes: true }, "{label}");
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = match value.into() {
            Value::Whole(number) => writeln!(self.text, " {number}"),
            Value::Real(number) => writeln!(self.text, " {number}"),
        };
    }

    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// Appends to a text, with what would end it escaped.
struct Escaped<'a> {
    text: &'a mut String,
    quotes: bool,
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if self.quotes => self.text.push_str("\\\""),
                c => self.text.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        exposition.family("a_bytes", Kind::Counter, "Say \"a\\b\"\nand c.", &["port", "at"]);
        exposition.sample(&[&"x\"\\\ny", &7], u64::MAX);
        exposition.family("b", Kind::Info, "B.", &[]);
        exposition.sample(&[], true);
        exposition.family("c_seconds", Kind::Gauge, "C.", &[]);
        exposition.sample(&[], Duration::from_micros(1_000_250));
        exposition.finish()
    }

    #[test]
    fn the_older_format_names_samples() {
        let expected = "# HELP a_bytes_total Say \"a\\\\b\"\\nand c.\n# TYPE a_bytes_total counter\n\
             a_bytes_total{port=\"x\\\"\\\\\\ny\",at=\"7\"} 18446744073709551615\n\
             # HELP b_info B.\n# TYPE b_info gauge\nb_info 1\n\
             # HELP c_seconds C.\n# TYPE c_seconds gauge\nc_seconds 1.00025\n";
        assert_eq!(written(Format::Text), expected);
    }

    #[test]
    fn openmetrics_names_families_and_units_and_has_an_end() {
        let expected = "# HELP a_bytes Say \\\"a\\\\b\\\"\\nand c.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
             a_bytes_total{port=\"x\\\"\\\\\\ny\",at=\"7\"} 18446744073709551615\n\
             # HELP b B.\n# TYPE b info\nb_info 1\n\
             # HELP c_seconds C.\n# TYPE c_seconds gauge\n# UNIT c_seconds seconds\nc_seconds 1.00025\n# EOF\n";
        assert_eq!(written(Format::OpenMetrics), expected);
    }
}
