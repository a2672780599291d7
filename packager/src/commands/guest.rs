//! `guest`: builds a guest that boots measured, and boots one on the simulated platform.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use image_store::ImageReference;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::table;
use crate::cli::{GuestBootArgs, GuestBuildArgs, GuestCommand, GuestRelayArgs, MachineArgs};
use crate::guest::boot::{Machine, MeasuredGuest};
use crate::guest::cpio::{Archive, Entry};
use crate::guest::initrd::{self, Purpose};
use crate::guest::launch::{self, Launch, file};
use crate::guest::relay::of_relay;
use crate::home::{VendorHome, write_new};

/// Runs the command; the exit code of a boot is the guest's.
pub(crate) async fn run(home: &VendorHome, command: GuestCommand, console: &Console) -> Result<u8, Failure> {
    match command {
        GuestCommand::Build(args) => build(&args, console).map(|()| 0),
        GuestCommand::Relay(args) => relay(home, &args, console).map(|()| 0),
        GuestCommand::Boot(args) => boot(home, args, console).await,
    }
}

/// The content of `launch.json`.
#[derive(Serialize)]
struct Built {
    directory: PathBuf,
    simulated: bool,
    files: Vec<FileDigest>,
    command_line: String,
    launches: Vec<Launch>,
    /// What is in the initial RAM disk.
    initrd: Vec<FileDigest>,
}

#[derive(Serialize)]
struct FileDigest {
    path: String,
    sha256: String,
}

impl FileDigest {
    fn of(path: &str, content: &[u8]) -> Self {
        Self { path: path.to_owned(), sha256: hex::encode(Sha256::digest(content)) }
    }
}

fn build(args: &GuestBuildArgs, console: &Console) -> Result<(), Failure> {
    if !matches!(args.image, ImageReference::Docker(_)) {
        return Err(Failure::bad_input(format!("a guest cannot reach `{}`", args.image))
            .hint("copy the image to a registry and name it as docker://"));
    }
    make(&args.machine, initrd::of_workload(args)?, console)
}

fn relay(home: &VendorHome, args: &GuestRelayArgs, console: &Console) -> Result<(), Failure> {
    if args.url.scheme() != "https" {
        return Err(Failure::bad_input(format!("the relay's address `{}` is not https", args.url)));
    }
    let license = crate::relay::read_license(&args.machine.license)?;
    let own = || std::env::current_exe().or_fail(ExitCode::Other, || "cannot find this program's own path".to_owned());
    let program = args.sealift.clone().map_or_else(own, Ok)?;
    let platform = args.platform.clone().unwrap_or_else(|| home.service().simulated_platform_path());
    make(&args.machine, of_relay(args, &license, &program, &platform)?, console)
}

/// Makes the guest's folder.
fn make(args: &MachineArgs, purpose: Purpose, console: &Console) -> Result<(), Failure> {
    let initrd = initrd::assemble(args, &shim(args)?, purpose)?;
    if !initrd.absent_evidence.is_empty() && !args.simulated {
        console.say(format!(
            "warning: the kernel has no {}: on hardware its guest boots but cannot attest",
            initrd.absent_evidence.join(", ")
        ));
    }
    let directory = std::path::absolute(&args.directory)
        .or_fail(ExitCode::BadInput, || format!("`{}` is no path", args.directory.display()))?;
    // The licence is in it: nobody else's.
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .or_fail(ExitCode::BadInput, || format!("cannot make `{}`", directory.display()))
        .map_err(|failure| failure.hint("name a new folder"))?;
    let built = fill(args, &directory, &initrd.archive).inspect_err(|_| {
        // The failure is what there is to say; half a guest must not stay.
        let _ = fs::remove_dir_all(&directory);
    })?;
    if built.simulated {
        console.say("built for a SIMULATED platform: it protects nothing, and attests nowhere else");
    }
    console.say(format!("`{}/initrd` holds the licence, a bearer's token: keep it from others", directory.display()));
    console.result(&built, || describe(&built));
    Ok(())
}

