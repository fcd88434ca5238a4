//! A strict reader of the two text formats in which counters are scraped.

use std::collections::{BTreeMap, BTreeSet};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// A sample: its name, and its labels sorted by name.
pub(crate) type Series = (String, BTreeMap<String, String>);

/// Samples, and the kind of the family that each name belongs to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Scrape {
    pub(crate) samples: BTreeMap<Series, f64>,
    pub(crate) kinds: BTreeMap<String, String>,
}

impl Scrape {
    /// The sum of all samples of a name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let of = |series: &Series| {
            series.0 == name
                && labels
                    .iter()
                    .all(|(key, value)| series.1.get(*key).is_some_and(|is| is == value))
        };
        let found: Vec<f64> =
            self.samples.iter().filter(|(series, _)| of(series)).map(|(_, value)| *value).collect();
        assert!(!found.is_empty(), "no {name} with {labels:?}");
        found.iter().sum()
    }

    /// The samples of counters.
    pub(crate) fn counters(&self) -> BTreeMap<&Series, f64> {
        let counter = |series: &Series| self.kinds[&series.0] == "counter";
        let counters = self.samples.iter().filter(|(series, _)| counter(series));
        counters.map(|(series, value)| (series, *value)).collect()
    }
}

/// Reads a text, or says which line is wrong, and why.
pub(crate) fn parse(text: &str, format: Format) -> Result<Scrape, String> {
    let mut reader =
        Reader { format, scrape: Scrape::default(), families: BTreeSet::new(), family: None };
    let body = match format {
        Format::Text => text.strip_suffix('\n').ok_or("it does not end with a line break")?,
        Format::OpenMetrics => {
            text.strip_suffix("\n# EOF\n").ok_or("it does not end with # EOF")?
        }
    };
    for line in body.split('\n') {
        reader.line(line).map_err(|why| format!("{line}: {why}"))?;
    }
    Ok(reader.scrape)
}

/// What was said of the family that is being read.
struct Family {
    name: String,
    help: bool,
    kind: Option<String>,
    unit: bool,
    samples: bool,
}

struct Reader {
    format: Format,
    scrape: Scrape,
    families: BTreeSet<String>,
    family: Option<Family>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        match line.strip_prefix("# ") {
            Some(comment) => self.comment(comment),
            None if line.starts_with('#') => Err("a comment that means nothing".into()),
            None => self.sample(line),
        }
    }

    fn comment(&mut self, comment: &str) -> Result<(), String> {
        let mut words = comment.splitn(3, ' ');
        let mut word = || words.next().filter(|word| !word.is_empty());
        let (what, name) = (word().ok_or("what?")?, word().ok_or("no name")?);
        let value = word().ok_or("no value")?;
        is_name(name)?;
        if self.family.as_ref().is_none_or(|family| family.name != name) {
            if !self.families.insert(name.into()) {
                return Err("the family was there before".into());
            }
            let name = name.into();
            self.family =
                Some(Family { name, help: false, kind: None, unit: false, samples: false });
        }
        let format = self.format;
        let family = self.family.as_mut().ok_or("no family")?;
        if family.samples {
            return Err("behind samples of its family".into());
        }
        let is_first = match what {
            "HELP" => {
                unescape(value, format == Format::OpenMetrics)?;
                !std::mem::replace(&mut family.help, true)
            }
            "TYPE" => {
                let kinds: &[&str] = match format {
                    Format::Text => &["counter", "gauge"],
                    Format::OpenMetrics => &["counter", "gauge", "info"],
                };
                if !kinds.contains(&value) {
                    return Err("no such kind".into());
                }
                if format == Format::Text && (value == "counter") != name.ends_with("_total") {
                    return Err("counters and nothing else end in _total".into());
                }
                if format == Format::OpenMetrics
                    && (name.ends_with("_total") || name.ends_with("_info"))
                {
                    return Err("a family has no suffix".into());
                }
                family.kind.replace(value.into()).is_none()
            }
            "UNIT" if format == Format::OpenMetrics => {
                if !name.ends_with(&format!("_{value}")) {
                    return Err("the name does not end in the unit".into());
                }
                !std::mem::replace(&mut family.unit, true)
            }
            _ => return Err("a comment that means nothing".into()),
        };
        is_first.then_some(()).ok_or("said twice".into())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let format = self.format;
        let family = self.family.as_mut().ok_or("no family")?;
        let kind = family.kind.clone().ok_or("no TYPE before it")?;
        if !family.help {
            return Err("no HELP before it".into());
        }
        let has_unit = ["_bytes", "_seconds"].iter().any(|unit| family.name.ends_with(unit));
        if format == Format::OpenMetrics && has_unit != family.unit {
            return Err("a unit in its name and none in its family, or the other way round".into());
        }
        family.samples = true;
        let suffix = match (format, kind.as_str()) {
            (Format::OpenMetrics, "counter") => "_total",
            (Format::OpenMetrics, "info") => "_info",
            _ => "",
        };
        let end = line.find(['{', ' ']).ok_or("no value")?;
        let (name, rest) = line.split_at(end);
        if *name != format!("{}{suffix}", family.name) {
            return Err("not the name of its family".into());
        }
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        let value = value.strip_prefix(' ').ok_or("no space before the value")?;
        let number: f64 = value.parse().map_err(|_| "no number")?;
        if value.contains(|c: char| !c.is_ascii_digit() && !"+-.e".contains(c)) || number < 0.0 {
            return Err("no plain number".into());
        }
        if kind == "info" && number != 1.0 {
            return Err("an info is 1".into());
        }
        self.scrape.kinds.insert(name.into(), kind);
        match self.scrape.samples.insert((name.into(), labels), number) {
            None => Ok(()),
            Some(_) => Err("the series was there before".into()),
        }
    }
}

