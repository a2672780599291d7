//! `secret`: what guests of a product get beside image keys.

use attestation_service::api::{SECRET_MAX, SecretStatus};
use command_line::{Console, Failure};
use release_protocol::{ProductName, ResourcePath};
use serde_json::json;

use super::table;
use crate::cli::SecretCommand;
use crate::client::AdminClient;
use crate::home::VendorHome;
use crate::keys::read_secret;

pub(crate) async fn run(home: &VendorHome, command: SecretCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        SecretCommand::Put { product, name, from } => {
            let path = path(&product, &name)?;
            let secret = read_secret(&from, SECRET_MAX)?;
            client.put_secret(&below(&path), &secret).await?;
            let told = format!("kbs:///{path}");
            console.result(&json!({"address": told, "bytes": secret.len()}), || told.clone());
        }
        SecretCommand::List { product } => {
            let secrets: Vec<SecretStatus> = client.get(&format!("/products/{product}/secrets")).await?;
            console
                .result(&secrets, || table::render(&["SECRET", "BYTES", "SINCE"], secrets.iter().map(row).collect()));
        }
        SecretCommand::Remove { product, name } => {
            let path = path(&product, &name)?;
            client.delete(&below(&path)).await?;
            console.result(&json!({"removed": path.to_string()}), || format!("removed {path}"));
        }
    }
    Ok(())
}

fn path(product: &ProductName, name: &str) -> Result<ResourcePath, Failure> {
    let hint = "name a secret by `TYPE/TAG`, such as `config/database`";
    let text = format!("{product}/{name}");
    let path: ResourcePath = text
        .parse()
        .map_err(|error| Failure::usage(format!("`{name}` names no secret")).caused_by(&error).hint(hint))?;
    if path.kind == ResourcePath::IMAGE_KEY {
        return Err(Failure::usage(format!("secrets of the type `{}` are the image keys", ResourcePath::IMAGE_KEY))
            .hint("`sealift pack` makes them; choose another type"));
    }
    Ok(path)
}

fn below(path: &ResourcePath) -> String {
    format!("/products/{}/secrets/{}/{}", path.product, path.kind, path.tag)
}

fn row(secret: &SecretStatus) -> Vec<String> {
    vec![secret.resource.clone(), secret.bytes.to_string(), secret.updated_at.to_string()]
}
