//! Help texts of every command, as they are, and the forms of errors.

use std::process::Command;

use end_to_end::peer::{program, run};

/// What help texts show of the environment is the same everywhere.
const FIXED: [(&str, &str); 2] = [("COLUMNS", "100"), ("SEALIFT_HOME", "/nonexistent")];

fn help(name: &str, command: &[&str]) -> String {
    run(Command::new(program(name))
        .args(command)
        .arg("--help")
        .envs(FIXED)
        .env_remove("SEALIFT_STATE_DIR")
        .env_remove("SEALIFT_OFFLINE_STATE")
        .env_remove("SEALIFT_LICENSE")
        .env_remove("SEALIFT_IMAGE")
        .env_remove("SEALIFT_AGENT")
        .env_remove("SEALIFT_AGENT_STATE"))
    .succeeded()
    .stdout
}

#[test]
fn help_of_every_command_of_sealift() {
    let commands: [&[&str]; 79] = [
        &[],
        &["init"],
        &["demo"],
        &["serve"],
        &["pack"],
        &["rewrap"],
        &["cosign"],
        &["cosign", "status"],
        &["trace"],
        &["keyprovider"],
        &["inspect"],
        &["verify"],
        &["measure"],
        &["measure", "snp"],
        &["guest"],
        &["guest", "build"],
        &["guest", "boot"],
        &["product"],
        &["product", "create"],
        &["product", "show"],
        &["reference"],
        &["reference", "add"],
        &["reference", "list"],
        &["reference", "retire"],
        &["reference", "remove"],
        &["key"],
        &["key", "list"],
        &["key", "status"],
        &["key", "rotate"],
        &["secret"],
        &["secret", "put"],
        &["secret", "list"],
        &["secret", "remove"],
        &["platform"],
        &["platform", "deny"],
        &["platform", "allow"],
        &["platform", "list"],
        &["policy"],
        &["policy", "set"],
        &["policy", "show"],
        &["policy", "test"],
        &["policy", "explain"],
        &["license"],
        &["license", "issue"],
        &["license", "show"],
        &["license", "renew"],
        &["license", "suspend"],
        &["license", "resume"],
        &["license", "transfer"],
        &["license", "revoke"],
        &["lease"],
        &["lease", "list"],
        &["lease", "end"],
        &["lease", "renew"],
        &["tenant"],
        &["tenant", "create"],
        &["tenant", "list"],
        &["tenant", "show"],
        &["tenant", "delete"],
        &["token"],
        &["token", "create"],
        &["token", "list"],
        &["token", "revoke"],
        &["audit", "list"],
        &["audit", "show"],
        &["evidence"],
        &["evidence", "show"],
        &["evidence", "verify"],
        &["audit", "prove"],
        &["audit", "bundle"],
        &["audit", "verify"],
        &["audit", "export"],
        &["collateral", "bundle"],
        &["collateral", "import"],
        &["simulate"],
        &["simulate", "platform"],
        &["simulate", "launch"],
        &["completions"],
        &["man"],
    ];
    let text: Vec<String> = commands
        .iter()
        .map(|command| format!("$ sealift {} --help\n{}", command.join(" "), help("sealift", command)))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn help_of_every_command_of_the_shim() {
    let commands: [&[&str]; 16] = [
        &[],
        &["run"],
        &["unpack"],
        &["keyprovider"],
        &["agent"],
        &["containers"],
        &["oci-runtime"],
        &["stream-processor"],
        &["install"],
        &["attest"],
        &["doctor"],
        &["receipt", "verify"],
        &["receipt", "refresh"],
        &["renewal", "request"],
        &["renewal", "accept"],
        &["completions"],
    ];
    let text: Vec<String> = commands
        .iter()
        .map(|command| format!("$ sealift-shim {} --help\n{}", command.join(" "), help("sealift-shim", command)))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn errors_in_their_two_forms() {
    let cases: [(&str, &[&str]); 23] = [
        ("sealift", &["--home", "/nonexistent", "product", "list"]),
        ("sealift", &["--home", "/nonexistent", "--output", "json", "product", "list"]),
        ("sealift", &["inspect", "oci:/nonexistent:v1"]),
        ("sealift", &["inspect", "ftp://example/app"]),
        ("sealift", &["--output", "json", "license", "revoke", "lic-1"]),
        ("sealift-shim", &["run", "oci:/nonexistent:v1"]),
        ("sealift", &["measure", "snp", "--ovmf", "/nonexistent", "--vcpus", "1"]),
        ("sealift", &["measure", "snp", "--ovmf", "/nonexistent", "--vcpu-type", "Z80"]),
        ("sealift", &["measure", "snp", "--ovmf", "/nonexistent", "--vmm", "ec2"]),
        ("sealift", &["measure", "snp", "--ovmf", "/nonexistent", "--initrd", "/nonexistent"]),
        ("sealift", &["measure", "snp", "--ovmf", "/nonexistent", "--guest-features", "0x20"]),
        ("sealift", &["measure", "snp", "--ovmf", "/nonexistent", "--id-block"]),
        ("sealift", &["measure", "snp", "--ovmf", "/nonexistent", "--id-block", "--id-key", "/nonexistent"]),
        ("sealift", &["reference", "add", "--product", "shop"]),
        ("sealift", &["reference", "add", "--product", "shop", "--digest", "ab", "--vcpus", "2"]),
        ("sealift", &["reference", "add", "--product", "shop", "--id-key-digest", "ab", "--min-svn", "1"]),
        ("sealift", &["platform", "deny", "Milan:fmc<3", "--reason", "old"]),
        ("sealift", &["platform", "deny", "Rome", "--reason", "old"]),
        ("sealift-shim", &["run", "oci:/nonexistent:v1", "--license", "/nonexistent"]),
        ("sealift-shim", &["unpack", "oci:/nonexistent:v1", "/tmp", "--license", "/nonexistent"]),
        ("sealift", &["keyprovider", "--listen", "0.0.0.0:50051"]),
        ("sealift-shim", &["install", "containerd", "--engine-version", "2.1.6", "--root", "/nonexistent"]),
        ("sealift-shim", &["install", "podman", "--undo", "--root", "/nonexistent"]),
    ];
    let text: Vec<String> = cases
        .iter()
        .map(|(name, args)| {
            let said =
                run(Command::new(program(name)).args(*args).envs(FIXED).env_remove("SEALIFT_SIMULATED_PLATFORM"));
            assert!(said.stdout.is_empty(), "errors go to stderr: {}", said.stdout);
            format!("$ {name} {}\nexit code {}\n{}", args.join(" "), said.code, said.stderr)
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}
