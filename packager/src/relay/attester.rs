//! Which attester the relay's guest has: the kernel's, or in evaluation a simulated platform's, which is always said.

use std::path::Path;
use std::sync::Arc;

use command_line::{Console, Failure};
use launch_evidence::configfs::ConfigfsAttester;
use launch_evidence::sev_guest::SevGuestAttester;
use launch_evidence::simulated::SimulatedAttester;
use launch_evidence::{Attester, AttesterError};

/// The variable by which a simulated launch tells its guest where the report device is.
const SIMULATED_PLATFORM: &str = "SEALIFT_SIMULATED_PLATFORM";
/// Where the kernel offers launch evidence.
const CONFIGFS: &str = "/sys/kernel/config/tsm/report";

pub(super) fn open(console: &Console) -> Result<Arc<dyn Attester>, Failure> {
    if let Some(socket) = std::env::var_os(SIMULATED_PLATFORM) {
        let attester = SimulatedAttester::connect(Path::new(&socket)).map_err(|error| failure(&error))?;
        console.say("note: the relay's platform is SIMULATED; it protects nothing");
        return Ok(Arc::new(attester));
    }
    let missing = match ConfigfsAttester::new(Path::new(CONFIGFS)) {
        Ok(attester) => return Ok(Arc::new(attester)),
        Err(missing) => missing,
    };
    match SevGuestAttester::new() {
        Ok(attester) => Ok(Arc::new(attester)),
        // The newer interface is the one to get.
        Err(_) => Err(failure(&missing)),
    }
}

pub(super) fn failure(error: &AttesterError) -> Failure {
    Failure::verification("cannot get launch evidence of this machine")
        .caused_by(error)
        .hint("a relay runs inside a measured guest; to evaluate one, start it by `sealift simulate launch`")
}
