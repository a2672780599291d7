//! Whether two homes have one master key between them, by whatever names: whoever destroys it would end both.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::file;
use super::uri::MasterKeyUri;
use crate::home::Home;

impl MasterKeyUri {
    /// Whether the key that `home` has by this name may be one that `other` has: by one of `its_names`, or as a file in its
    /// folder. What names leave open counts as the same key.
    pub fn may_be_of(&self, home: &Home, other: &Home, its_names: &[Self]) -> bool {
        self.is_inside(home, other) || its_names.iter().any(|name| self.may_be(home, name, other))
    }

    /// Whether it is a file in the folder of another home's service.
    pub(crate) fn is_inside(&self, home: &Home, other: &Home) -> bool {
        let Self::File(name) = self else { return false };
        let resolved = |path: PathBuf| fs::canonicalize(&path).or_else(|_| std::path::absolute(&path)).ok();
        let (file, folder) = (resolved(file::path(home, name)), resolved(other.service_directory()));
        file.zip(folder).is_some_and(|(file, folder)| file.starts_with(folder))
    }

    /// Whether it is a file in the folder of a service that is not `home`'s: that service's key, most likely, or to be.
    pub(crate) fn is_in_foreign_home(&self, home: &Home) -> bool {
        let Self::File(name) = self else { return false };
        let Ok(file) = fs::canonicalize(file::path(home, name)) else { return false };
        let homes = file.ancestors().skip(1).filter_map(Path::parent).map(Home::at);
        homes.filter(|other| other.license_public_key_path().exists()).any(|other| {
            self.is_inside(home, &other)
                && fs::canonicalize(other.directory()).ok() != fs::canonicalize(home.directory()).ok()
        })
    }

    fn may_be(&self, home: &Home, theirs: &Self, other: &Home) -> bool {
        match (self, theirs) {
            (Self::Environment(one), Self::Environment(two)) => one == two,
            (Self::File(one), Self::File(two)) => is_one_file(&file::path(home, one), &file::path(other, two)),
            (Self::Pkcs11(one), Self::Pkcs11(two)) => one.may_name_what(two),
            // OpenBao and Vault are named apart, and may be one server.
            (Self::Transit(one), Self::Transit(two)) => (&one.mount, &one.key) == (&two.mount, &two.key),
            _ => false,
        }
    }
}

/// Whether both are one file, by links or not; of one that is gone, its place counts.
fn is_one_file(one: &Path, two: &Path) -> bool {
    let place = |path: &Path| std::path::absolute(path).ok();
    match (fs::metadata(one), fs::metadata(two)) {
        (Ok(one), Ok(two)) => (one.dev(), one.ino()) == (two.dev(), two.ino()),
        _ => place(one) == place(two),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn may_be(one: &str, two: &str) -> bool {
        let home = |name: &str| Home::at(format!("/nowhere/{name}"));
        one.parse::<MasterKeyUri>().unwrap().may_be_of(&home("a"), &home("b"), &[two.parse().unwrap()])
    }

    #[test]
    fn names_that_leave_it_open_are_taken_for_one_keys() {
        for (one, two, may) in [
            ("pkcs11:token=shop;object=a", "pkcs11:token=shop;object=a", true),
            ("pkcs11:token=shop;object=a", "pkcs11:token=shop;id=%01", true),
            ("pkcs11:token=shop;object=a", "pkcs11:serial=1;object=a", true),
            ("pkcs11:token=shop;object=a", "pkcs11:token=shop;object=b", false),
            ("pkcs11:token=shop;object=a;id=%01", "pkcs11:token=shop;object=a;id=%02", false),
            ("pkcs11:token=shop;object=a", "pkcs11:token=bank;object=a", false),
            ("openbao://a", "openbao://transit/a", true),
            ("openbao://a", "vault://a", true),
            ("openbao://a", "openbao://b", false),
            ("openbao://a", "openbao://other/a", false),
            ("env://KEY", "env://KEY", true),
            ("env://KEY", "env://OTHER", false),
            ("file:master.key", "file:master.key", false),
            ("file:/keys/a", "file:/keys/a", true),
            ("file:/keys/a", "file:/keys/b", false),
            ("file:/nowhere/b/service/master.key", "file:master.key", true),
            ("file:/nowhere/b/service/former.key", "openbao://b", true),
            ("file:/nowhere/bb/service/master.key", "file:master.key", false),
            ("env://a", "openbao://a", false),
        ] {
            assert_eq!(may_be(one, two), may, "{one} {two}");
        }
    }

    #[test]
    fn a_file_is_one_by_whatever_link() {
        let folder = tempfile::tempdir().unwrap();
        let homes = ["a", "b"].map(|name| Home::at(folder.path().join(name)));
        for home in &homes {
            home.create(&["localhost".to_owned()]).unwrap();
        }
        let theirs = folder.path().join("b/service/master.key");
        let (soft, hard) = (folder.path().join("soft"), folder.path().join("hard"));
        symlink(&theirs, &soft).unwrap();
        fs::hard_link(&theirs, &hard).unwrap();
        let own = folder.path().join("own");
        fs::copy(&theirs, &own).unwrap();
        for (path, may) in [(&theirs, true), (&soft, true), (&hard, true), (&own, false)] {
            let name: MasterKeyUri = format!("file:{}", path.display()).parse().unwrap();
            let [a, b] = &homes;
            assert_eq!(name.may_be_of(a, b, &[MasterKeyUri::default()]), may, "{name}");
        }
    }
}
