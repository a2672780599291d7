//! The tenants of a vendor's home: homes of their own below it, each whole, so that no command has to ask which tenant it is
//! about. Beside each one that is being deleted lies the journal of that.

mod deletion;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use attestation_service::{MasterKeyUri, master_keys};
use command_line::{ExitCode, Failure, FailureContext as _};

use crate::home::{VendorHome, cannot_open};
pub(crate) use deletion::{DeletedTenant, Deletion, deleted, is_being_deleted};

/// A tenant's name: 1 to 32 of `a-z`, `0-9` and `-`, so that it is a folder, a label of a host name, and part of a schema's.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct TenantName(String);

impl TenantName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_known = |byte: u8| byte == b'-' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !(1..=32).contains(&text.len())
            || !text.bytes().all(is_known)
            || text.starts_with('-')
            || text.ends_with('-')
        {
            return Err(
                "a tenant's name has 1 to 32 of `a-z`, `0-9` and `-`, and `-` neither first nor last".to_owned()
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the vendor's tenants are.
pub(crate) fn folder(vendor: &VendorHome) -> PathBuf {
    vendor.directory().join("tenants")
}

/// The tenant's home, whether it is there or not.
pub(crate) fn home_of(vendor: &VendorHome, name: &TenantName) -> VendorHome {
    VendorHome::at(Some(folder(vendor).join(name.as_str())))
}

/// The home of a tenant that is there.
pub(crate) fn existing(vendor: &VendorHome, name: &TenantName) -> Result<VendorHome, Failure> {
    let home = home_of(vendor, name);
    if is_being_deleted(&home) {
        return Err(Failure::bad_input(format!("the tenant `{name}` is being deleted"))
            .hint(format!("`sealift tenant delete {name} --yes` goes on with it")));
    }
    if !home.settings_path().exists() {
        return Err(Failure::bad_input(format!("there is no tenant `{name}` in `{}`", vendor.directory().display()))
            .hint("`sealift tenant list` names those that there are"));
    }
    Ok(home)
}

/// The tenants that are there, those being deleted included, by name.
pub(crate) fn all(vendor: &VendorHome) -> Result<Vec<TenantName>, Failure> {
    let folder = folder(vendor);
    let failed = || format!("cannot read `{}`", folder.display());
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).or_fail(ExitCode::BadInput, failed),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.or_fail(ExitCode::BadInput, failed)?.file_name();
        let name = name.to_str().map(|name| name.strip_suffix(deletion::JOURNAL).unwrap_or(name).parse());
        names.extend(name.into_iter().flatten());
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Who has this master key of the tenant's besides it, by whatever name: the vendor, or another tenant. A file in a home is
/// that home's alone: a service takes up none of another's (`rotation.rs`).
pub(crate) async fn master_key_holder(
    vendor: &VendorHome,
    tenant: &TenantName,
    key: &MasterKeyUri,
) -> Result<Option<String>, Failure> {
    if key.is_in_home() {
        return Ok(None);
    }
    let own = home_of(vendor, tenant).service();
    let mut homes = vec![("the vendor's home".to_owned(), vendor.clone())];
    for name in all(vendor)?.iter().filter(|name| *name != tenant) {
        homes.push((format!("the tenant `{name}`"), home_of(vendor, name)));
    }
    for (who, home) in homes {
        // One that is half deleted has no settings any more, and no use for a key.
        if !home.settings_path().exists() {
            continue;
        }
        let keys = master_keys(&home.service(), &home.settings()?.service)
            .await
            .map_err(|error| cannot_open(format!("cannot ask {who} for its master keys"), &error))?;
        if key.may_be_of(&own, &home.service(), &keys) {
            return Ok(Some(who));
        }
    }
    Ok(None)
}

/// What lies beside a tenant's home, by its end.
fn beside(home: &Path, suffix: &str) -> PathBuf {
    let mut name = home.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_named_so_that_it_is_a_folder_and_a_host() {
        for name in ["a", "tenant-a", "0", &"a".repeat(32)] {
            assert_eq!(name.parse::<TenantName>().unwrap().as_str(), name);
        }
        for name in ["", "-a", "a-", "A", "a.b", "a_b", "..", "a/b", "é", &"a".repeat(33)] {
            assert!(name.parse::<TenantName>().is_err(), "{name}");
        }
    }
}
