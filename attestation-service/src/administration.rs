//! What the vendor's people do: products, references, keys, licences. Who may ask is the HTTP layer's matter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jose::signing::VerifyingKey;
use release_protocol::{ProductName, ResourcePath};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::api::{
    KeyManifests, NewImageKey, NewProduct, NewReference, Product, Reference, ReferenceValue, Retirement, SECRET_MAX,
    SealedManifest, Signer,
};
use crate::custody::CustodyError;
use crate::policy::ReleasePolicy;
use crate::service::{Service, ServiceError};
use crate::store::{KeyRegistration, Rewrapping, Sealed, StoreError, TRIES};

/// An image key to keep.
#[derive(Clone, Copy)]
pub(crate) struct KeptKey<'a> {
    /// The last part of its path.
    pub(crate) id: &'a str,
    pub(crate) kek: &'a [u8],
    pub(crate) image: &'a str,
    pub(crate) manifests: &'a [SealedManifest],
    pub(crate) rewrapped: Option<&'a Rewrapping>,
}

/// The length of a key-encryption key, in bytes.
const KEK_LEN: usize = 32;

impl Service {
    /// Makes a product.
    pub(crate) async fn create_product(&self, new: NewProduct) -> Result<Product, ServiceError> {
        let signers = new
            .signers
            .iter()
            .map(|pem| {
                let key = VerifyingKey::from_spki_pem(pem).map_err(|error| {
                    ServiceError::BadRequest(format!("a signer's public key cannot be used: {error}"))
                })?;
                Ok(Signer { thumbprint: key.thumbprint(), pem: key.to_spki_pem()? })
            })
            .collect::<Result<Vec<_>, ServiceError>>()?;
        if signers.is_empty() {
            return Err(ServiceError::BadRequest("a product needs at least one signer".to_owned()));
        }
        self.store.create_product(&new.name, &signers, self.now()).await?;
        Ok(self.store.product(&new.name).await?)
    }

    /// Adds a reference value and gives it as it is kept.
    pub(crate) async fn add_reference(
        &self,
        product: &ProductName,
        new: NewReference,
    ) -> Result<Reference, ServiceError> {
        if let ReferenceValue::IdKey { id_key_digest, .. } = &new.value
            && id_key_digest.as_bytes().iter().all(|byte| *byte == 0)
        {
            return Err(ServiceError::BadRequest(
                "the zero digest is no ID key: every guest without an ID block reports it".to_owned(),
            ));
        }
        Ok(self.store.add_reference(product, &new, self.now()).await?)
    }

    /// Lets a reference value count until a date only.
    pub(crate) async fn retire_reference(&self, id: &str, retirement: Retirement) -> Result<Reference, ServiceError> {
        let Retirement { at, reason } = retirement;
        if reason.trim().is_empty() {
            return Err(ServiceError::BadRequest("a retirement needs a reason".to_owned()));
        }
        Ok(self.store.retire_reference(id, at, &reason, self.now()).await?)
    }

    /// Gives a product a policy of its own once it compiles; `None` is the default again.
    pub(crate) async fn set_policy(&self, product: &ProductName, source: Option<String>) -> Result<(), ServiceError> {
        if let Some(source) = source.clone() {
            ReleasePolicy::compile_in_turn(source).await??;
        }
        Ok(self.store.set_policy(product, source.as_deref(), self.now()).await?)
    }

    /// Seals and keeps an image key, pending where it comes without manifests. The same key under the same id may be
    /// registered again.
    pub(crate) async fn register_key(&self, product: &ProductName, new: NewImageKey) -> Result<(), ServiceError> {
        let kek = Zeroizing::new(
            STANDARD
                .decode(new.kek.as_bytes())
                .map_err(|_| ServiceError::BadRequest("`kek` is not base64".to_owned()))?,
        );
        if kek.len() != KEK_LEN {
            return Err(ServiceError::BadRequest(format!("`kek` has {} bytes, it must have {KEK_LEN}", kek.len())));
        }
        let path = ResourcePath::image_key(product.clone(), &new.id)
            .map_err(|error| ServiceError::BadRequest(format!("`{}`: {error}", new.id)))?;
        check_manifests(&new.manifests)?;
        let kept = KeptKey { id: &new.id, kek: &kek, image: &new.image, manifests: &new.manifests, rewrapped: None };
        self.keep_key(&path, kept).await
    }

