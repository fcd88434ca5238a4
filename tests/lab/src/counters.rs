//! What a host's protocols have counted.

use std::fs;
use std::io;

use crate::Namespace;
use crate::error::Attempt;

impl Namespace {
    /// Segments and datagrams that the host has received with a wrong TCP or UDP checksum, over both versions of IP.
    ///
    /// # Errors
    ///
    /// When `/proc` is not mounted.
    pub fn checksum_errors(&self) -> io::Result<u64> {
        let read = |file: &str| {
            let path = format!("/proc/thread-self/net/{file}");
            self.run(|| fs::read_to_string(&path)).attempt(|| format!("reading {path}"))
        };
        let v4 = read("snmp")?;
        let v6 = read("snmp6").unwrap_or_default();
        Ok(of_tables(&v4, "InCsumErrors", &["Tcp", "Udp"]) + of_lines(&v6, "Udp6InCsumErrors"))
    }
}

/// Sums a column over tables of two lines each, names and numbers, both beginning with the table's name.
fn of_tables(text: &str, column: &str, tables: &[&str]) -> u64 {
    let lines: Vec<&str> = text.lines().collect();
    let mut sum = 0;
    for pair in lines.windows(2) {
        let (names, numbers) = (pair[0].split_whitespace(), pair[1].split_whitespace());
        let mut both = names.zip(numbers);
        let table = both.next().filter(|(a, b)| a == b).map(|(a, _)| a.trim_end_matches(':'));
        if table.is_some_and(|table| tables.contains(&table)) {
            let number = both.find(|(name, _)| *name == column).map(|(_, number)| number);
            sum += number.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    sum
}

/// A number that stands in a line behind its name.
fn of_lines(text: &str, name: &str) -> u64 {
    let mut words = text.lines().map(|line| line.split_whitespace());
    let found =
        words.find_map(|mut line| line.next().filter(|word| *word == name).and(line.next()));
    found.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{of_lines, of_tables};

    #[test]
    fn counters_are_found_where_the_kernel_puts_them() {
        let text =
            "Tcp: A InCsumErrors\nTcp: 7 3\nUdp: InCsumErrors B\nUdp: 4 9\nX: InCsumErrors\nX: 9\n";
        assert_eq!(of_tables(text, "InCsumErrors", &["Tcp", "Udp"]), 7);
        assert_eq!(of_lines("Udp6InErrors 1\nUdp6InCsumErrors  12\n", "Udp6InCsumErrors"), 12);
        assert_eq!(of_lines("", "Udp6InCsumErrors"), 0);
    }
}
