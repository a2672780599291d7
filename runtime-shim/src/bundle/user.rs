//! The image's `User` as numbers, looked up in the image's own files.

use std::io::Read as _;
use std::path::Path;

/// The longest file of users or groups that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// Why a user cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserError {
    /// The image has no such user.
    #[error("the image's /etc/passwd has no user `{0}`")]
    NoUser(String),
    /// The image has no such group.
    #[error("the image's /etc/group has no group `{0}`")]
    NoGroup(String),
}

/// A user with its groups.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// `/` where the image says nothing of it.
    pub(super) home: String,
}

/// Resolves `USER[:GROUP]`, names or numbers; empty is root.
pub(super) fn resolve(rootfs: &Path, text: &str) -> Result<User, UserError> {
    let text = if text.is_empty() { "0:0" } else { text };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let users = records(rootfs, "passwd");
    let groups = records(rootfs, "group");
    let number = |fields: &[String], at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
    let entry = match user.parse::<u32>() {
        Ok(uid) => users.iter().find(|fields| number(fields, 2) == Some(uid)),
        Err(_) => users.iter().find(|fields| fields.first().is_some_and(|name| name == user)),
    };
    let uid = match (user.parse(), entry) {
        (Ok(uid), _) => uid,
        (Err(_), Some(fields)) => number(fields, 2).ok_or_else(|| UserError::NoUser(user.to_owned()))?,
        (Err(_), None) => return Err(UserError::NoUser(user.to_owned())),
    };
    let gid = match group {
        None => entry.and_then(|fields| number(fields, 3)).unwrap_or_default(),
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => groups
                .iter()
                .find(|fields| fields.first().is_some_and(|name| name == group))
                .and_then(|fields| number(fields, 2))
                .ok_or_else(|| UserError::NoGroup(group.to_owned()))?,
        },
    };
    let name = entry.and_then(|fields| fields.first());
    let is_member = |fields: &&Vec<String>| {
        let members = fields.get(3).map(String::as_str).unwrap_or_default();
        name.is_some_and(|name| members.split(',').any(|member| member == name))
    };
    let more = if group.is_some() {
        Vec::new()
    } else {
        groups.iter().filter(is_member).filter_map(|fields| number(fields, 2)).collect()
    };
    let home = entry.and_then(|fields| fields.get(5)).filter(|home| !home.is_empty()).cloned();
    Ok(User { uid, gid, groups: more, home: home.unwrap_or_else(|| "/".to_owned()) })
}

/// The records of a file in the image's /etc; none where it is missing or leads elsewhere.
fn records(rootfs: &Path, name: &str) -> Vec<Vec<String>> {
    let etc = rootfs.join("etc");
    let path = etc.join(name);
    let is_plain = etc.symlink_metadata().is_ok_and(|etc| etc.is_dir())
        && path.symlink_metadata().is_ok_and(|file| file.is_file());
    if !is_plain {
        return Vec::new();
    }
    let mut text = Vec::new();
    match std::fs::File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text)) {
        Ok(_) => String::from_utf8_lossy(&text)
            .lines()
            .map(|line| line.split(':').map(ToOwned::to_owned).collect())
            .collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\napp:x:1000:100::/:\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nusers:x:100:\nvideo:x:44:app,other\n").unwrap();
        root
    }

    #[test]
    fn names_and_numbers_are_looked_up_in_the_image() {
        let root = root();
        let user = |text: &str| resolve(root.path(), text).map(|user| (user.uid, user.gid, user.groups));
        assert_eq!(user(""), Ok((0, 0, vec![])));
        assert_eq!(user("app"), Ok((1000, 100, vec![44])));
        assert_eq!(user("1000"), Ok((1000, 100, vec![44])));
        assert_eq!(user("app:video"), Ok((1000, 44, vec![])));
        assert_eq!(user("5:6"), Ok((5, 6, vec![])));
        assert_eq!(user("5"), Ok((5, 0, vec![])));
        assert_eq!(user("nobody"), Err(UserError::NoUser("nobody".to_owned())));
        assert_eq!(user("app:none"), Err(UserError::NoGroup("none".to_owned())));
    }

    #[test]
    fn a_user_file_that_leads_out_of_the_image_is_not_read() {
        let root = root();
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("etc/passwd")).unwrap();
        assert!(resolve(root.path(), "daemon").is_err());
    }
}
