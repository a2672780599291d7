//! What one run cost: CPU time and memory of a process with its children, and the time on the wall.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use end_to_end::process::{cpu_seconds, memory};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// The cost of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) cpu_seconds: f64,
    pub(crate) wall_seconds: f64,
    /// The largest of its processes; zero where it ran inside this one.
    pub(crate) peak_mib: f64,
}

impl Cost {
    /// Runs a command to its end.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut errors = tempfile::tempfile().expect("file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone().expect("file"));
        let started = Instant::now();
        let mut child = command.spawn().expect("start");
        let pid = child.id();
        let has_ended = AtomicBool::new(false);
        let (wall_seconds, peak_kib) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut peak_kib = 0;
                while !has_ended.load(Ordering::Relaxed) {
                    peak_kib = peak_kib.max(tree_peak_kib(pid));
                    std::thread::sleep(POLL);
                }
                peak_kib
            });
            // A process that has ended keeps its times until it is waited for.
            waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("wait");
            let wall_seconds = started.elapsed().as_secs_f64();
            has_ended.store(true, Ordering::Relaxed);
            (wall_seconds, watch.join().expect("watch"))
        });
        let cpu_seconds = cpu_seconds(pid);
        let succeeded = child.wait().expect("wait").success();
        assert!(succeeded, "{command:?} failed: {}", said(&mut errors));
        #[expect(clippy::cast_precision_loss, reason = "memory of a process, shown without digits")]
        Self { cpu_seconds, wall_seconds, peak_mib: peak_kib as f64 / 1024.0 }
    }

    /// Runs work of this process, which this thread does alone.
    pub(crate) fn of_work(work: impl FnOnce()) -> Self {
        let started = Instant::now();
        work();
        let wall_seconds = started.elapsed().as_secs_f64();
        Self { cpu_seconds: wall_seconds, wall_seconds, peak_mib: 0.0 }
    }
}

/// How often memory is looked at.
const POLL: Duration = Duration::from_millis(10);

fn said(errors: &mut File) -> String {
    let mut text = String::new();
    errors.rewind().and_then(|()| errors.read_to_string(&mut text)).expect("what it said");
    text
}

/// The largest peak of the process and its children.
fn tree_peak_kib(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let of_children = children
        .flat_map(|children| children.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>())
        .map(tree_peak_kib)
        .max();
    memory(pid).peak_kib.max(of_children.unwrap_or(0))
}
