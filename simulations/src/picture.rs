//! A run as SVG: bytes from outside and machines done over time, beside the baselines. Readable on light and dark ground.

use std::fmt::Write;

use crate::baseline::Course;
use crate::report::{Outcome, bytes, seconds};

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 700.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 690.0;
/// Top and bottom of the two panels.
const PANELS: [(f64, f64); 2] = [(84.0, 344.0), (400.0, 640.0)];
/// Most points of one line.
const POINTS: usize = 300;

const STYLE: &str = "
  svg { background: #fff; color: #1b1f24; font: 14px system-ui, sans-serif }
  text { fill: currentColor } .small { font-size: 12px; opacity: .75 } .title { font-size: 18px; font-weight: 600 }
  .grid { stroke: currentColor; opacity: .14 } .frame { stroke: currentColor; opacity: .45; fill: none }
  .line { fill: none; stroke-width: 2.2; stroke-linejoin: round } .ideal { stroke: currentColor; stroke-dasharray: 2 5; opacity: .8 }
  .c0 { stroke: #0b63c5; stroke-width: 3.4 } .c1 { stroke: #b3261e } .c2 { stroke: #8a5a00 } .c3 { stroke: #6f3fa0 }
  .c2 { stroke-dasharray: 9 4 } .c3 { stroke-dasharray: 3 3 }
  @media (prefers-color-scheme: dark) {
    svg { background: #14181d; color: #e8eaed }
    .c0 { stroke: #6db3ff } .c1 { stroke: #ff8a80 } .c2 { stroke: #e8b339 } .c3 { stroke: #c9a2f2 }
  }
";

/// An axis: from, to, both above 0; logarithmic or not.
struct Axis {
    from: f64,
    to: f64,
    log: bool,
}

impl Axis {
    fn share(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        if self.log {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }
}

/// The picture.
pub(crate) fn draw(outcome: &Outcome) -> String {
    let courses: Vec<(&str, &Course)> = std::iter::once(("haulout", &outcome.own))
        .chain(outcome.baselines.iter().map(|(name, course)| (*name, course)))
        .collect();
    let longest =
        courses.iter().map(|(_, course)| course.finish_s()).fold(outcome.ideal_s, f64::max);
    let time = Axis { from: 1.0, to: (longest * 1.15).max(10.0), log: true };
    let most = courses
        .iter()
        .map(|(_, course)| course.wan_bytes)
        .max()
        .unwrap_or(1)
        .max(outcome.closure_bytes);
    let least = (outcome.closure_bytes as f64 / 100.0).max(1e3);
    let amount = Axis { from: least, to: (most as f64 * 1.6).max(least * 10.0), log: true };
    let done = Axis { from: 0.0, to: 100.0, log: false };

    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} machines: bytes from outside and machines done over time\">\n<style>{STYLE}</style>\n",
        outcome.agents
    );
    let title = format!("{}: {} machines take an update", outcome.scenario, outcome.agents);
    text(&mut svg, LEFT, 32.0, "title", &title);
    let under = format!(
        "{} wanted in all, once; seed {}; both time axes logarithmic, seconds since the wave began",
        bytes(outcome.closure_bytes),
        outcome.seed
    );
    text(&mut svg, LEFT, 54.0, "small", &under);
    frame(&mut svg, PANELS[0], "Bytes from outside", &time, &amount, &|value| bytes(value as u64));
    frame(&mut svg, PANELS[1], "Machines done, %", &time, &done, &|value| format!("{value:.0} %"));

    for (number, (_, course)) in courses.iter().enumerate() {
        let bytes_line = course.samples.iter().map(|(at, bytes)| (*at, *bytes as f64));
        line(&mut svg, number, PANELS[0], (&time, &amount), bytes_line.collect());
        let all = course.finished.len().max(1) as f64;
        let steps = std::iter::once((time.from, 0.0)).chain(
            (1..).zip(&course.finished).map(|(count, at)| (*at, 100.0 * f64::from(count) / all)),
        );
        line(&mut svg, number, PANELS[1], (&time, &done), steps.collect());
    }
    ideal(&mut svg, outcome, &time, &amount);
    legend(&mut svg, outcome, &courses);
    svg + "</svg>\n"
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
}

fn x_of(time: &Axis, at: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * time.share(at)
}

fn y_of(panel: (f64, f64), axis: &Axis, value: f64) -> f64 {
    panel.1 - (panel.1 - panel.0) * axis.share(value)
}

/// Frame, grid and labels of a panel.
fn frame(
    svg: &mut String,
    panel: (f64, f64),
    name: &str,
    time: &Axis,
    axis: &Axis,
    label: &dyn Fn(f64) -> String,
) {
    text(svg, LEFT, panel.0 - 10.0, "", name);
    let (top, height) = (panel.0, panel.1 - panel.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"{height}\" class=\"frame\"/>",
        RIGHT - LEFT
    );
    for at in [1.0, 10.0, 60.0, 600.0, 3_600.0, 36_000.0, 360_000.0] {
        if at <= time.to {
            let x = x_of(time, at);
            let _ = writeln!(svg, "<path d=\"M{x:.1} {top}V{}\" class=\"grid\"/>", panel.1);
            text(svg, x - 12.0, panel.1 + 18.0, "small", &seconds_short(at));
        }
    }
    let steps: Vec<f64> = if axis.log {
        (0..18)
            .map(|power| 10f64.powi(power))
            .filter(|value| *value >= axis.from && *value <= axis.to)
            .collect()
    } else {
        vec![0.0, 25.0, 50.0, 75.0, 100.0]
    };
    for value in steps {
        let y = y_of(panel, axis, value);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" class=\"grid\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" class=\"small\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            label(value)
        );
    }
}

fn seconds_short(at: f64) -> String {
    match at {
        0.0..60.0 => format!("{at:.0} s"),
        60.0..3_600.0 => format!("{:.0} min", at / 60.0),
        _ => format!("{:.0} h", at / 3_600.0),
    }
}

fn line(
    svg: &mut String,
    number: usize,
    panel: (f64, f64),
    axes: (&Axis, &Axis),
    points: Vec<(f64, f64)>,
) {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.iter().enumerate().filter(|(place, _)| place % every == 0 || *place == last);
    let mut path = String::new();
    for (_, (at, value)) in kept {
        let (x, y) = (x_of(axes.0, *at), y_of(panel, axes.1, *value));
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
    }
    let _ = writeln!(svg, "<path d=\"{path}\" class=\"line c{number}\"/>");
}

fn ideal(svg: &mut String, outcome: &Outcome, time: &Axis, amount: &Axis) {
    let y = y_of(PANELS[0], amount, outcome.closure_bytes as f64);
    let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" class=\"line ideal\"/>");
    let x = x_of(time, outcome.ideal_s);
    let _ =
        writeln!(svg, "<path d=\"M{x:.1} {}V{}\" class=\"line ideal\"/>", PANELS[1].0, PANELS[1].1);
}

fn legend(svg: &mut String, outcome: &Outcome, courses: &[(&str, &Course)]) {
    let x = RIGHT + 22.0;
    for (number, (name, course)) in courses.iter().enumerate() {
        let y = PANELS[0].0 + 14.0 + 62.0 * number as f64;
        let _ = writeln!(svg, "<path d=\"M{x} {:.1}h28\" class=\"line c{number}\"/>", y - 5.0);
        text(svg, x + 36.0, y, "", name);
        text(svg, x, y + 18.0, "small", &format!("{} from outside", bytes(course.wan_bytes)));
        text(svg, x, y + 34.0, "small", &format!("last machine {}", seconds(course.finish_s())));
    }
    let y = PANELS[0].0 + 14.0 + 62.0 * courses.len() as f64;
    let _ = writeln!(svg, "<path d=\"M{x} {:.1}h28\" class=\"line ideal\"/>", y - 5.0);
    text(svg, x + 36.0, y, "", "ideal");
    text(svg, x, y + 18.0, "small", &format!("last machine {}", seconds(outcome.ideal_s)));
}
