//! Secrets that are bound into a container: read by whoever its user is, written by nobody, and never on the disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use runtime_shim::bundle::SecretFile;
use runtime_shim::runtime::RuntimeChoice;

use crate::{EVERY, FOR_ANYONE, Workload, image, is_ordinary_user};

const READ_SECRET: &str = "exec >/out 2>&1; cat /run/secrets/made/for/it; cat /etc/over; \
                           echo changed >/run/secrets/made/for/it || echo closed; \
                           grep '/run/secrets' /proc/self/mounts | grep -c 'ro,nosuid,nodev,noexec'";

/// Secrets of a workload whose user is not root, one of them in the place of a file of the image.
async fn secrets_are_read(runtimes: &[RuntimeChoice], image: &str) {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::set_permissions(memory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let source = memory.path().join("0");
    fs::write(&source, "the secret\n").unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o444)).unwrap();
    let secret = |destination: &str| SecretFile { source: source.clone(), destination: destination.to_owned() };
    let secrets: &[SecretFile] = vec![secret("/run/secrets/made/for/it"), secret("/etc/over")].leak();
    for choice in runtimes {
        let workload = Workload::new(image, READ_SECRET, |options| options.secrets = secrets);
        fs::write(workload.path().join("rootfs/etc/over"), "the image's\n").unwrap();
        assert_eq!(workload.code(*choice).await, 0, "{choice:?}: {}", workload.output());
        let said = workload.output();
        assert!(said.starts_with("the secret\nthe secret\n"), "{choice:?}: {said}");
        assert!(said.ends_with("closed\n1\n"), "{choice:?}: {said}");
        assert_eq!(fs::read_to_string(&source).unwrap(), "the secret\n");
        let image_file = fs::read_to_string(workload.path().join("rootfs/etc/over")).unwrap();
        assert_eq!(image_file, "the image's\n", "{choice:?}: nothing of a secret is written to the disk");
    }
}

#[tokio::test]
async fn secrets_are_files_that_nobody_can_write_under_every_runtime() {
    secrets_are_read(&EVERY, &image(r#"{"User":"app"}"#)).await;
}

#[tokio::test]
async fn an_ordinary_users_workload_reads_its_secrets() {
    if is_ordinary_user("secrets::an_ordinary_users_workload_reads_its_secrets") {
        secrets_are_read(&FOR_ANYONE, &image("{}")).await;
    }
}
