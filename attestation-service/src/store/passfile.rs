//! The password of a PostgreSQL server from a file that `PGPASSFILE` names and that the driver passes over: it reads files of
//! mode 0600 only, and a service that is not root may be given one of root's by its group (see `home.rs`). Everything else
//! is left to the driver.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sqlx::postgres::PgConnectOptions;
use url::Url;
use zeroize::Zeroizing;

use crate::home::is_kept;

/// Where a database is and who asks, as a line of such a file has it.
#[derive(Debug)]
struct Connection {
    host: String,
    port: String,
    database: String,
    user: String,
}

/// The database's URL, with its password where only this module finds one.
///
/// # Errors
/// When the driver does not understand the URL.
pub(super) fn with_password(url: &Url) -> Result<Url, sqlx::Error> {
    let mut url = url.clone();
    let by_environment = std::env::var_os("PGPASSWORD").is_some();
    let Some(file) = std::env::var_os("PGPASSFILE").filter(|_| !by_environment) else { return Ok(url) };
    let Some(text) = read(Path::new(&file)) else { return Ok(url) };
    if let Some(password) = Connection::of(&url)?.password_in(&text) {
        url.query_pairs_mut().append_pair("password", &password);
    }
    Ok(url)
}

/// The file's text, if the driver would not take it and it is kept from others all the same.
fn read(path: &Path) -> Option<Zeroizing<String>> {
    let metadata = fs::metadata(path).ok()?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    // The driver does not look whose it is.
    let is_taken = is_kept(mode, owner, owner);
    if is_taken || !is_kept(mode, owner, rustix::process::geteuid().as_raw()) {
        return None;
    }
    fs::read_to_string(path).ok().map(Zeroizing::new)
}

impl Connection {
    fn of(url: &Url) -> Result<Self, sqlx::Error> {
        // With a password, the driver looks for none.
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("password", "");
        let options: PgConnectOptions = url.as_str().parse()?;
        let user = options.get_username().to_owned();
        Ok(Self {
            host: options.get_host().to_owned(),
            port: options.get_port().to_string(),
            database: options.get_database().unwrap_or(&user).to_owned(),
            user,
        })
    }

    /// The password of the first line that is about this connection.
    fn password_in(&self, text: &str) -> Option<Zeroizing<String>> {
        text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let (host, rest) = field(line)?;
            let (port, rest) = field(rest)?;
            let (database, rest) = field(rest)?;
            let (user, rest) = field(rest)?;
            let (password, _) = field(rest).unwrap_or_default();
            let pairs = [(&host, &self.host), (&port, &self.port), (&database, &self.database), (&user, &self.user)];
            pairs.iter().all(|(given, own)| given.as_str() == "*" || given.as_str() == own.as_str()).then_some(password)
        })
    }
}

/// A line up to its next colon, and what follows; `\` takes the meaning from the next character.
fn field(line: &str) -> Option<(Zeroizing<String>, &str)> {
    let mut field = Zeroizing::new(String::with_capacity(line.len()));
    let mut characters = line.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            ':' => return Some((field, line.get(index + 1..)?)),
            '\\' => field.extend(characters.next().map(|(_, escaped)| escaped)),
            other => field.push(other),
        }
    }
    (!line.is_empty()).then_some((field, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(url: &str, text: &str) -> Option<String> {
        let connection = Connection::of(&Url::parse(url).unwrap()).unwrap();
        connection.password_in(text).map(|password| password.to_string())
    }

    #[test]
    fn the_first_line_that_is_about_the_connection_has_its_password() {
        let url = "postgres://vendor@db.example/sealift?sslmode=verify-full";
        for (text, found) in [
            ("db.example:5432:sealift:vendor:secret", Some("secret")),
            ("# db.example:5432:sealift:vendor:no\n*:*:*:vendor:first\n*:*:*:*:second\n", Some("first")),
            ("other.example:5432:sealift:vendor:no\ndb.example:*:*:*:yes", Some("yes")),
            (r"*:*:*:*:a\:b\\c", Some(r"a:b\c")),
            ("*:5433:*:*:no", None),
            ("*:*:other:*:no", None),
            ("*:*:*:other:no", None),
            ("*:*:vendor", None),
            ("", None),
        ] {
            assert_eq!(password(url, text).as_deref(), found, "{text}");
        }
        assert_eq!(password("postgres:///x?host=db.example&port=1&user=u", "db.example:1:x:u:p").as_deref(), Some("p"));
    }
}
