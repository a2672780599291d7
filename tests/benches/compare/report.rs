//! The figures: a table for people, or one JSON document.

use serde_json::{Value, json};

use crate::contest::{Bar, Outcome, PEAK_MIB};
use crate::cost::Cost;
use crate::options::Options;
use crate::rows::Row;
use crate::stage::Place;

/// What was measured so far.
pub(crate) struct Report {
    as_json: bool,
    rows: Vec<Value>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        if !options.json {
            println!("medians (least to most) of {} runs, in turns; ratios of the medians", options.runs);
        }
        Self { as_json: options.json, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row, place: Place, outcome: &Outcome) {
        let verdict = Verdict::of(outcome);
        if !self.as_json {
            print(place, outcome, &verdict);
            return;
        }
        let runs: Vec<_> = outcome.costs.iter().map(|both| both.map(as_json)).collect();
        self.rows.push(json!({
            "row": row.name(), "place": place.name(), "what": outcome.what, "sides": outcome.names,
            "runs": runs, "load": outcome.load, "cpu_ratio": verdict.cpu, "wall_ratio": verdict.wall,
            "more_milliseconds": verdict.more_milliseconds, "more_peak_mib": verdict.more_peak_mib, "peak_mib": verdict.peak_mib, "meets_bar": verdict.is_met,
        }));
    }

    pub(crate) fn end(self) {
        if self.as_json {
            println!("{:#}", Value::from(self.rows));
        }
    }
}

struct Verdict {
    cpu: f64,
    wall: f64,
    more_milliseconds: f64,
    more_peak_mib: f64,
    peak_mib: f64,
    is_met: bool,
}

impl Verdict {
    fn of(outcome: &Outcome) -> Self {
        let median = |side: usize, what: fn(&Cost) -> f64| Spread::of(outcome, side, what).median;
        let (cpu, wall) = (|cost: &Cost| cost.cpu_seconds, |cost: &Cost| cost.wall_seconds);
        let more_milliseconds = (median(0, wall) - median(1, wall)) * 1000.0;
        let (cpu, wall) = (median(0, cpu) / median(1, cpu), median(0, wall) / median(1, wall));
        let more_peak_mib = median(0, |cost| cost.peak_mib) - median(1, |cost| cost.peak_mib);
        let peak_mib = Spread::of(outcome, 0, |cost| cost.peak_mib).most;
        let is_met = peak_mib <= PEAK_MIB
            && match outcome.bar {
                Bar::Ratio { cpu: cpu_bar, wall: wall_bar } => cpu_bar.is_none_or(|bar| cpu <= bar) && wall <= wall_bar,
                Bar::MoreMilliseconds(bar) => more_milliseconds <= bar,
                Bar::MorePeak(bar) => more_peak_mib <= bar,
            };
        Self { cpu, wall, more_milliseconds, more_peak_mib, peak_mib, is_met }
    }
}

/// One figure of one side.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(outcome: &Outcome, side: usize, what: fn(&Cost) -> f64) -> Self {
        let mut values: Vec<f64> = outcome.costs.iter().map(|both| what(&both[side])).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Self { least: values[0], median, most: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} s ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}

fn print(place: Place, outcome: &Outcome, verdict: &Verdict) {
    let [before, after] = outcome.load;
    println!("\n{}, {}; load {before} to {after}", outcome.what, place.name());
    for (side, name) in outcome.names.iter().enumerate() {
        println!(
            "  {name:<34} CPU {}  wall {}  peak {:.0} MiB",
            Spread::of(outcome, side, |cost| cost.cpu_seconds),
            Spread::of(outcome, side, |cost| cost.wall_seconds),
            Spread::of(outcome, side, |cost| cost.peak_mib).most,
        );
    }
    let bar = match outcome.bar {
        Bar::Ratio { cpu: Some(cpu), wall } => format!("bar: CPU {cpu:.2}, wall {wall:.2}"),
        Bar::Ratio { cpu: None, wall } => format!("bar: wall {wall:.2}"),
        Bar::MorePeak(most) => format!("{:.0} MiB more; bar: {most:.0} MiB", verdict.more_peak_mib),
        Bar::MoreMilliseconds(most) => format!("{:.0} ms more; bar: {most:.0} ms", verdict.more_milliseconds),
    };
    let met = if verdict.is_met { "met" } else { "NOT MET" };
    println!("  ratio CPU {:.2}, wall {:.2}; {bar}, peak {PEAK_MIB:.0} MiB: {met}", verdict.cpu, verdict.wall);
}

fn as_json(cost: Cost) -> Value {
    json!({ "cpu_seconds": cost.cpu_seconds, "wall_seconds": cost.wall_seconds, "peak_mib": cost.peak_mib })
}
