//! Which auth file and key give the credential, and that nothing secret is printed.

use std::os::unix::fs::PermissionsExt;

use super::*;

const PASSWORD: &str = "pass-word-0815";

fn repository(text: &str) -> RegistryReference {
    text.parse().unwrap()
}

/// A file whose entries are `user:PASSWORD` in base64, the user named like the key.
fn write_auths(path: &Path, keys: &[&str]) {
    use base64::Engine as _;
    let auths: serde_json::Map<String, Value> = keys
        .iter()
        .map(|key| {
            let user = key.trim_start_matches("https://").replace([':', '/'], "-");
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{PASSWORD}"));
            ((*key).to_owned(), serde_json::json!({ "auth": auth }))
        })
        .collect();
    std::fs::write(path, serde_json::json!({ "auths": auths }).to_string()).unwrap();
}

fn user(files: &AuthFiles, name: &str) -> Option<String> {
    match files.find(&repository(name)).unwrap() {
        Credential::Basic { user, password } => {
            assert_eq!(password.expose(), PASSWORD);
            Some(user)
        }
        Credential::Anonymous => None,
        Credential::IdentityToken(_) => panic!("an identity token"),
    }
}

#[test]
fn most_specific_key_wins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    write_auths(&file, &["r.example:5000", "r.example:5000/team", "r.example:5000/team/app"]);
    let files = AuthFiles::new(Some(&file), |_| None);
    assert_eq!(user(&files, "r.example:5000/team/app:v1").as_deref(), Some("r.example-5000-team-app"));
    assert_eq!(user(&files, "r.example:5000/team/other").as_deref(), Some("r.example-5000-team"));
    assert_eq!(user(&files, "r.example:5000/else").as_deref(), Some("r.example-5000"));
    assert_eq!(user(&files, "other.example/team/app"), None);
    assert_eq!(user(&files, "r.example/team/app"), None);
}

#[test]
fn docker_hub_is_found_under_its_old_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    write_auths(&file, &["https://index.docker.io/v1/"]);
    let files = AuthFiles::new(Some(&file), |_| None);
    assert!(user(&files, "busybox").is_some());
}

#[test]
fn files_are_searched_in_the_order_of_podman() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let variables = |name: &str| match name {
        "XDG_RUNTIME_DIR" => Some(directory.path().join("run").into()),
        "HOME" => Some(directory.path().join("home").into()),
        _ => None,
    };
    let files = AuthFiles::new(None, variables);
    assert_eq!(user(&files, "r.example/a"), None);
    for (file, key) in [
        ("home/.docker/config.json", "r.example"),
        ("home/.config/containers/auth.json", "https://r.example"),
        ("run/containers/auth.json", "r.example/a"),
    ] {
        write_auths(&path(file), &[key]);
        let expected = key.trim_start_matches("https://").replace('/', "-");
        assert_eq!(user(&files, "r.example/a").as_deref(), Some(expected.as_str()), "{file}");
    }
    write_auths(&path("named.json"), &["else.example"]);
    let named = directory.path().join("named.json");
    let files =
        AuthFiles::new(
            None,
            |name| if name == "REGISTRY_AUTH_FILE" { Some(named.clone().into()) } else { variables(name) },
        );
    assert_eq!(user(&files, "r.example/a"), None);
}

#[test]
fn named_file_must_be_there_and_readable() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    let files = AuthFiles::new(Some(&file), |_| None);
    assert!(matches!(files.find(&repository("r.example/a")), Err(Error::Io { .. })));
    std::fs::write(&file, format!("{{\"auths\": {PASSWORD}")).unwrap();
    let error = files.find(&repository("r.example/a")).unwrap_err();
    assert!(matches!(&error, Error::Usage(UsageError::Credentials { .. })));
    assert!(!format!("{error} {error:?}").contains(PASSWORD));
}

#[test]
fn broken_entry_is_an_error_without_its_content() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    std::fs::write(&file, r#"{"auths": {"r.example": {"auth": "cGFzcy13b3Jk*"}}}"#).unwrap();
    let error = AuthFiles::new(Some(&file), |_| None).find(&repository("r.example/a")).unwrap_err();
    assert!(matches!(&error, Error::Usage(UsageError::Credentials { .. })));
    assert!(!format!("{error} {error:?}").contains("cGFz"));
}

#[test]
fn identity_token_is_told_from_a_password() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    std::fs::write(&file, r#"{"auths": {"r.example": {"auth": "", "identitytoken": "idt"}}}"#).unwrap();
    let credential = AuthFiles::new(Some(&file), |_| None).find(&repository("r.example/a")).unwrap();
    assert!(matches!(credential, Credential::IdentityToken(token) if token.expose() == "idt"));
}

#[test]
fn missing_helper_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    std::fs::write(&file, r#"{"credHelpers": {"r.example": "sealift-test-absent"}}"#).unwrap();
    let files = AuthFiles::new(Some(&file), |_| None);
    let error = files.find(&repository("r.example/a")).unwrap_err();
    assert!(
        matches!(&error, Error::Usage(UsageError::Credentials { problem, .. }) if problem.contains("sealift-test-absent"))
    );
    assert!(matches!(files.find(&repository("else.example/a")), Ok(Credential::Anonymous)));
}

/// Helpers are found through `PATH`, so the test runs itself again with another one.
#[test]
fn helper_gives_the_password() {
    const MARKER: &str = "SEALIFT_TEST_AUTH_FILE";
    if let Some(file) = std::env::var_os(MARKER) {
        let files = AuthFiles::new(Some(Path::new(&file)), |_| None);
        assert_eq!(user(&files, "r.example/a").as_deref(), Some("from-helper"));
        assert_eq!(user(&files, "unknown.example/a"), None);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    std::fs::write(&file, r#"{"credsStore": "sealift-test"}"#).unwrap();
    let helper = directory.path().join("docker-credential-sealift-test");
    let script = format!(
        "#!/bin/sh\nhost=$(cat)\n[ \"$host\" = r.example ] || exit 1\n\
         echo '{{\"Username\": \"from-helper\", \"Secret\": \"{PASSWORD}\"}}'\n"
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "credential::tests::helper_gives_the_password"])
        .env(MARKER, &file)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
fn secrets_are_not_printed() {
    let credential = Credential::Basic { user: "u".to_owned(), password: Secret::new(PASSWORD.to_owned()) };
    let printed = format!("{credential:?} {credential:#?}");
    assert!(!printed.contains(PASSWORD), "{printed}");
    assert!(printed.contains("[redacted]"));
}
