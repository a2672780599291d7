//! Which attester this guest has: the kernel's, or in evaluation a simulated platform's, which is always said.

use std::path::Path;
use std::sync::Arc;

use command_line::{Console, ExitCode, Failure};
use launch_evidence::configfs::ConfigfsAttester;
use launch_evidence::sev_guest::SevGuestAttester;
use launch_evidence::simulated::SimulatedAttester;
use launch_evidence::{Attester, AttesterError, SampleAttester};

/// The variable by which a simulated launch tells its guest where the report device is.
pub(crate) const SIMULATED_PLATFORM: &str = "SEALIFT_SIMULATED_PLATFORM";

/// What stands in that variable in the place of a socket where even the evidence is a sample.
const SAMPLE: &str = "sample";

/// Where the kernel offers launch evidence.
pub(crate) const CONFIGFS: &str = "/sys/kernel/config/tsm/report";

/// Opens this guest's attester.
pub(crate) fn open(console: &Console) -> Result<Arc<dyn Attester>, Failure> {
    if let Some(socket) = std::env::var_os(SIMULATED_PLATFORM) {
        if socket == SAMPLE {
            console.say("note: the evidence is a SAMPLE, SIMULATED without any TEE; it protects nothing");
            return Ok(Arc::new(SampleAttester));
        }
        let attester = SimulatedAttester::connect(Path::new(&socket)).map_err(|error| failure(&error))?;
        console.say("note: the platform is SIMULATED; it protects nothing");
        return Ok(Arc::new(attester));
    }
    kernels(Path::new(CONFIGFS)).map_err(|error| failure(&error))
}

/// The kernel's interface: `configfs-tsm`, which also brings the host's certificates, else the guest driver's device.
fn kernels(base: &Path) -> Result<Arc<dyn Attester>, AttesterError> {
    match ConfigfsAttester::new(base) {
        Ok(attester) => Ok(Arc::new(attester)),
        Err(missing) => match SevGuestAttester::new() {
            Ok(attester) => Ok(Arc::new(attester)),
            // The newer interface is the one to get.
            Err(_) => Err(missing),
        },
    }
}

/// An attester's error as a command's.
pub(crate) fn failure(error: &AttesterError) -> Failure {
    Failure::new(ExitCode::VerificationFailed, "cannot get launch evidence of this machine")
        .caused_by(error)
        .hint("run inside a SEV-SNP guest (`sealift-shim doctor` says what is missing), or evaluate with `sealift simulate launch`")
}
