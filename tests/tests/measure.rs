//! Launches measured at the command line: matrices, ID blocks with OpenSSL's keys, and reference values made of them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use end_to_end::peer::{Said, peer, program, run};
use end_to_end::vendor::Vendor;
use launch_evidence::measure::id_block::{IdAuthInfo, IdBlock};
use launch_evidence::simulated;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const PRODUCT: &str = "recipe";

/// What boots, as files.
struct Files {
    ovmf: String,
    kernel: String,
    initrd: String,
}

impl Files {
    fn write(folder: &Path) -> Self {
        let write = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        Self {
            ovmf: write("OVMF.fd", &simulated::firmware()),
            kernel: write("vmlinuz", &simulated::kernel()),
            initrd: write("initrd.img", b"the shim, say"),
        }
    }

    fn launch(&self) -> [&str; 8] {
        ["--ovmf", &self.ovmf, "--kernel", &self.kernel, "--initrd", &self.initrd, "--append", "console=ttyS0"]
    }
}

fn measure(files: &Files, more: &[&str]) -> Said {
    run(Command::new(program("sealift")).args(["measure", "snp"]).args(files.launch()).args(more))
}

fn json(said: Said) -> Value {
    serde_json::from_str(&said.succeeded().stdout).unwrap()
}

/// Keys on P-384 as OpenSSL writes them: PKCS #8, and SEC 1 behind the curve's parameters.
fn keys(folder: &Path) -> (PathBuf, PathBuf) {
    let (pkcs8, sec1) = (folder.join("id.pem"), folder.join("author.pem"));
    let parameters = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out"];
    run(peer("openssl").args(parameters).arg(&pkcs8)).succeeded();
    run(peer("openssl").args(["ecparam", "-name", "secp384r1", "-genkey", "-out"]).arg(&sec1)).succeeded();
    (pkcs8, sec1)
}

#[test]
fn one_launch_is_bare_hex_and_many_are_a_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::write(folder.path());
    let bare = measure(&files, &["--vcpus", "2", "--vcpu-type", "EPYC-Genoa"]).succeeded().stdout;
    assert!(bare.ends_with('\n') && bare.trim().len() == 96 && hex::decode(bare.trim()).is_ok(), "{bare}");
    let matrix = json(measure(&files, &["--vcpus", "1,2", "--vcpu-type", "EPYC-v4,EPYC-Genoa", "--vmm", "qemu"]));
    let cells: Vec<_> = matrix.as_array().unwrap().iter().map(|cell| (&cell["vcpu_type"], &cell["vcpus"])).collect();
    let wanted = [("EPYC-v4", 1), ("EPYC-v4", 2), ("EPYC-Genoa", 1), ("EPYC-Genoa", 2)];
    assert_eq!(cells.len(), wanted.len());
    for (cell, (vcpu_type, vcpus)) in cells.iter().zip(wanted) {
        assert_eq!((cell.0.as_str(), cell.1.as_u64()), (Some(vcpu_type), Some(vcpus)));
    }
    assert_eq!(matrix[3]["measurement"], bare.trim());
}

#[test]
fn an_id_block_is_signed_with_keys_from_file_stdin_and_environment() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::write(folder.path());
    let (id, author) = keys(folder.path());
    let measurement = measure(&files, &[]).succeeded().stdout.trim().to_owned();
    let mut digests = Vec::new();
    for key in [id.to_str().unwrap(), "-", "env://ID_KEY"] {
        let mut command = Command::new(program("sealift"));
        command.args(["--output", "json", "measure", "snp"]).args(files.launch());
        command.args(["--id-block", "--id-key", key, "--author-key"]).arg(&author);
        command.args(["--family", &"0f".repeat(16), "--image", &"1a".repeat(16), "--svn", "7", "--policy", "0xb0000"]);
        command.env("ID_KEY", fs::read_to_string(&id).unwrap()).stdin(fs::File::open(&id).unwrap());
        let signed = json(run(&mut command));
        let decode = |name: &str| BASE64_STANDARD.decode(signed[name].as_str().unwrap()).unwrap();
        let block = IdBlock::parse(&decode("id_block")).unwrap();
        let auth = IdAuthInfo::parse(&decode("id_auth")).unwrap();
        auth.verify(&block).unwrap();
        assert_eq!(block.measurement.to_string(), measurement);
        assert_eq!((block.guest_svn, block.policy), (7, 0xB_0000));
        assert_eq!((block.family_id.0, block.image_id.0), ([0x0F; 16], [0x1A; 16]));
        assert_eq!(signed["id_key_digest"], auth.id_key_digest().to_string());
        assert_eq!(signed["author_key_digest"], auth.author_key_digest().unwrap().to_string());
        digests.push(auth.id_key_digest());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "one key, named in three ways");
}

