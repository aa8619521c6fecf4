//! Numbers and tables for people.

use std::time::Duration;

use haulout_gateway::api::NetworkReport;

/// Bytes with a decimal unit and three significant digits: `1.23 MB`.
pub(crate) fn bytes(count: u64) -> String {
    haulout_gateway::Bytes(count).to_string()
}

/// Bytes over a time, per second.
pub(crate) fn rate(count: u64, time: Duration) -> String {
    if time.is_zero() {
        return "-".to_owned();
    }
    format!("{}/s", bytes((count as f64 / time.as_secs_f64()) as u64))
}

/// A time with a fitting unit: `0.35 ms`, `1.2 s`, `3 h 20 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match time.as_secs() {
        0 if seconds < 0.01 => format!("{:.2} ms", seconds * 1e3),
        0..60 => format!("{seconds:.2} s"),
        whole @ 60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        whole => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A network in one line, with what a rule in `network.known` would have to say.
pub(crate) fn network(network: &NetworkReport) -> String {
    let mut text = format!("{}: {}", network.interface, network.addresses.join(", "));
    if let Some(ssid) = &network.ssid {
        text.push_str(&format!(", ssid {ssid}"));
    }
    if let Some(gateway) = &network.gateway {
        text.push_str(&format!(", gateway {gateway}"));
    }
    if let Some(mac) = &network.gateway_mac {
        text.push_str(&format!(" ({mac})"));
    }
    match (&network.known_by, network.used) {
        (Some(rule), _) => text.push_str(&format!("; known by \"{rule}\"")),
        (None, false) => text.push_str("; not known, not used"),
        (None, true) => {}
    }
    text
}

/// Rows of text in aligned columns; the first row is the heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that are aligned to the right, because they hold numbers.
    right: Vec<usize>,
}

impl Table {
    /// A table with this heading; the columns named by `right` hold numbers.
    pub(crate) fn new(heading: &[&str], right: &[usize]) -> Self {
        let heading = heading.iter().map(|cell| (*cell).to_owned()).collect();
        Self { rows: vec![heading], right: right.to_vec() }
    }

    /// Adds one row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is nothing but the heading.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The text, each line indented by two spaces.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.chars().count());
                let (left, right) = if self.right.contains(&column) {
                    (padding.as_str(), "")
                } else {
                    ("", padding.as_str())
                };
                line.push_str(&format!(" {left}{cell}{right} "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_are_short_and_right() {
        assert_eq!(rate(1_000_000, Duration::from_millis(500)), "2.00 MB/s");
        assert_eq!(rate(1, Duration::ZERO), "-");
        assert_eq!(duration(Duration::from_micros(350)), "0.35 ms");
        assert_eq!(duration(Duration::from_secs(3 * 3600 + 1201)), "3 h 20 min");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["from", "bytes"], &[1]);
        assert!(table.is_empty());
        table.row(["peer é".to_owned(), "7".to_owned()]);
        assert_eq!(table.render(), "  from    bytes\n  peer é      7\n");
    }
}