/// Reads labels behind the opening brace; returns what is behind the closing one, too.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, value) = rest.split_once("=\"").ok_or("no label")?;
        is_name(name)?;
        if name.contains(':') || name.starts_with("__") {
            return Err("the name of a label".into());
        }
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (value, behind) = value.split_at(end.ok_or("a label without end")?);
        let value = unescape(value, true)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("a label twice".into());
        }
        rest = &behind[1..];
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        rest = rest.strip_prefix(',').ok_or("no comma")?;
    }
}

fn is_name(name: &str) -> Result<(), String> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    (first && rest).then_some(()).ok_or_else(|| format!("{name:?} is no name"))
}

fn unescape(text: &str, quotes: bool) -> Result<String, String> {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quotes => '"',
                _ => return Err("an escape that means nothing".into()),
            },
            '"' if quotes => return Err("a quote that is not escaped".into()),
            c => c,
        });
    }
    Ok(plain)
}

#[test]
fn the_reader_finds_what_is_wrong() {
    let head = "# HELP a_total A.\n# TYPE a_total counter\n";
    let right = format!("{head}a_total{{x=\"\\\"\\n\",y=\"\"}} 1\na_total 2.5\n");
    assert_eq!(parse(&right, Format::Text).unwrap().sum("a_total", &[]), 3.5);
    for wrong in [
        "a_total 1\n",
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a A.\n# TYPE a counter\na 1\n",
        &format!("{head}b_total 1\n"),
        &format!("{head}a_total 1\na_total 1\n"),
        &format!("{head}a_total -1\n"),
        &format!("{head}a_total NaN\n"),
        &format!("{head}a_total 1"),
        &format!("{head}a_total  1\n"),
        &format!("{head}a_total{{x=\"1\"y=\"2\"}} 1\n"),
        &format!("{head}a_total{{x=\"1\",x=\"2\"}} 1\n"),
        &format!("{head}a_total{{x=\"\\t\"}} 1\n"),
        &format!("{head}a_total{{x=\"}} 1\n"),
        &format!("{head}a_total 1\n\n"),
        &format!("{head}a_total 1\n# HELP a_total A.\n"),
        &format!("{head}# HELP b B.\n# TYPE b gauge\nb 1\n{head}a_total 1\n"),
    ] {
        assert!(parse(wrong, Format::Text).is_err(), "{wrong}");
    }
    let head = "# HELP a_bytes A \\\"b\\\".\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n";
    assert!(parse(&format!("{head}a_bytes_total 1\n# EOF\n"), Format::OpenMetrics).is_ok());
    for wrong in [
        format!("{head}a_bytes_total 1\n"),
        format!("{head}a_bytes 1\n# EOF\n"),
        format!("{head}a_bytes_total 1\n# EOF\n\n"),
        "# HELP a_bytes A.\n# TYPE a_bytes gauge\na_bytes 1\n# EOF\n".into(),
        "# HELP a A.\n# TYPE a gauge\n# UNIT a bytes\na 1\n# EOF\n".into(),
        "# HELP a \"A\".\n# TYPE a gauge\na 1\n# EOF\n".into(),
        "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n# EOF\n".into(),
        "# HELP a A.\n# TYPE a info\na_info 2\n# EOF\n".into(),
    ] {
        assert!(parse(&wrong, Format::OpenMetrics).is_err(), "{wrong}");
    }
}
