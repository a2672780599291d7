//! The switches by which a receipt is held against witnesses of the log.

use clap::Args;
use transparency_log::{VerifierKey, Witnesses};

use crate::Failure;

/// Which witnesses have to have signed.
#[derive(Args, Clone, Debug)]
pub struct WitnessArgs {
    /// Demand the cosignature of this witness; the option may be repeated.
    #[arg(long = "witness", value_name = "VKEY")]
    witnesses: Vec<VerifierKey>,
    /// How many of the witnesses have to have cosigned; all of them by default.
    #[arg(long, value_name = "N", requires = "witnesses")]
    quorum: Option<usize>,
}

impl WitnessArgs {
    /// The witnesses, each once and of the right kind.
    pub fn witnesses(self) -> Result<Witnesses, Failure> {
        let quorum = self.quorum.unwrap_or(self.witnesses.len());
        if quorum == 0 && !self.witnesses.is_empty() {
            return Err(Failure::usage("a quorum of 0 demands nothing").hint("leave `--witness` away instead"));
        }
        Witnesses::new(self.witnesses, quorum).map_err(|error| {
            Failure::usage("the witnesses cannot be used")
                .caused_by(&error)
                .hint("a witness's key has the kind 0x04: the base64 after the second `+` begins with `B`")
        })
    }
}
