//! A table of text.

use std::fmt;

/// Rows of cells, the first row being the head. The first column is aligned to the left, and so are others that are asked to;
/// numbers read better to the right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns from the first that are aligned to the left.
    left: usize,
}

impl Table {
    /// A table of which only the first column is aligned to the left.
    pub fn new<const COLUMNS: usize>(head: [&str; COLUMNS]) -> Self {
        Self { rows: vec![head.map(String::from).into()], left: 1 }
    }

    /// Aligns so many columns to the left.
    pub fn left(mut self, columns: usize) -> Self {
        self.left = columns;
        self
    }

    /// Adds a row of as many cells as the head has.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.into());
    }

    /// Whether there is nothing but the head.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.rows[0].len()).map(|column| self.width(column)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column < self.left {
                    true => line.push_str(&format!("  {cell:<width$}")),
                    false => line.push_str(&format!("  {cell:>width$}")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
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
        let mut table = Table::new(["name", "word", "n"]).left(2);
        assert!(table.is_empty());
        table.row(["a".into(), "on".into(), "10".into()]);
        assert_eq!(table.to_string(), "  name  word   n\n  a     on    10\n");
    }
}
