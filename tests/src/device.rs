//! A report device between the guest and its simulated platform that meddles: with what is asked, or with what happens
//! between question and answer.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use launch_evidence::measure::LaunchInput;
use launch_evidence::simulated::{self, LaunchOptions, SimulatedGuest, SimulatedPlatform};
use serde_json::{Value, json};

use crate::peer::{Said, run};
use crate::vendor::Vendor;

/// A guest launched from the vendor's shim on the vendor's simulated platform.
///
/// # Panics
/// When it cannot be launched.
pub fn launch(vendor: &Vendor, scratch: &Path, options: LaunchOptions) -> SimulatedGuest {
    let platform = SimulatedPlatform::open(&vendor.home().join("simulated-platform")).expect("platform");
    let file = |name: &str, bytes: Vec<u8>| -> PathBuf {
        let path = scratch.join(name);
        std::fs::write(&path, bytes).expect("file");
        path
    };
    let vcpu_type = "EPYC-v4".parse().expect("type");
    let mut input = LaunchInput::new(file("firmware", simulated::firmware()), 1, vcpu_type);
    input.kernel = Some(file("kernel", simulated::kernel()));
    input.initrd = Some(vendor.shim());
    input.append = Some("console=ttyS0".to_owned());
    platform.launch(&input, options).expect("launch")
}

/// Runs `sealift-shim ARGS` with a device that answers each request for report data by `answer`.
///
/// # Panics
/// When the device cannot be served.
pub fn run_with_device(
    mut shim: Command,
    scratch: &Path,
    args: &[&str],
    mut answer: impl FnMut(&[u8; 64]) -> Value + Send,
) -> Said {
    let socket = scratch.join("device");
    let listener = UnixListener::bind(&socket).expect("socket");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for connection in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Acquire) {
                    return;
                }
                // `None` is a client that only looked whether somebody listens.
                let _ = converse(&connection, &mut answer);
            }
        });
        let said = run(shim.args(args).env("SEALIFT_SIMULATED_PLATFORM", &socket));
        over.store(true, Ordering::Release);
        drop(UnixStream::connect(&socket));
        said
    })
}

fn converse(connection: &UnixStream, answer: &mut impl FnMut(&[u8; 64]) -> Value) -> Option<()> {
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line).ok()?;
    let request: Value = serde_json::from_str(&line).ok()?;
    let mut report_data = [0; 64];
    hex::decode_to_slice(request["report_data"].as_str()?, &mut report_data).ok()?;
    let mut text = json!({"evidence": answer(&report_data)}).to_string();
    text.push('\n');
    let mut writer = connection;
    writer.write_all(text.as_bytes()).ok()
}
