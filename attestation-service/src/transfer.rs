//! Layers' keys from one service to another: the one that has them encrypts them to a key that the other one made for this,
//! and the other one seals them under a new image key. Whoever carries them sees neither, and each side's log has the
//! thumbprint of the key between them.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use jose::jwe::DecryptionKey;
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::jwe::{self, Recipient};
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::{BrokerPacket, Kid};
use release_protocol::{ProductName, ResourcePath};
use serde_json::json;

use crate::administration::KeptKey;
use crate::api::{ExportedKeys, ImportKey, KeyExport, KeyImport, Rewrapped, RewrappedLayer};
use crate::rewrap::{Opener, PACKETS_MAX, bad, library};
use crate::service::{Service, ServiceError};
use crate::store::{AuditKind, Rewrapping, SealedImportKey};

/// How long an import key is good.
const IMPORT_KEY_LIFETIME: SignedDuration = SignedDuration::from_mins(10);

impl Service {
    /// Makes a key that another service encrypts the layers' keys of one image to.
    pub(crate) async fn make_import_key(&self, product: &ProductName) -> Result<ImportKey, ServiceError> {
        let (key, private) = DecryptionKey::generate()?;
        let id = key.public_key().thumbprint();
        let sealed = self.custodian.working().seal_import_key(&private, context(product, &id).as_bytes())?;
        let now = self.now();
        let expires_at = now.saturating_add(IMPORT_KEY_LIFETIME)?;
        let kept = SealedImportKey { id: id.clone(), sealed, expires_at };
        self.store.add_import_key(product, &kept, now).await?;
        Ok(ImportKey { id, public_key: key.public_key().to_spki_pem()?, expires_at })
    }

    /// Encrypts the layers' keys that `export` names to another service's import key.
    pub(crate) async fn export_keys(
        &self,
        product: &ProductName,
        export: KeyExport,
    ) -> Result<ExportedKeys, ServiceError> {
        let KeyExport { image, packets, recipient } = export;
        check_count(packets.len())?;
        let recipient = Recipient::from_pem(&recipient)
            .map_err(|error| bad(format!("the other service's key cannot be used: {error}")))?;
        let mut opener = Opener::new(self, product);
        let mut messages = Vec::with_capacity(packets.len());
        for packet in &packets {
            let (_, private) = opener.open(packet).await?;
            let message = jwe::seal(&private, std::slice::from_ref(&recipient)).map_err(|_| library())?;
            messages.push(jwe::to_annotation(&message));
        }
        let rewrapped =
            Rewrapping { from: opener.used(), recipients: vec![recipient.key().thumbprint()], import_key: None };
        // Before anybody gets them.
        let body = json!({"product": product, "image": image, "rewrapped": rewrapped});
        self.store.record(AuditKind::KeysExported, &body, self.now()).await?;
        Ok(ExportedKeys { messages })
    }

    /// Wraps the layers whose keys another service encrypted to an import key under a new image key of `product`, which is
    /// pending until it is bound. The import key is used up by it.
    pub(crate) async fn import_keys(
        &self,
        product: &ProductName,
        import: KeyImport,
    ) -> Result<Rewrapped, ServiceError> {
        let KeyImport { id, image, import_key, messages } = import;
        check_count(messages.len())?;
        let path = ResourcePath::image_key(product.clone(), &id).map_err(|error| bad(format!("`{id}`: {error}")))?;
        let kid = Kid::new(&self.key_authority()?, [product.as_str(), ResourcePath::IMAGE_KEY, &id])
            .map_err(|error| bad(format!("`{id}`: {error}")))?;
        let sealed = self.store.import_key(product, &import_key, self.now()).await?;
        let private = self.custodian.working().open_import_key(&sealed, context(product, &import_key).as_bytes())?;
        let opener = DecryptionKey::from_der(&private)?;
        let kek = KeyEncryptionKey::generate().map_err(|_| library())?;
        let mut layers = Vec::with_capacity(messages.len());
        for message in &messages {
            let private = open(&opener, message)?;
            let packet = BrokerPacket::seal(&kid, &kek, &private).map_err(|_| library())?.to_annotation();
            layers.push(RewrappedLayer { packet, message: None });
        }
        let rewrapping = Rewrapping { from: BTreeSet::new(), recipients: Vec::new(), import_key: Some(import_key) };
        let kept = KeptKey { id: &id, kek: kek.expose(), image: &image, manifests: &[], rewrapped: Some(&rewrapping) };
        self.keep_key(&path, kept).await?;
        Ok(Rewrapped { layers })
    }

    /// Where guests ask for this service's keys: `HOST[:PORT]`.
    fn key_authority(&self) -> Result<String, ServiceError> {
        let url = &self.address.url;
        let host = url.host_str().ok_or_else(|| bad(format!("the service's address `{url}` names no host")))?;
        Ok(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }
}

/// What an import key's private half is bound to.
fn context(product: &ProductName, id: &str) -> String {
    format!("{product}/import-key/{id}")
}

fn check_count(layers: usize) -> Result<(), ServiceError> {
    if (1..=PACKETS_MAX).contains(&layers) {
        return Ok(());
    }
    Err(bad(format!("1 to {PACKETS_MAX} layers are wrapped at a time")))
}

fn open(key: &DecryptionKey, message: &str) -> Result<PrivateOptions, ServiceError> {
    let message =
        jwe::from_annotation(message).map_err(|error| bad(format!("a layer's key cannot be read: {error}")))?;
    let json = message.decrypt(key).map_err(|_| bad("a layer's key is not encrypted to this import key".to_owned()))?;
    PrivateOptions::from_json(&json).map_err(|error| bad(format!("a layer's key cannot be used: {error}")))
}
