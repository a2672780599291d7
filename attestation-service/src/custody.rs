//! Keys at rest: the master key, of whatever kind, and what is sealed under it. Image keys and secrets are sealed by the
//! master key itself, so that its store sees each time one is opened, and can end it. All else is sealed by working keys,
//! which are sealed under the master key and opened when the service starts.

mod file;
mod pkcs11;
mod pkcs11_uri;
mod sealer;
mod settings;
mod shared;
mod transit;
mod uri;
mod working;

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::home::Home;
use file::FileKey;
use pkcs11::TokenKey;
use transit::EngineKey;

pub(crate) use file::{make, path};
pub use pkcs11_uri::Pkcs11Uri;
pub use sealer::{HeldKey, Sealer};
pub use settings::{CustodySettings, Pkcs11Settings, SecretSource, TransitSettings};
pub use uri::{FileName, MasterKeyUri, MasterKeyUriError, TransitKey};
pub(crate) use working::{WorkingKey, WorkingKeys};

type Cause = Box<dyn Error + Send + Sync>;

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CustodyError {
    /// The text is not the base64 of 32 bytes.
    #[error("a master key is the base64 of 32 bytes")]
    Malformed,
    /// Another master key sealed it, or it was changed.
    #[error("sealed under another master key, or damaged")]
    Open,
    /// A key that is not in a store which could destroy it.
    #[error("the master key is in the environment, which only its operator can clear")]
    Indestructible,
    /// The random source or the cipher failed.
    #[error("the cryptographic library failed")]
    Library,
    /// The master key is not there, or is of no use.
    #[error("the master key `{name}` is not there or cannot be used")]
    NoKey {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// This machine does not say how the master key is reached, or not rightly.
    #[error("the master key `{name}` cannot be reached from here")]
    Unreachable {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The PIN or the token is not accepted.
    #[error("the store of the master key `{name}` refuses the service")]
    Refused {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The store does not answer now.
    #[error("the store of the master key `{name}` does not answer")]
    Unavailable {
        /// The master key's name.
        name: String,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// Why a key cannot be used: its store answers, and has none of this name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Absent(&'static str);

impl CustodyError {
    /// Whether the key's store says that it has no such key.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::NoKey { source, .. } if source.is::<Absent>())
    }
}

fn no_key<E: Into<Cause>>(name: &impl Display) -> impl Fn(E) -> CustodyError {
    let name = name.to_string();
    move |source| CustodyError::NoKey { name: name.clone(), source: source.into() }
}

fn unreachable<E: Into<Cause>>(name: &impl Display) -> impl Fn(E) -> CustodyError {
    let name = name.to_string();
    move |source| CustodyError::Unreachable { name: name.clone(), source: source.into() }
}

fn refused<E: Into<Cause>>(name: &impl Display) -> impl Fn(E) -> CustodyError {
    let name = name.to_string();
    move |source| CustodyError::Refused { name: name.clone(), source: source.into() }
}

fn unavailable<E: Into<Cause>>(name: &impl Display) -> impl Fn(E) -> CustodyError {
    let name = name.to_string();
    move |source| CustodyError::Unavailable { name: name.clone(), source: source.into() }
}

/// A master key that can be used.
#[derive(Debug)]
pub(crate) enum MasterKey {
    File(FileKey),
    Token(TokenKey),
    Engine(Box<EngineKey>),
}

/// The longest secret that is handed to a token or an engine. What is longer is sealed by a key of its own, and that is handed.
const DIRECT_MAX: usize = 4096;
/// The first byte of what was sealed elsewhere: as it is, or by a key of its own.
const DIRECT: u8 = 1;
const BY_OWN_KEY: u8 = 2;

impl MasterKey {
    /// Finds the key and sees that it is of use.
    pub(crate) async fn open(
        home: &Home,
        uri: &MasterKeyUri,
        settings: &CustodySettings,
    ) -> Result<Self, CustodyError> {
        Ok(match uri {
            MasterKeyUri::Environment(name) => Self::File(FileKey::from_environment(name)?),
            MasterKeyUri::File(name) => Self::File(FileKey::open(home, name)?),
            MasterKeyUri::Pkcs11(uri) => Self::Token(TokenKey::open(home, uri, settings).await?),
            MasterKeyUri::Transit(key) => Self::Engine(Box::new(EngineKey::open(home, key, settings).await?)),
        })
    }

    /// Like [`Self::open`], and sees that it opens what it seals.
    pub(crate) async fn try_out(
        home: &Home,
        uri: &MasterKeyUri,
        settings: &CustodySettings,
    ) -> Result<Self, CustodyError> {
        const TRIED: &str = "try out";
        let key = Self::open(home, uri, settings).await?;
        let sealed = key.wrap(TRIED.as_bytes(), TRIED).await?;
        if key.unwrap(&sealed, TRIED).await?.as_slice() != TRIED.as_bytes() {
            return Err(CustodyError::Open);
        }
        Ok(key)
    }

    /// Seals `plain`; `context` must be the same on opening.
    pub(crate) async fn wrap(&self, plain: &[u8], context: &str) -> Result<Vec<u8>, CustodyError> {
        if let Self::File(key) = self {
            return key.sealer().seal(plain, context.as_bytes());
        }
        if plain.len() <= DIRECT_MAX {
            return Ok([&[DIRECT], self.encrypt(plain, context).await?.as_slice()].concat());
        }
        let own = HeldKey::generate()?;
        let wrapped = self.encrypt(own.expose(), context).await?;
        let length = u16::try_from(wrapped.len()).map_err(|_| CustodyError::Library)?.to_be_bytes();
        let body = own.sealer(LONG)?.seal(plain, context.as_bytes())?;
        Ok([&[BY_OWN_KEY], length.as_slice(), &wrapped, &body].concat())
    }

    /// Opens what [`Self::wrap`] made with the same `context`.
    pub(crate) async fn unwrap(&self, sealed: &[u8], context: &str) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        if let Self::File(key) = self {
            return key.sealer().open(sealed, context.as_bytes());
        }
        match sealed.split_first() {
            Some((&DIRECT, rest)) => self.decrypt(rest, context).await,
            Some((&BY_OWN_KEY, rest)) => {
                let (length, rest) = rest.split_first_chunk().ok_or(CustodyError::Open)?;
                let length = usize::from(u16::from_be_bytes(*length));
                let (wrapped, body) = rest.split_at_checked(length).ok_or(CustodyError::Open)?;
                let own =
                    HeldKey::from_bytes(&self.decrypt(wrapped, context).await?).map_err(|_| CustodyError::Open)?;
                own.sealer(LONG)?.open(body, context.as_bytes())
            }
            _ => Err(CustodyError::Open),
        }
    }

    /// The bytes of a working key for a database that has none. Where the master key is in this process anyway it is the
    /// master key itself: that is what sealed all there is in homes from before there were others.
    pub(crate) fn first_working_key(&self) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        match self {
            Self::File(key) => Ok(Zeroizing::new(key.key().expose().to_vec())),
            Self::Token(_) | Self::Engine(_) => new_working_key(),
        }
    }

    /// Lengthens the life of the token by which the key's store is asked, where it is a Transit engine's. Gives how long it lives
    /// now, where it ends and can be lengthened again.
    pub(crate) async fn renew_token(&self) -> Result<Option<Duration>, CustodyError> {
        match self {
            Self::File(_) | Self::Token(_) => Ok(None),
            Self::Engine(key) => key.renew_token().await,
        }
    }

    /// Has the key's store destroy it. A key of the environment only the operator can destroy.
    pub(crate) async fn destroy(&self) -> Result<(), CustodyError> {
        match self {
            Self::File(_) => Err(CustodyError::Indestructible),
            Self::Token(key) => key.destroy().await,
            Self::Engine(key) => key.destroy().await,
        }
    }

    async fn encrypt(&self, plain: &[u8], context: &str) -> Result<Vec<u8>, CustodyError> {
        match self {
            Self::File(key) => key.sealer().seal(plain, context.as_bytes()),
            Self::Token(key) => key.encrypt(plain, context).await,
            Self::Engine(key) => key.encrypt(plain, context).await,
        }
    }

    async fn decrypt(&self, sealed: &[u8], context: &str) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        match self {
            Self::File(key) => key.sealer().open(sealed, context.as_bytes()),
            Self::Token(key) => key.decrypt(sealed, context).await,
            Self::Engine(key) => key.decrypt(sealed, context).await,
        }
    }
}

/// The purpose of keys that seal one long secret.
const LONG: &str = "long secret";

/// The bytes of a fresh working key.
pub(crate) fn new_working_key() -> Result<Zeroizing<Vec<u8>>, CustodyError> {
    Ok(Zeroizing::new(HeldKey::generate()?.expose().to_vec()))
}
