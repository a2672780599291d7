//! What a running process has cost, as Linux counts it.

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    /// What is resident now (`VmRSS`).
    pub resident_kib: u64,
    /// The most that ever was (`VmHWM`).
    pub peak_kib: u64,
}

/// The memory of a process; zeros when there is no such process.
pub fn memory(pid: u32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
    };
    Memory { resident_kib: field("VmRSS"), peak_kib: field("VmHWM") }
}

/// The fields of `/proc/PID/stat` behind the command's name; `None` when there is no such process.
pub fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// The processes that were started by these words, among others.
///
/// # Panics
/// When there is no list of processes.
pub fn started_by(words: &[&str]) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let numbers = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let has_words = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let given: Vec<_> = line.split(|byte| *byte == 0).collect();
        given.windows(words.len()).any(|window| window.iter().zip(words).all(|(given, word)| *given == word.as_bytes()))
    };
    numbers.filter(has_words).collect()
}

/// User and system time of a process and of its children, those that have ended and those that run, in seconds.
///
/// # Panics
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> f64 {
    let ticks =
        |fields: Vec<String>| -> u32 { fields[11..15].iter().map(|ticks| ticks.parse::<u32>().expect("ticks")).sum() };
    let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let children = processes
        .filter_map(|process| stat(process.file_name().to_str()?.parse().ok()?))
        .filter(|fields| fields[1] == pid.to_string());
    let ticks: u32 = children.chain([stat(pid).expect("stat")]).map(ticks).sum();
    // USER_HZ is 100 on Linux.
    f64::from(ticks) / 100.0
}
