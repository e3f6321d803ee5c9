//! What people and scripts see: the result on stdout, everything else on stderr. The one place that writes.

use std::io::{self, ErrorKind, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::exit::Failure;

/// Write the result. A reader that went away (`| head`) has seen enough.
pub(crate) fn result(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::internal(format!("cannot write the result: {error}"))),
    }
}

/// Write the result as one JSON document.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure::internal(format!("the result is not JSON: {error}")))?;
    result(&(text + "\n"))
}

/// Write one JSON document on one line: for results that come one by one.
pub(crate) fn json_line<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string(value);
    let text = text.map_err(|error| Failure::internal(format!("the result is not JSON: {error}")))?;
    result(&(text + "\n"))
}

/// Tell a human something, on stderr. Nobody listening is no error.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", plain(line));
}

/// Names come from other people: no control character of theirs reaches the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A time as people read it: RFC 3339, whole seconds.
pub(crate) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"))
}

/// A word, or a dash.
pub(crate) fn word(word: Option<&str>) -> String {
    word.filter(|word| !word.is_empty()).unwrap_or("-").to_owned()
}

/// A number of bytes, in powers of 1024.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS.get(unit).copied().unwrap_or_default())
}

/// Rows under headings, as wide as their widest cell; a row may have a line beneath it.
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    cells: Vec<String>,
    beneath: Option<String>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Table {
        let cells = headings.iter().map(|heading| (*heading).to_owned()).collect();
        Table { rows: vec![Row { cells, beneath: None }] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>, beneath: Option<String>) {
        let cells = cells.into_iter().map(|cell| plain(&cell)).collect();
        self.rows.push(Row { cells, beneath: beneath.map(|line| plain(&line)) });
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.cells.get(column)).map(|cell| cell.chars().count()).max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> =
                row.cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
            if let Some(beneath) = &row.beneath {
                text.push_str(&format!("    {beneath}\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["JOB", "STATE"]);
        table.row(vec!["a".into(), "failed".into()], Some("error: no".into()));
        table.row(vec!["longer".into(), "-".into()], None);
        assert_eq!(table.render(), "JOB     STATE\na       failed\n    error: no\nlonger  -\n");
    }

    #[test]
    fn names_of_others_cannot_drive_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(vec!["a\u{1b}[2J\nb".into()], None);
        assert_eq!(table.render(), "NAME\na\u{fffd}[2J\u{fffd}b\n");
    }

    #[test]
    fn sizes_have_one_decimal() {
        let shown = [0, 1023, 1024, 1536, 1024 * 1024 - 1, 4 << 30, u64::MAX].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "4.0 GiB", "16383.9 PiB"]);
    }
}
