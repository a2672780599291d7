//! `measure`: launch digests from the files that boot.

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use launch_evidence::measure::{LaunchInput, VcpuType};
use serde_json::json;

use crate::cli::{LaunchArgs, MeasureCommand};

pub(crate) fn run(command: MeasureCommand, console: &Console) -> Result<(), Failure> {
    match command {
        MeasureCommand::Snp(args) => {
            let mut measured = Vec::new();
            for input in inputs(&args.launch)? {
                let measurement =
                    input.measure().or_fail(ExitCode::BadInput, || "cannot compute the launch digest".to_owned())?;
                measured.push(json!({
                    "vcpus": input.vcpus, "vcpu_type": input.vcpu_type.to_string(), "measurement": measurement.to_string(),
                }));
            }
            match measured.as_slice() {
                [single] => console.result(single, || text(single)),
                // One hex alone is for `$( )`; several need their parameters beside them.
                many => console.result(&many, || serde_json::to_string_pretty(many).unwrap_or_default()),
            }
            Ok(())
        }
    }
}

fn text(measured: &serde_json::Value) -> String {
    measured["measurement"].as_str().unwrap_or_default().to_owned()
}

/// The matrix of launches that the arguments mean.
fn inputs(args: &LaunchArgs) -> Result<Vec<LaunchInput>, Failure> {
    let mut inputs = Vec::new();
    for name in &args.vcpu_type {
        let vcpu_type: VcpuType = name
            .parse()
            .or_fail(ExitCode::Usage, || format!("`{name}` is no type of virtual CPU"))
            .map_err(|failure| failure.hint(format!("types are: {}", VcpuType::NAMES.join(", "))))?;
        for &vcpus in &args.vcpus {
            let mut input = LaunchInput::new(&args.firmware, vcpus, vcpu_type);
            input.kernel.clone_from(&args.kernel);
            input.initrd.clone_from(&args.initrd);
            input.append.clone_from(&args.append);
            input.guest_features = args.guest_features;
            inputs.push(input);
        }
    }
    Ok(inputs)
}
