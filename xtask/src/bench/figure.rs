//! What was measured, whether it is within reach, and how both are shown.

use serde_json::{Value, json};

/// One measured thing, of the baseline and of shiftboss.
pub(super) struct Figure {
    pub(super) what: &'static str,
    /// "" for counts.
    pub(super) unit: &'static str,
    pub(super) base: Option<f64>,
    pub(super) ours: f64,
    pub(super) reach: Reach,
}

/// What is asked of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reach {
    /// At most so many times the baseline.
    Times(f64),
    /// At least so many times the baseline.
    AtLeastTimes(f64),
    /// At most so much more than the baseline.
    More(f64),
    /// One of the two.
    TimesOrMore(f64, f64),
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
    /// Nothing; it is there to be read beside others.
    Shown,
}

impl Figure {
    /// Without a baseline.
    pub(super) fn alone(what: &'static str, unit: &'static str, ours: f64, reach: Reach) -> Figure {
        Figure { what, unit, base: None, ours, reach }
    }

    pub(super) fn beside(
        what: &'static str,
        unit: &'static str,
        base: f64,
        ours: f64,
        reach: Reach,
    ) -> Figure {
        Figure { what, unit, base: Some(base), ours, reach }
    }

    /// `None` when nothing is asked of it.
    pub(super) fn is_good(&self) -> Option<bool> {
        let times = |most: f64| self.base.is_some_and(|base| self.ours <= most * base);
        let more = |most: f64| self.base.is_some_and(|base| self.ours - base <= most);
        match self.reach {
            Reach::Times(most) => Some(times(most)),
            Reach::AtLeastTimes(least) => Some(self.base.is_some_and(|base| self.ours >= least * base)),
            Reach::More(most) => Some(more(most)),
            Reach::TimesOrMore(most_times, most_more) => Some(times(most_times) || more(most_more)),
            Reach::AtMost(most) => Some(self.ours <= most),
            Reach::AtLeast(least) => Some(self.ours >= least),
            Reach::Exactly(wanted) => Some(self.ours == wanted),
            Reach::Shown => None,
        }
    }

    fn line(&self) -> String {
        let base = self.base.map_or_else(|| "-".to_owned(), |base| self.shown(base));
        let word = match self.is_good() {
            Some(true) => "ok",
            Some(false) => "NOT",
            None => "",
        };
        let (ours, compared, reach) = (self.shown(self.ours), self.compared(), self.asked());
        format!("  {:<27}{base:>12}{ours:>12}{compared:>10}  {reach:<12}{word:<3}", self.what)
            .trim_end()
            .to_owned()
    }

    fn compared(&self) -> String {
        match (self.reach, self.base) {
            (Reach::More(_), Some(base)) => format!("{:+.1}", self.ours - base),
            (_, Some(base)) if base > 0.0 => format!("{:.2} x", self.ours / base),
            (_, _) => String::new(),
        }
    }

    fn asked(&self) -> String {
        match self.reach {
            Reach::Times(most) => format!("<= {most} x"),
            Reach::AtLeastTimes(least) => format!(">= {least} x"),
            Reach::More(most) => format!("<= +{most}"),
            Reach::TimesOrMore(times, more) => format!("{times} x or +{more}"),
            Reach::AtMost(most) => format!("<= {most}"),
            Reach::AtLeast(least) => format!(">= {least}"),
            Reach::Exactly(wanted) => format!("= {wanted}"),
            Reach::Shown => String::new(),
        }
    }

    fn shown(&self, value: f64) -> String {
        match self.unit {
            "" => format!("{value}"),
            unit => format!("{value:.2} {unit}"),
        }
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "unit": self.unit, "base": self.base, "shiftboss": self.ours,
            "reach": self.asked(), "ok": self.is_good(),
        })
    }
}

/// The figures that are measured together; or why they could not be.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// How long it took.
    pub(super) seconds: f64,
    pub(super) figures: Result<Vec<Figure>, String>,
}

impl Row {
    pub(super) fn is_good(&self) -> bool {
        self.figures
            .as_ref()
            .is_ok_and(|figures| figures.iter().all(|figure| figure.is_good() != Some(false)))
    }

    /// For people, 80 columns wide.
    pub(super) fn table(&self) -> String {
        let title = format!("{} ({:.0} s)", self.name, self.seconds);
        let mut table =
            format!("{title:<29}{:>12}{:>12}{:>10}  reach\n", "baseline", "shiftboss", "compared");
        match &self.figures {
            Ok(figures) => table.extend(figures.iter().map(|figure| figure.line() + "\n")),
            Err(error) => table += &format!("  NOT measured: {error}\n"),
        }
        table
    }

    pub(super) fn json(&self) -> Value {
        let figures: Vec<Value> = self.figures.iter().flatten().map(Figure::json).collect();
        let error = self.figures.as_ref().err();
        json!({
            "row": self.name, "seconds": self.seconds, "ok": self.is_good(), "error": error, "figures": figures,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(base: f64, ours: f64, reach: Reach) -> Figure {
        Figure::beside("p99", "ms", base, ours, reach)
    }

    #[test]
    fn a_figure_is_good_up_to_its_reach() {
        assert_eq!(figure(2.0, 3.0, Reach::Times(1.5)).is_good(), Some(true));
        assert_eq!(figure(2.0, 3.1, Reach::Times(1.5)).is_good(), Some(false));
        assert_eq!(figure(2.0, 7.0, Reach::TimesOrMore(1.5, 5.0)).is_good(), Some(true));
        assert_eq!(figure(2.0, 7.1, Reach::TimesOrMore(1.5, 5.0)).is_good(), Some(false));
        assert_eq!(figure(2.0, 99.0, Reach::Shown).is_good(), None);
        assert_eq!(Figure::alone("lost", "", 1.0, Reach::Exactly(0.0)).is_good(), Some(false));
    }

    #[test]
    fn a_ratio_without_a_baseline_is_not_good() {
        assert_eq!(Figure::alone("p99", "ms", 0.0, Reach::Times(1.5)).is_good(), Some(false));
    }

    #[test]
    fn a_row_that_could_not_be_measured_is_not_good() {
        let row = Row { name: "idle", seconds: 1.0, figures: Err("no".into()) };
        assert!(!row.is_good());
        assert!(row.table().contains("NOT measured: no"));
    }

    #[test]
    fn a_table_is_no_wider_than_eighty_columns() {
        let widest =
            Figure::beside("w".repeat(27).leak(), "KB", 12345.678, 98765.4, Reach::TimesOrMore(1.5, 5.0));
        assert!(widest.line().chars().count() <= 80, "{}", widest.line());
    }
}
