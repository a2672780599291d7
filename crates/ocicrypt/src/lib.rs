//! The ocicrypt image encryption format: layer cipher, key wrap, annotations; no network, no TEE.
//!
//! A layer is encrypted with its own random key ([`cipher`]). The key, the nonce and the plain
//! layer's digest ([`options::PrivateOptions`]) are wrapped for a key broker ([`packet`]) or for
//! public keys ([`jwe`]), and travel with the public options in the layer's annotations
//! ([`layer`]); other tools have them wrapped by a program ([`keyprovider`]). Byte-compatible with Go's ocicrypt (skopeo, buildah, podman, containerd) and
//! Confidential Containers.
//!
//! ```
//! use ocicrypt::cipher::{self, AES_256_CTR_HMAC_SHA256, Digest, KeyEncryptionKey};
//! use ocicrypt::layer::{LayerAnnotations, SealedLayer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kek = KeyEncryptionKey::generate()?;
//! let kid = "kbs:///product/image-key/1".parse()?;
//!
//! let mut chunk = b"a plain layer".to_vec();
//! let digest = Digest::of(&chunk);
//! let mut encryptor = cipher::by_name(AES_256_CTR_HMAC_SHA256)?.encryptor()?;
//! encryptor.apply(&mut chunk)?;
//! let (public, private) = encryptor.finish(digest);
//! let annotations = LayerAnnotations::new(public, &private)
//!     .with_kek(&kid, &kek)?
//!     .build()?;
//!
//! let sealed = SealedLayer::parse(&annotations)?;
//! let mut decryptor = sealed.decryptor(sealed.open_with_kek(&kek)?)?;
//! decryptor.apply(&mut chunk)?;
//! let promised = decryptor.finish()?;
//! assert_eq!(promised, Digest::of(b"a plain layer"));
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

pub mod cipher;
mod digest;
pub mod jwe;
pub mod keyprovider;
pub mod layer;
pub mod media_type;
pub mod options;
pub mod packet;
mod secret;
