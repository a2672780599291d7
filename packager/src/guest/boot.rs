//! Boots a guest on the simulated platform, in QEMU: measured are the very copies of its files that QEMU is given, and
//! reports are served for that launch alone, over a virtio serial port. Protects nothing.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use command_line::{ExitCode, Failure, FailureContext as _};
use launch_evidence::Measurement;
use launch_evidence::measure::{LaunchInput, VcpuType};
use launch_evidence::simulated::{self, LaunchOptions, SimulatedGuest, SimulatedPlatform, SimulatedServer};
use release_protocol::guest::{EXIT_LINE, SIMULATED_PORT};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::launch::file;

/// The virtual CPU that is measured; the one that QEMU emulates is no AMD EPYC.
const VCPU_TYPE: &str = "EPYC-v4";

/// A guest whose files have been copied and measured.
pub(crate) struct MeasuredGuest {
    scratch: tempfile::TempDir,
    append: String,
    vcpus: u32,
    guest: SimulatedGuest,
}

/// How QEMU runs.
pub(crate) struct Machine {
    /// The program.
    pub(crate) program: PathBuf,
    /// `tcg`, `kvm`.
    pub(crate) accelerator: String,
    /// In MiB.
    pub(crate) memory: u32,
    /// Further arguments.
    pub(crate) args: Vec<OsString>,
}

impl MeasuredGuest {
    /// Copies and measures the guest in `directory` on the platform in `platform_dir`.
    pub(crate) fn launch(platform_dir: &Path, directory: &Path, vcpus: u32) -> Result<Self, Failure> {
        let platform = SimulatedPlatform::open(platform_dir)
            .or_fail(ExitCode::BadInput, || format!("cannot open the simulated platform `{}`", platform_dir.display()))
            .map_err(|failure| failure.hint("make one with `sealift simulate platform`"))?;
        let scratch = tempfile::Builder::new().prefix("guest-").tempdir_in(platform_dir);
        let scratch = scratch.or_fail(ExitCode::Other, || format!("cannot write to `{}`", platform_dir.display()))?;
        let unreadable = |name: &str| format!("cannot read `{}`", directory.join(name).display());
        for name in [file::KERNEL, file::INITRD] {
            fs::copy(directory.join(name), scratch.path().join(name))
                .or_fail(ExitCode::BadInput, || unreadable(name))
                .map_err(|failure| failure.hint("name a folder that `sealift guest build` wrote"))?;
        }
        let append = fs::read_to_string(directory.join(file::COMMAND_LINE))
            .or_fail(ExitCode::BadInput, || unreadable(file::COMMAND_LINE))?;
        let append = append.trim_end_matches('\n').to_owned();
        let firmware = scratch.path().join("firmware");
        fs::write(&firmware, simulated::firmware())
            .or_fail(ExitCode::Other, || format!("cannot write `{}`", firmware.display()))?;
        let vcpu_type: VcpuType =
            VCPU_TYPE.parse().or_fail(ExitCode::Other, || format!("`{VCPU_TYPE}` is no type of virtual CPU"))?;
        let mut input = LaunchInput::new(firmware, vcpus, vcpu_type);
        input.kernel = Some(scratch.path().join(file::KERNEL));
        input.initrd = Some(scratch.path().join(file::INITRD));
        input.append = Some(append.clone());
        let guest = platform
            .launch(&input, LaunchOptions::default())
            .or_fail(ExitCode::BadInput, || "cannot launch the simulated guest".to_owned())?;
        Ok(Self { scratch, append, vcpus, guest })
    }

    pub(crate) fn measurement(&self) -> Measurement {
        self.guest.measurement()
    }

