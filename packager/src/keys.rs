//! Keys by the one grammar of the command line: a file, `-` for stdin, `env://NAME`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use command_line::{ExitCode, Failure, FailureContext as _};
use jose::signing::{SigningKey, VerifyingKey};
use launch_evidence::measure::id_block::OwnerKey;
use zeroize::Zeroizing;

use crate::home::VendorHome;

/// The longest key text that is read, in bytes.
const KEY_TEXT_MAX: u64 = 64 * 1024;

/// The text of the key that `uri` names.
pub(crate) fn read_key_text(uri: &str) -> Result<Zeroizing<String>, Failure> {
    if let Some(name) = uri.strip_prefix("env://") {
        return std::env::var(name)
            .map(Zeroizing::new)
            .or_fail(ExitCode::BadInput, || format!("cannot read the environment variable `{name}`"));
    }
    if let Some((scheme, _)) = uri.split_once("://") {
        return Err(Failure::usage(format!("keys of the kind `{scheme}://` are not supported"))
            .hint("name a key by a file, `-` for stdin, or `env://NAME`"));
    }
    let mut text = Zeroizing::new(String::new());
    let read = if uri == "-" {
        std::io::stdin().take(KEY_TEXT_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(uri).and_then(|file| file.take(KEY_TEXT_MAX).read_to_string(&mut text))
    };
    read.or_fail(ExitCode::BadInput, || format!("cannot read the key `{uri}`"))?;
    Ok(text)
}

/// The bytes of the secret that `uri` names, 1 to `most` of them.
pub(crate) fn read_secret(uri: &str, most: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let cannot = || format!("cannot read the secret `{uri}`");
    // Never grown: a reallocation would leave a copy behind.
    let mut secret = Zeroizing::new(Vec::with_capacity(most + 1));
    let limit = most as u64 + 1;
    if uri.starts_with("env://") {
        secret.extend_from_slice(read_key_text(uri)?.as_bytes());
    } else if uri == "-" {
        std::io::stdin().take(limit).read_to_end(&mut secret).or_fail(ExitCode::BadInput, cannot)?;
    } else {
        let file = std::fs::File::open(uri).or_fail(ExitCode::BadInput, cannot)?;
        file.take(limit).read_to_end(&mut secret).or_fail(ExitCode::BadInput, cannot)?;
    }
    if secret.is_empty() || secret.len() > most {
        return Err(Failure::bad_input(format!("the secret `{uri}` is empty or has more than {most} bytes")));
    }
    Ok(secret)
}

/// The signing key that `uri` names.
pub(crate) fn read_signing_key(uri: &str) -> Result<SigningKey, Failure> {
    SigningKey::from_pem(&read_key_text(uri)?)
        .or_fail(ExitCode::BadInput, || format!("`{uri}` is no P-256 private key"))
        .map_err(|failure| {
            failure.hint("make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`")
        })
}

/// The guest owner's key, for ID blocks, that `uri` names.
pub(crate) fn read_owner_key(uri: &str) -> Result<OwnerKey, Failure> {
    OwnerKey::from_pem(&read_key_text(uri)?)
        .or_fail(ExitCode::BadInput, || format!("`{uri}` is no P-384 private key"))
        .map_err(|failure| {
            failure.hint("make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`")
        })
}

/// The public keys in these files; the home's own where none is named.
pub(crate) fn verifying_keys(home: &VendorHome, paths: &[PathBuf]) -> Result<Vec<VerifyingKey>, Failure> {
    match paths {
        [] => Ok(vec![read_verifying_key(&home.signing_public_key_path())?]),
        paths => paths.iter().map(|path| read_verifying_key(path)).collect(),
    }
}

/// The public key in the file.
pub(crate) fn read_verifying_key(path: &Path) -> Result<VerifyingKey, Failure> {
    let text = std::fs::read_to_string(path)
        .or_fail(ExitCode::BadInput, || format!("cannot read the public key `{}`", path.display()))?;
    VerifyingKey::from_spki_pem(&text)
        .or_fail(ExitCode::BadInput, || format!("`{}` is no P-256 public key", path.display()))
}
