//! A table of text.

use std::fmt;

/// Rows of cells, the first row being the head.
#[derive(Debug)]
pub struct Table {
    rows: Vec<[String; 4]>,
}

impl Table {
    pub fn new(head: [&str; 4]) -> Self {
        Self { rows: vec![head.map(String::from)] }
    }

    pub fn row(&mut self, cells: [String; 4]) {
        self.rows.push(cells);
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            write!(f, "  {:<width$}", row[0], width = self.width(0))?;
            for (column, cell) in row.iter().enumerate().skip(1) {
                write!(f, "  {cell:>width$}", width = self.width(column))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["", "rate", "part", "time"]);
        table.row(["kernel".into(), "12 Gb/s".into(), "100 %".into(), "8 µs".into()]);
        table.row(["us".into(), "9 Gb/s".into(), "75 %".into(), "61 µs".into()]);
        let expected = "             rate   part   time\n  \
                          kernel  12 Gb/s  100 %   8 µs\n  \
                          us       9 Gb/s   75 %  61 µs\n";
        assert_eq!(table.to_string(), expected);
    }
}