    /// Seals and keeps a key under this path. One that is there has to be the same.
    pub(crate) async fn keep_key(&self, path: &ResourcePath, kept: KeptKey<'_>) -> Result<(), ServiceError> {
        let KeptKey { id, kek, image, manifests, rewrapped } = kept;
        let (product, context) = (&path.product, path.to_string());
        for _ in 0..TRIES {
            let stored = self.store.sealed_key(product, id).await?;
            let is_same = match &stored {
                Some(stored) => self.is_sealed(stored, &context, kek).await?,
                None => false,
            };
            let (sealed, seen) = (&self.custodian.wrap(kek, &context).await?, stored.as_ref());
            let registration = KeyRegistration { product, id, sealed, seen, is_same, image, manifests, rewrapped };
            match self.store.register_key(registration, self.now()).await {
                Err(StoreError::Outdated) => self.custodian.refresh().await?,
                registered => return Ok(registered?),
            }
        }
        Err(StoreError::Outdated.into())
    }

    /// Whether it is this key that is sealed so.
    async fn is_sealed(&self, sealed: &Sealed, context: &str, key: &[u8]) -> Result<bool, ServiceError> {
        match self.custodian.unwrap(sealed, context).await {
            Ok(opened) => Ok(opened.as_slice().ct_eq(key).into()),
            Err(ServiceError::Custody(CustodyError::Open)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Seals and keeps a secret that guests of the product get.
    pub(crate) async fn put_secret(&self, path: &ResourcePath, secret: &[u8]) -> Result<(), ServiceError> {
        if path.kind == ResourcePath::IMAGE_KEY {
            return Err(ServiceError::BadRequest(format!(
                "secrets of the type `{}` are the image keys, which are registered with their manifests",
                ResourcePath::IMAGE_KEY
            )));
        }
        if secret.is_empty() || secret.len() > SECRET_MAX {
            return Err(ServiceError::BadRequest(format!(
                "a secret has 1 to {SECRET_MAX} bytes, this has {}",
                secret.len()
            )));
        }
        let bytes = u32::try_from(secret.len()).unwrap_or(u32::MAX);
        for _ in 0..TRIES {
            let sealed = self.custodian.wrap(secret, &path.to_string()).await?;
            match self.store.put_secret(path, &sealed, bytes, self.now()).await {
                Err(StoreError::Outdated) => self.custodian.refresh().await?,
                put => return Ok(put?),
            }
        }
        Err(StoreError::Outdated.into())
    }

    /// Binds a pending key to the manifests that it may open. Binding it to the same ones again changes nothing.
    pub(crate) async fn bind_key(
        &self,
        product: &ProductName,
        id: &str,
        bound: KeyManifests,
    ) -> Result<(), ServiceError> {
        if bound.manifests.is_empty() {
            return Err(ServiceError::BadRequest("a key is bound to at least one manifest".to_owned()));
        }
        check_manifests(&bound.manifests)?;
        Ok(self.store.bind_key(product, id, &bound, self.now()).await?)
    }
}

pub(crate) fn check_manifests(manifests: &[SealedManifest]) -> Result<(), ServiceError> {
    for manifest in manifests {
        let attached = manifest.sbom.iter().flat_map(|sbom| [&sbom.digest, &sbom.manifest]);
        if let Some(other) = std::iter::once(&manifest.digest).chain(attached).find(|text| !is_digest(text)) {
            return Err(ServiceError::BadRequest(format!("`{other}` is no sha256 digest")));
        }
        if manifest.sbom.as_ref().is_some_and(|sbom| sbom.media_type.len() > MEDIA_TYPE_MAX) {
            return Err(ServiceError::BadRequest("the bill of materials' media type is too long".to_owned()));
        }
    }
    Ok(())
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// In bytes; RFC 6838, section 4.2, has twice 127.
const MEDIA_TYPE_MAX: usize = 255;
