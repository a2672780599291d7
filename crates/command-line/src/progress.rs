//! Progress bars for byte streams, on stderr, hidden where nobody would see them.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that counts bytes. Cheap to clone; clones feed the same bar.
#[derive(Clone, Debug)]
pub struct ByteProgress(ProgressBar);

impl ByteProgress {
    /// A bar of `total_bytes` with `label` before it; draws nothing when not `visible`.
    pub(crate) fn new(label: &str, total_bytes: u64, visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target);
        if let Ok(style) =
            ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(label.to_owned());
        Self(bar)
    }

    /// A bar that is never drawn.
    pub fn hidden() -> Self {
        Self::new("", 0, false)
    }

    /// Counts `bytes` more.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
