//! `product`: what images belong to.

use attestation_service::api::{ImageKey, NewProduct, Product};
use command_line::{Console, Failure};
use serde_json::json;

use super::table;
use crate::cli::ProductCommand;
use crate::client::AdminClient;
use crate::home::VendorHome;
use crate::keys::read_verifying_key;

pub(crate) async fn run(home: &VendorHome, command: ProductCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        ProductCommand::Create { name, mut signer } => {
            if signer.is_empty() {
                signer.push(home.signing_public_key_path());
            }
            let mut signers = Vec::with_capacity(signer.len());
            for path in &signer {
                signers
                    .push(read_verifying_key(path)?.to_spki_pem().map_err(|error| Failure::other(error.to_string()))?);
            }
            let product: Product = client.post("/products", &NewProduct { name, signers }).await?;
            console.result(&product, || product.name.to_string());
        }
        ProductCommand::List => {
            let products: Vec<Product> = client.get("/products").await?;
            console.result(&products, || {
                table::render(&["PRODUCT", "SIGNERS", "REFERENCES", "POLICY"], products.iter().map(row).collect())
            });
        }
        ProductCommand::Show { name } => {
            let product: Product = client.get(&format!("/products/{name}")).await?;
            let keys: Vec<ImageKey> = client.get(&format!("/products/{name}/keys")).await?;
            let document = json!({"product": product, "keys": keys});
            console.result(&document, || show(&product, &keys));
        }
    }
    Ok(())
}

fn row(product: &Product) -> Vec<String> {
    vec![
        product.name.to_string(),
        product.signers.len().to_string(),
        product.references.len().to_string(),
        product.policy.clone(),
    ]
}

fn show(product: &Product, keys: &[ImageKey]) -> String {
    let mut lines = vec![format!("product  {}", product.name), format!("policy   {}", product.policy)];
    for signer in &product.signers {
        lines.push(format!("signer   {}", signer.thumbprint));
    }
    for reference in &product.references {
        let retired = reference.retired_at.map(|at| format!("  retired {at}")).unwrap_or_default();
        lines.push(format!("guest    {}  {}{retired}", reference.value, reference.label));
    }
    for key in keys {
        lines.push(format!("key      {}  {}", key.id, key.image));
        for manifest in &key.manifests {
            lines.push(format!("           {}  {}", manifest.digest, manifest.platform));
        }
    }
    lines.join("\n")
}
