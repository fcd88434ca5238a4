//! Reading of TOML values with the lines they stand on.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a file, by line.
pub struct Problems {
    file: String,
    /// Where each line starts.
    starts: Vec<usize>,
    found: Vec<(usize, String)>,
}

impl Problems {
    pub fn new(file: &str, text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(end, _)| end + 1);
        Self { file: file.into(), starts: [0].into_iter().chain(ends).collect(), found: Vec::new() }
    }

    /// The line, counted from 1, of a place in the text.
    pub fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    pub fn add(&mut self, line: usize, message: impl fmt::Display) {
        self.found.push((line, message.to_string()));
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Everything as `file:line: message`, in the order of lines.
    pub fn into_lines(mut self) -> Vec<String> {
        self.found.sort_by_key(|(line, _)| *line);
        let file = self.file;
        self.found.iter().map(|(line, message)| format!("{file}:{line}: {message}")).collect()
    }
}

/// A value with its key and line.
#[derive(Clone)]
pub struct Item<'a> {
    pub key: String,
    pub line: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Item<'a> {
    /// Reports that this value is none of those allowed.
    pub fn refuse(&self, allowed: impl fmt::Display, problems: &mut Problems) {
        self.problem(format_args!("{self} is not allowed; allowed: {allowed}"), problems);
    }

    pub fn problem(&self, message: impl fmt::Display, problems: &mut Problems) {
        problems.add(self.line, format_args!("{}: {message}", self.key));
    }

    pub fn integer(&self, range: RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
        let number = self.as_integer(&range);
        if number.is_none() {
            self.refuse(format_args!("{} to {}", range.start(), range.end()), problems);
        }
        number
    }

    pub fn as_integer(&self, range: &RangeInclusive<u64>) -> Option<u64> {
        let number = self.value.as_integer()?;
        let number = u64::from_str_radix(number.as_str(), number.radix()).ok();
        number.filter(|number| range.contains(number))
    }

    pub fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        let value = match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => None,
        };
        if value.is_none() {
            self.refuse("true or false", problems);
        }
        value
    }

    /// Whether it is this value and no other.
    pub fn is(&self, value: bool) -> bool {
        matches!(self.value, DeValue::Boolean(given) if *given == value)
    }

    /// The value of a string that `read` takes.
    pub fn text<T>(
        &self,
        allowed: impl fmt::Display,
        read: impl FnOnce(&str) -> Option<T>,
        problems: &mut Problems,
    ) -> Option<T> {
        let value = self.as_text().and_then(read);
        if value.is_none() {
            self.refuse(allowed, problems);
        }
        value
    }

    /// The value of a string or a number that `read` takes.
    pub fn word<T>(
        &self,
        allowed: impl fmt::Display,
        read: impl FnOnce(&str) -> Option<T>,
        problems: &mut Problems,
    ) -> Option<T> {
        let number = self.as_integer(&(0..=u64::MAX)).map(|number| number.to_string());
        let value = number.as_deref().or(self.as_text()).and_then(read);
        if value.is_none() {
            self.refuse(allowed, problems);
        }
        value
    }

    pub fn parse<T: FromStr>(&self, allowed: &str, problems: &mut Problems) -> Option<T> {
        self.text(allowed, |text| text.parse().ok(), problems)
    }

    pub fn as_text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The elements of a list, each under the key of the list.
    pub fn list(&self, allowed: &str, problems: &mut Problems) -> Vec<Item<'a>> {
        let DeValue::Array(array) = self.value else {
            self.refuse(allowed, problems);
            return Vec::new();
        };
        let element = |value: &'a Spanned<DeValue<'a>>| Item {
            key: self.key.clone(),
            line: problems.line_of(value.span().start),
            value: value.get_ref(),
        };
        array.iter().map(element).collect()
    }

    /// Whether the value is a list of nothing.
    pub fn is_empty_list(&self) -> bool {
        matches!(self.value, DeValue::Array(array) if array.is_empty())
    }

    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// The value as a table.
    pub fn section(&self, problems: &mut Problems) -> Option<Section<'a>> {
        match self.value {
            DeValue::Table(table) => Some(Section::new(&self.key, self.line, table, problems)),
            _ => {
                self.refuse("a table", problems);
                None
            }
        }
    }
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            DeValue::String(text) => write!(f, "{text:?}"),
            DeValue::Integer(number) => number.fmt(f),
            DeValue::Float(number) => number.fmt(f),
            DeValue::Boolean(value) => value.fmt(f),
            DeValue::Datetime(time) => time.fmt(f),
            DeValue::Array(_) => f.write_str("a list"),
            DeValue::Table(_) => f.write_str("a table"),
        }
    }
}

/// A table with its key and line.
pub struct Section<'a> {
    pub key: String,
    pub line: usize,
    items: Vec<(&'a str, Item<'a>)>,
}

impl<'a> Section<'a> {
    pub fn new(key: &str, line: usize, table: &'a DeTable<'a>, problems: &Problems) -> Self {
        let items = table.iter().map(|(name, value)| {
            let path =
                if key.is_empty() { name.to_string() } else { format!("{key}.{}", name.get_ref()) };
            let line = problems.line_of(name.span().start);
            (name.get_ref().as_ref(), Item { key: path, line, value: value.get_ref() })
        });
        Self { key: key.into(), line, items: items.collect() }
    }

    pub fn get(&self, key: &str) -> Option<Item<'a>> {
        self.items.iter().find(|(name, _)| *name == key).map(|(_, item)| item.clone())
    }

    /// The value of a key that has to be there.
    pub fn need(&self, key: &str, allowed: &str, problems: &mut Problems) -> Option<Item<'a>> {
        let item = self.get(key);
        if item.is_none() {
            problems
                .add(self.line, format_args!("{}: missing; allowed: {allowed}", self.path(key)));
        }
        item
    }

    /// Reports all keys but these; those of `elsewhere` as keys that do not belong `here`.
    pub fn only(&self, keys: &[&str], elsewhere: &[&str], here: &str, problems: &mut Problems) {
        for (name, item) in self.items.iter().filter(|(name, _)| !keys.contains(name)) {
            if elsewhere.contains(name) {
                item.problem(format_args!("not allowed in {here}"), problems);
            } else {
                let keys = keys.join(", ");
                item.problem(format_args!("unknown key; allowed: {keys}"), problems);
            }
        }
    }

    pub fn problem(&self, message: impl fmt::Display, problems: &mut Problems) {
        problems.add(self.line, format_args!("{}: {message}", self.key));
    }

    fn path(&self, key: &str) -> String {
        if self.key.is_empty() { key.into() } else { format!("{}.{key}", self.key) }
    }
}

/// What may be there once only, with the line of the first.
pub struct Once<T>(HashMap<T, usize>);

impl<T: Eq + Hash> Once<T> {
    pub fn new() -> Self {
        Self(HashMap::new())
    }

    /// Whether the value is new; reports the item otherwise.
    pub fn is_first(&mut self, value: T, item: &Item<'_>, problems: &mut Problems) -> bool {
        if let Some(line) = self.0.get(&value) {
            item.problem(format_args!("{item} is given on line {line} already"), problems);
            return false;
        }
        self.0.insert(value, item.line);
        true
    }
}