    /// Boots it; its console is this process's stdout. Gives the exit code that the guest reported.
    pub(crate) async fn boot(self, machine: &Machine) -> Result<u8, Failure> {
        let socket = self.scratch.path().join("report");
        let mut command = self.qemu(machine, &socket);
        let _server = SimulatedServer::start(&socket, self.guest)
            .or_fail(ExitCode::Other, || "cannot serve the simulated report device".to_owned())?;
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .or_fail(ExitCode::Other, || format!("cannot run `{}`", machine.program.display()))
            .map_err(|failure| failure.hint("install QEMU (Debian: `qemu-system-x86`), or name it by `--qemu`"))?;
        let console = qemu.stdout.take().ok_or_else(|| Failure::other("QEMU has no console"))?;
        let failed = || "cannot listen for signals".to_owned();
        let mut terminate = signal(SignalKind::terminate()).or_fail(ExitCode::Other, failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).or_fail(ExitCode::Other, failed)?;
        let code = tokio::select! {
            code = pass_on(console) => code.or_fail(ExitCode::Other, || "cannot read the guest's console".to_owned())?,
            // The machine is switched off with this process: it ends when it is dropped.
            _ = terminate.recv() => return Ok(128 + 15),
            _ = interrupt.recv() => return Ok(128 + 2),
        };
        let status = qemu.wait().await.or_fail(ExitCode::Other, || "cannot wait for QEMU".to_owned())?;
        code.ok_or_else(|| {
            Failure::other("the guest ended without an exit code")
                .cause(format!("QEMU ended with {status}"))
                .hint("its console is above; take `quiet` out of the kernel's command line to see more")
        })
    }

    fn qemu(&self, machine: &Machine, socket: &Path) -> Command {
        let file = |name: &str| self.scratch.path().join(name);
        let mut chardev = OsString::from("socket,id=report,reconnect=1,path=");
        // A comma in a value is written twice.
        chardev.push(socket.to_string_lossy().replace(',', ",,"));
        let mut command = Command::new(&machine.program);
        command
            .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-machine", "q35", "-cpu", "max"])
            .args(["-accel", &machine.accelerator, "-smp", &self.vcpus.to_string()])
            .args(["-m", &format!("{}M", machine.memory), "-serial", "stdio"])
            .arg("-kernel")
            .arg(file(file::KERNEL))
            .arg("-initrd")
            .arg(file(file::INITRD))
            .args(["-append", &self.append])
            .args(["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile="])
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci", "-chardev"])
            .arg(chardev)
            .args(["-device", &format!("virtserialport,chardev=report,name={SIMULATED_PORT}")])
            .args(&machine.args);
        command
    }
}

/// Copies the console to stdout; gives the code of the last line in which the guest reported one.
async fn pass_on(mut console: impl AsyncRead + Unpin) -> std::io::Result<Option<u8>> {
    let mut stdout = std::io::stdout();
    let mut block = vec![0; 16 * 1024];
    let mut reported = Reported::default();
    loop {
        let length = console.read(&mut block).await?;
        let Some(seen @ [_, ..]) = block.get(..length) else { return Ok(reported.code) };
        reported.see(seen);
        // A reader that has gone away (`| head`) is no failure of the guest.
        let _ = stdout.write_all(seen).and_then(|()| stdout.flush());
    }
}

/// Looks for the exit code in a console's bytes.
#[derive(Default)]
struct Reported {
    line: Vec<u8>,
    code: Option<u8>,
}

impl Reported {
    /// The longest line that is looked at, in bytes.
    const LINE: usize = 4096;

    fn see(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < Self::LINE {
                    self.line.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            if let Some(code) = line.trim_end().strip_prefix(EXIT_LINE).and_then(|code| code.parse().ok()) {
                self.code = Some(code);
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_found_however_the_console_is_cut() {
        let console = format!("hello\r\n{EXIT_LINE}seven\r\nnot {EXIT_LINE}3\r\n{EXIT_LINE}7\r\n");
        for size in 1..console.len() {
            let mut reported = Reported::default();
            console.as_bytes().chunks(size).for_each(|bytes| reported.see(bytes));
            assert_eq!(reported.code, Some(7), "cut to {size}");
        }
    }

    #[test]
    fn a_console_without_the_line_has_no_exit_code() {
        let mut reported = Reported::default();
        reported.see(&vec![b'x'; 3 * Reported::LINE]);
        reported.see(format!("{EXIT_LINE}7").as_bytes());
        assert_eq!(reported.code, None);
    }
}