/// Writes the guest's files and measures them.
fn fill(args: &MachineArgs, directory: &Path, archive: &Archive) -> Result<Built, Failure> {
    let kernel = fs::read(&args.kernel)
        .or_fail(ExitCode::BadInput, || format!("cannot read the kernel `{}`", args.kernel.display()))?;
    write_new(&directory.join(file::KERNEL), &kernel, 0o644)?;
    write_new(&directory.join(file::COMMAND_LINE), args.append.as_bytes(), 0o644)?;
    let path = directory.join(file::INITRD);
    let initrd_digest =
        write_archive(&path, archive).or_fail(ExitCode::BadInput, || format!("cannot write `{}`", path.display()))?;
    let built = Built {
        directory: directory.to_owned(),
        simulated: args.simulated,
        files: vec![
            FileDigest::of(file::KERNEL, &kernel),
            FileDigest { path: file::INITRD.to_owned(), sha256: initrd_digest },
            FileDigest::of(file::COMMAND_LINE, args.append.as_bytes()),
        ],
        command_line: args.append.clone(),
        launches: launch::launches(args, directory)?,
        initrd: contents(archive),
    };
    let text = serde_json::to_string_pretty(&built).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
    write_new(&directory.join(file::DESCRIPTION), text.as_bytes(), 0o644)?;
    Ok(built)
}

fn shim(args: &MachineArgs) -> Result<PathBuf, Failure> {
    if let Some(shim) = &args.shim {
        return Ok(shim.clone());
    }
    let own = std::env::current_exe().or_fail(ExitCode::Other, || "cannot find this program's own path".to_owned())?;
    let shim = own.with_file_name("sealift-shim");
    if shim.is_file() {
        return Ok(shim);
    }
    Err(Failure::bad_input(format!("the shim `{}` is missing", shim.display())).hint("name one by `--shim`"))
}

/// Writes the archive; gives its SHA-256.
fn write_archive(path: &Path, archive: &Archive) -> io::Result<String> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut output = Hashing { inner: BufWriter::new(file), hash: Sha256::new() };
    archive.write(&mut output)?;
    output.flush()?;
    Ok(hex::encode(output.hash.finalize()))
}

/// Hashes what is written through it.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..length).unwrap_or_default());
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn contents(archive: &Archive) -> Vec<FileDigest> {
    let files = archive.entries().filter_map(|(path, entry)| match entry {
        Entry::File { content, .. } => Some(FileDigest::of(path, content)),
        Entry::CharacterDevice { .. } | Entry::Directory { .. } => None,
    });
    files.collect()
}

fn describe(built: &Built) -> String {
    let files = built.files.iter().map(|file| vec![file.path.clone(), file.sha256.clone()]).collect();
    let mut parts = vec![built.directory.display().to_string(), table::render(&["FILE", "SHA-256"], files)];
    if !built.launches.is_empty() {
        let row =
            |launch: &Launch| vec![launch.vcpu_type.clone(), launch.vcpus.to_string(), launch.measurement.clone()];
        let rows = built.launches.iter().map(row).collect();
        parts.push(table::render(&["CPU", "COUNT", "LAUNCH MEASUREMENT"], rows));
    }
    if let Some(launch) = built.launches.first() {
        parts.push(format!("On an SEV-SNP host:\n{}", launch.qemu));
    }
    parts.join("\n\n")
}

async fn boot(home: &VendorHome, args: GuestBootArgs, console: &Console) -> Result<u8, Failure> {
    let platform = args.platform.unwrap_or_else(|| home.service().simulated_platform_path());
    let guest = MeasuredGuest::launch(&platform, &args.directory, args.vcpus)?;
    let measurement = guest.measurement().to_string();
    if args.measure_only {
        let document = serde_json::json!({"measurement": measurement, "simulated": true});
        console.result(&document, || measurement.clone());
        return Ok(0);
    }
    console.say(format!("booting on a SIMULATED platform, which protects nothing; launch measurement {measurement}"));
    let machine = Machine { program: args.qemu, accelerator: args.accelerator, memory: args.memory, args: args.args };
    guest.boot(&machine).await
}
