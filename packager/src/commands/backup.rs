//! `backup` and `restore`: copies of the service's database.

use std::path::Path;

use attestation_service::{BackupError, Copied, LogHeadError, StoreError, back_up, restore};
use command_line::{Console, Failure};
use jiff::Timestamp;
use serde_json::json;

use crate::home::VendorHome;

/// Copies the home's database to a new file.
pub(crate) async fn run(home: &VendorHome, to: &Path, console: &Console) -> Result<(), Failure> {
    refuse_postgres(home)?;
    let Copied { entries, root } = back_up(&home.service(), to).await.map_err(failure)?;
    console.result(&json!({"file": to, "entries": entries, "root": root}), || {
        format!("{}: {entries} audit entries, each checked", to.display())
    });
    Ok(())
}

/// Puts a copy in the place of the home's database.
pub(crate) async fn put_back(home: &VendorHome, from: &Path, console: &Console) -> Result<(), Failure> {
    refuse_postgres(home)?;
    let (Copied { entries, root }, replaced) =
        restore(&home.service(), from, Timestamp::now()).await.map_err(failure)?;
    if let Some(replaced) = &replaced {
        console.say(format!("the database that was there is kept as `{}`", replaced.display()));
    }
    console.result(&json!({"entries": entries, "root": root, "replaced": replaced}), || {
        format!("{}: {entries} audit entries, each checked", from.display())
    });
    Ok(())
}

fn refuse_postgres(home: &VendorHome) -> Result<(), Failure> {
    match home.settings()?.service.database {
        None => Ok(()),
        Some(_) => Err(Failure::usage("the service's state is in PostgreSQL, not in the home").hint(
            "use pg_dump and pg_restore, or PostgreSQL's own base backups; `serve` notices an older copy all the same",
        )),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
fn failure(error: BackupError) -> Failure {
    match &error {
        BackupError::Exists(_) => Failure::bad_input(error.to_string()).hint("name a new file"),
        BackupError::Database { source: StoreError::InUse, .. } => {
            Failure::bad_input("a service runs on this home").hint("stop it, then restore")
        }
        BackupError::Log(LogHeadError::Shrunk { .. } | LogHeadError::Forked { .. }) => {
            Failure::verification("the copy does not hold all that the service has signed").caused_by(&error).hint(
                "restore a newer copy; customers hold receipts of the entries that this one lacks, and their shims refuse a \
                 service that has lost them",
            )
        }
        _ => Failure::bad_input("the database cannot be copied").caused_by(&error),
    }
}