#[test]
fn an_id_block_is_printed_as_qemu_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::write(folder.path());
    let (id, author) = keys(folder.path());
    let (id, author) = (id.to_str().unwrap(), author.to_str().unwrap());
    let said = measure(&files, &["--id-block", "--id-key", id]).succeeded();
    let properties: Vec<(&str, &str)> =
        said.stdout.trim_end().split(',').map(|property| property.split_once('=').unwrap()).collect();
    let [("policy", "0x30000"), ("id-block", block), ("id-auth", auth)] = properties.as_slice() else {
        panic!("{}", said.stdout)
    };
    let block = IdBlock::parse(&BASE64_STANDARD.decode(block).unwrap()).unwrap();
    let auth = IdAuthInfo::parse(&BASE64_STANDARD.decode(auth).unwrap()).unwrap();
    auth.verify(&block).unwrap();
    assert_eq!(said.stderr, format!("ID key digest {}\n", auth.id_key_digest()));
    let said = measure(&files, &["--id-block", "--id-key", id, "--author-key", author]).succeeded();
    assert!(said.stdout.ends_with(",author-key-enabled=on\n"), "{}", said.stdout);
    measure(&files, &["--id-block", "--id-key", &files.initrd]).failed(3, "is no P-384 private key");
    measure(&files, &["--id-block", "--id-key", "-", "--author-key", "-"]).failed(2, "only one of");
}

#[test]
fn a_reference_value_says_where_it_came_from_and_until_when_it_counts() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::write(folder.path());
    let vendor = Vendor::start(folder.path(), &[]);
    vendor.sealift(["product", "create", PRODUCT]).succeeded();
    let add = ["reference", "add", "--product", PRODUCT, "--label", "shim 1"];
    let list = ["reference", "list", "--product", PRODUCT];
    let measured = [&add[..], &["--measure", "--vcpus", "1,2"], &files.launch()].concat();
    let ids = vendor.sealift(measured).succeeded().stdout;
    let ids: Vec<&str> = ids.lines().collect();
    let digest = "1d".repeat(48);
    let id_key = [&add[..], &["--id-key-digest", &digest, "--min-svn", "4"]].concat();
    vendor.sealift(id_key).succeeded();

    let listed = json(vendor.sealift([&["--output", "json"], &list[..]].concat()));
    assert_eq!(listed.as_array().unwrap().len(), 3);
    let matrix = json(measure(&files, &["--vcpus", "1,2"]));
    for at in 0..2 {
        let reference = listed.as_array().unwrap().iter().find(|reference| reference["id"] == ids[at]).unwrap();
        assert_eq!(reference["measurement"], matrix[at]["measurement"]);
        let source = &reference["source"];
        assert_eq!((&source["vcpus"], &source["vcpu_type"]), (&matrix[at]["vcpus"], &matrix[at]["vcpu_type"]));
        assert_eq!((&source["append"], &source["vmm"]), (&"console=ttyS0".into(), &"qemu".into()));
        for (name, path) in [("ovmf", &files.ovmf), ("kernel", &files.kernel), ("initrd", &files.initrd)] {
            assert_eq!(source[name]["sha256"], hex::encode(Sha256::digest(fs::read(path).unwrap())), "{name}");
        }
    }

    let retire = ["reference", "retire", ids[0], "--reason", "the shim leaks"];
    vendor.sealift([&retire[..], &["--at", "2020-01-01T00:00:00Z"]].concat()).failed(3, "lies in the past");
    vendor.sealift([&retire[..], &["--at", "2999-01-01T00:00:00Z"]].concat()).succeeded();
    let table = vendor.sealift(list).succeeded().stdout;
    for words in [
        "MEASURED FROM",
        "2999-01-01T00:00:00Z: the shim leaks",
        "from SVN 4",
        "qemu, 2 vCPU EPYC-v4, features 0x1",
        "append \"console=ttyS0\"",
    ] {
        assert!(table.contains(words), "no `{words}` in:\n{table}");
    }
    vendor.sealift(["reference", "remove", "--product", PRODUCT, ids[0]]).succeeded();
    vendor.sealift(retire).failed(3, "there is no reference value");
    let measurement = matrix[1]["measurement"].as_str().unwrap();
    vendor.sealift(["reference", "remove", "--product", PRODUCT, measurement]).succeeded();
    assert_eq!(json(vendor.sealift([&["--output", "json"], &list[..]].concat())).as_array().unwrap().len(), 1);
}
