//! What was measured, and against what.

use serde::Serialize;

/// One measured value.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// What it is about.
    what: String,
    /// Of the values.
    unit: &'static str,
    /// Ours.
    value: f64,
    /// Another program's, on the same work in the same run.
    other: Option<Other>,
    goal: Option<Goal>,
}

#[derive(Debug, Clone, Serialize)]
struct Other {
    name: String,
    value: Option<f64>,
}

/// What the design asks for.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// Our value, at most.
    AtMost(f64),
    /// Our value over the other's, at least.
    TimesOther(f64),
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self { what: what.into(), unit, value, other: None, goal: None }
    }

    /// `value` is `None` when the other program is not installed.
    #[must_use]
    pub(crate) fn than(mut self, name: impl Into<String>, value: Option<f64>) -> Self {
        self.other = Some(Other { name: name.into(), value });
        self
    }

    #[must_use]
    pub(crate) const fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Ours over the other's.
    fn times(&self) -> Option<f64> {
        Some(self.value / self.other.as_ref()?.value?)
    }

    fn met(&self) -> Option<bool> {
        match self.goal? {
            Goal::AtMost(most) => Some(self.value <= most),
            Goal::TimesOther(least) => Some(self.times()? >= least),
        }
    }

    pub(crate) fn cells(&self) -> [String; 7] {
        let (name, value) = match &self.other {
            None => (String::new(), String::new()),
            Some(Other { name, value: None }) => (format!("{name}: not installed"), String::new()),
            Some(Other { name, value: Some(value) }) => (name.clone(), number(*value, self.unit)),
        };
        let goal = match self.goal {
            None => String::new(),
            Some(Goal::AtMost(most)) => format!("at most {}", number(most, self.unit)),
            Some(Goal::TimesOther(least)) => format!("at least {least} times"),
        };
        let verdict = match self.met() {
            None => "",
            Some(true) => "met",
            Some(false) => "missed",
        };
        let times = self.times().map_or(String::new(), |times| format!("{times:.2}"));
        [self.what.clone(), number(self.value, self.unit), name, value, times, goal, verdict.into()]
    }
}

/// Three digits and the unit.
fn number(value: f64, unit: &str) -> String {
    let decimals = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$} {unit}")
}

/// The value in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged_and_a_missing_rival_is_not() {
        let figure = Figure::new("x", "MB/s", 300.0).goal(Goal::TimesOther(3.0));
        assert_eq!(figure.clone().than("y", Some(100.0)).met(), Some(true));
        assert_eq!(figure.clone().than("y", Some(101.0)).met(), Some(false));
        assert_eq!(figure.clone().than("y", None).met(), None);
        assert!(figure.than("y", None).cells()[2].contains("not installed"));
        assert_eq!(Figure::new("x", "ms", 0.1).goal(Goal::AtMost(0.1)).met(), Some(true));
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(number(1234.5, "ns"), "1234 ns");
        assert_eq!(number(12.345, "ns"), "12.3 ns");
        assert_eq!(number(0.0567, "ms"), "0.057 ms");
    }
}
