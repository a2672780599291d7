//! Image references: what is read, what is refused, and that printing gives back what was read.

use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse(text: &str) -> Result<ImageReference, ParseReferenceError> {
    text.parse()
}

fn registry(text: &str) -> RegistryReference {
    match parse(text) {
        Ok(ImageReference::Docker(reference)) => reference,
        other => panic!("{text} gave {other:?}"),
    }
}

#[test]
fn registry_reference_with_all_parts_is_read() {
    let reference = registry(&format!("docker://registry.example:5000/team/app_x.y--z:v1.2@{DIGEST}"));
    assert_eq!(reference.host(), "registry.example:5000");
    assert_eq!(reference.repository(), "team/app_x.y--z");
    assert_eq!(reference.tag(), Some("v1.2"));
    assert_eq!(reference.digest().map(|digest| digest.to_string()).as_deref(), Some(DIGEST));
}

#[test]
fn registry_reference_without_tag_means_latest() {
    assert_eq!(registry("docker://registry.example/app").tag(), Some("latest"));
    assert_eq!(registry(&format!("docker://registry.example/app@{DIGEST}")).tag(), None);
}

#[test]
fn name_without_host_is_on_docker_hub() {
    let reference = registry("docker://busybox:1");
    assert_eq!((reference.host(), reference.repository()), ("docker.io", "library/busybox"));
    let reference = registry("docker://team/app");
    assert_eq!((reference.host(), reference.repository()), ("docker.io", "team/app"));
}

#[test]
fn loopback_hosts_are_known() {
    for host in ["localhost/a", "localhost:5000/a", "127.0.0.1:5000/a", "127.9.9.9/a", "[::1]:5000/a"] {
        assert!(registry(&format!("docker://{host}")).is_loopback(), "{host}");
    }
    for host in ["localhost.example/a", "128.0.0.1/a", "[2001:db8::1]:5000/a", "127.0.0.1.example/a"] {
        assert!(!registry(&format!("docker://{host}")).is_loopback(), "{host}");
    }
}

#[test]
fn layout_references_are_read() {
    let directory = PathBuf::from("some/dir");
    let file = PathBuf::from("/a.tar");
    let digest: Digest = DIGEST.parse().unwrap();
    assert_eq!(parse("oci:some/dir"), Ok(ImageReference::Oci { directory: directory.clone(), image: Selector::Only }));
    assert_eq!(
        parse("oci:some/dir:name:v1"),
        Ok(ImageReference::Oci { directory: directory.clone(), image: Selector::Tag("name:v1".to_owned()) })
    );
    assert_eq!(
        parse(&format!("oci:some/dir@{DIGEST}")),
        Ok(ImageReference::Oci { directory, image: Selector::Digest(digest) })
    );
    assert_eq!(
        parse("oci-archive:/a.tar:v1"),
        Ok(ImageReference::OciArchive { file: file.clone(), image: Selector::Tag("v1".to_owned()) })
    );
    assert_eq!(
        parse("docker-archive:/a.tar:docker.io/library/app:v1"),
        Ok(ImageReference::DockerArchive { file, name: Some("docker.io/library/app:v1".to_owned()) })
    );
}

#[test]
fn text_without_transport_lists_the_transports() {
    let error = parse("busybox:latest").unwrap_err();
    assert_eq!(error, ParseReferenceError::Transport { text: "busybox:latest".to_owned() });
    let message = error.to_string();
    for transport in ["docker://", "oci:", "oci-archive:", "docker-archive:"] {
        assert!(message.contains(transport), "{message}");
    }
}

#[test]
fn each_wrong_part_is_named() {
    assert!(matches!(parse("oci:"), Err(ParseReferenceError::Path { transport: "oci" })));
    assert!(matches!(parse("oci-archive::v1"), Err(ParseReferenceError::Path { transport: "oci-archive" })));
    assert!(matches!(parse("oci:dir:bad tag"), Err(ParseReferenceError::Tag { .. })));
    assert!(matches!(parse("oci:dir:"), Err(ParseReferenceError::Tag { .. })));
    assert!(matches!(parse(&format!("oci:dir:v1@{DIGEST}")), Err(ParseReferenceError::Tag { .. })));
    assert!(matches!(parse("oci:dir@sha256:ab"), Err(ParseReferenceError::Digest(_))));
    assert!(matches!(parse("docker://registry.example/App"), Err(ParseReferenceError::Repository { .. })));
    assert!(matches!(parse("docker://registry.example/a/../b"), Err(ParseReferenceError::Repository { .. })));
    assert!(matches!(parse("docker://registry.example/a..b"), Err(ParseReferenceError::Repository { .. })));
    assert!(matches!(parse("docker://registry.example/a___b"), Err(ParseReferenceError::Repository { .. })));
    assert!(matches!(parse("docker://registry.example/"), Err(ParseReferenceError::Repository { .. })));
    assert!(matches!(parse("docker://registry.example/a?x=y"), Err(ParseReferenceError::Repository { .. })));
    assert!(matches!(parse("docker://registry.example:0/a"), Err(ParseReferenceError::Host { .. })));
    assert!(matches!(parse("docker://registry.example:99999/a"), Err(ParseReferenceError::Host { .. })));
    assert!(matches!(parse("docker://user:secret@registry.example/a"), Err(ParseReferenceError::Digest(_))));
    assert!(matches!(parse("docker://registry.example/a:-x"), Err(ParseReferenceError::Tag { .. })));
    let long = format!("docker://registry.example/a:{}", "x".repeat(129));
    assert!(matches!(parse(&long), Err(ParseReferenceError::Tag { .. })));
    let sha512 = format!("docker://registry.example/a@sha512:{}", "0".repeat(128));
    let algorithm = ParseDigestError::Algorithm { found: "sha512".to_owned() };
    assert_eq!(parse(&sha512), Err(ParseReferenceError::Digest(algorithm)));
}

#[test]
fn pinning_drops_the_tag() {
    let digest: Digest = DIGEST.parse().unwrap();
    let pinned = parse("docker://registry.example/app:v1").unwrap().with_digest(digest);
    assert_eq!(pinned.to_string(), format!("docker://registry.example/app@{DIGEST}"));
    let pinned = parse("oci:dir:v1").unwrap().with_digest(digest);
    assert_eq!(pinned.to_string(), format!("oci:dir@{DIGEST}"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "\\PC{0,80}") {
        let _ = parse(&text);
        let _ = parse(&format!("docker://{text}"));
        let _ = parse(&format!("oci:{text}"));
    }

    #[test]
    fn printing_gives_back_what_was_read(
        transport in prop::sample::select(vec!["oci:", "oci-archive:", "docker-archive:", "docker://"]),
        rest in "[a-z0-9./_-]{1,20}(:[0-9]{1,5})?(/[a-z0-9._-]{1,9}){0,2}(:[a-zA-Z0-9._/:-]{1,9})?(@sha256:[0-9a-f]{64})?",
    ) {
        if let Ok(reference) = parse(&format!("{transport}{rest}")) {
            let printed = reference.to_string();
            prop_assert_eq!(parse(&printed), Ok(reference));
        }
    }

    #[test]
    fn registry_paths_hold_nothing_that_a_url_would_take_apart(rest in "[a-z]{1,5}\\.example/\\PC{1,30}") {
        if let Ok(ImageReference::Docker(reference)) = parse(&format!("docker://{rest}")) {
            let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
            prop_assert!(reference.repository().bytes().all(is_safe));
            prop_assert!(!reference.repository().contains(".."));
        }
    }
}
