//! Two sides that do the same, in turns.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cost::Cost;

/// What Sealift must not exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// Ratios to the other side's medians.
    Ratio {
        /// Of CPU time, where it is limited.
        cpu: Option<f64>,
        /// Of the time on the wall.
        wall: f64,
    },
    /// Milliseconds on the wall beyond the other side's.
    MoreMilliseconds(f64),
    /// MiB of peak beyond the other side's.
    MorePeak(f64),
}

/// The largest process that Sealift may have in any row, in MiB.
pub(crate) const PEAK_MIB: f64 = 96.0;

/// What is compared.
pub(crate) struct Contest<'a> {
    pub(crate) what: String,
    pub(crate) bar: Bar,
    pub(crate) ours: Side<'a>,
    pub(crate) theirs: Side<'a>,
}

/// One of the two.
pub(crate) struct Side<'a> {
    name: String,
    /// Whether more runs would tell nothing more.
    once: bool,
    run: Box<dyn FnMut(u32) -> Cost + 'a>,
}

/// Both sides' costs, run by run.
pub(crate) struct Outcome {
    pub(crate) what: String,
    pub(crate) bar: Bar,
    pub(crate) names: [String; 2],
    pub(crate) costs: Vec<[Cost; 2]>,
    /// Load averages of the last minute, before and after.
    pub(crate) load: [f64; 2],
}

impl<'a> Side<'a> {
    /// A command, made anew for each run with a path that is not there; what it leaves at that path is removed.
    pub(crate) fn command(name: &str, target: PathBuf, mut command: impl FnMut(&Path) -> Command + 'a) -> Self {
        let run = move |number: u32| {
            let target = target.with_extension(number.to_string());
            // What others have written goes to the disk before, and not on this run's account.
            rustix::fs::sync();
            let cost = Cost::of(command(&target));
            let removed =
                if target.is_dir() { std::fs::remove_dir_all(&target) } else { std::fs::remove_file(&target) };
            if let Err(error) = removed {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", target.display());
            }
            cost
        };
        Self { name: name.to_owned(), once: false, run: Box::new(run) }
    }

    /// Work of this process.
    pub(crate) fn work(name: &str, mut work: impl FnMut() + 'a) -> Self {
        Self { name: name.to_owned(), once: false, run: Box::new(move |_| Cost::of_work(&mut work)) }
    }

    /// The same, run once, whatever was asked for.
    pub(crate) fn once(self) -> Self {
        Self { once: true, ..self }
    }
}

impl Contest<'_> {
    /// Runs both sides in turns, after one run each that does not count: caches fill.
    pub(crate) fn fight(mut self, runs: u32) -> Outcome {
        let before = load();
        let mut costs = Vec::new();
        let (first, runs) = if self.ours.once && self.theirs.once { (1, 1) } else { (0, runs) };
        for number in first..=runs {
            let both = [(self.ours.run)(number), (self.theirs.run)(number)];
            if number > 0 {
                eprintln!("{}: run {number} of {runs}: {both:.2?}", self.what);
                costs.push(both);
            }
        }
        Outcome {
            what: self.what,
            bar: self.bar,
            names: [self.ours.name, self.theirs.name],
            costs,
            load: [before, load()],
        }
    }
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").expect("load");
    text.split(' ').next().and_then(|load| load.parse().ok()).expect("load")
}
