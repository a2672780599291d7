//! `policy`: a product's release policy. Trying one and explaining denials have files of their own.

mod evidence;
mod explain;
mod input;
mod test;

use std::io::Read as _;
use std::path::Path;

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use serde_json::json;

use crate::cli::PolicyCommand;
use crate::client::AdminClient;
use crate::home::VendorHome;

/// Runs the command; the exit code of a test says what the policy decided.
pub(crate) async fn run(home: &VendorHome, command: PolicyCommand, console: &Console) -> Result<u8, Failure> {
    match command {
        PolicyCommand::Set { product, file } => {
            let client = AdminClient::new(home)?;
            client.put_text(&format!("/products/{product}/policy"), read(&file)?).await?;
            console.result(&json!({"product": product}), || format!("set the policy of {product}"));
        }
        PolicyCommand::Show { product } => {
            let source = AdminClient::new(home)?.get_text(&format!("/products/{product}/policy")).await?;
            console.result(&json!({"product": product, "policy": source}), || source.trim_end().to_owned());
        }
        PolicyCommand::Test(args) => return test::run(&args, console),
        PolicyCommand::Explain { entry } => explain::run(&AdminClient::new(home)?, entry, console).await?,
    }
    Ok(0)
}

fn read(file: &Path) -> Result<String, Failure> {
    let read = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.or_fail(ExitCode::BadInput, || format!("cannot read the policy `{}`", file.display()))
}
