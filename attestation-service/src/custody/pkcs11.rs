//! Master keys behind PKCS#11: AES-GCM by the token's own key, which is not to leave it. Calls block, so they are made on
//! threads of their own; each has a session to itself.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::pkcs11_uri::Pkcs11Uri;
use super::settings::{CustodySettings, SecretSource};
use super::{Absent, CustodyError, no_key, refused, unavailable, unreachable};
use crate::home::Home;

/// An AES key of a token.
#[derive(Clone)]
pub(crate) struct TokenKey(Arc<Inner>);

struct Inner {
    uri: Pkcs11Uri,
    home: Home,
    module: Pkcs11,
    pin: SecretSource,
    /// Sessions that wait for the next use. One that has failed is not among them.
    idle: Mutex<Vec<Seat>>,
    /// How many may be in use at once.
    turns: Semaphore,
}

/// A session, and the key as it knows it.
struct Seat {
    session: Session,
    key: ObjectHandle,
}

/// PINs that tokens have refused: none is tried twice.
static REFUSED: Mutex<Vec<(Pkcs11Uri, Zeroizing<String>)>> = Mutex::new(Vec::new());
/// How many sessions are in use at once; tokens have few.
const SESSIONS: usize = 8;
/// The bytes of an IV.
const IV_LEN: usize = 12;
/// The bits of a tag.
const TAG_BITS: u64 = 128;

impl TokenKey {
    /// Finds the key, and sees that it is one that stays where it is.
    pub(super) async fn open(home: &Home, uri: &Pkcs11Uri, settings: &CustodySettings) -> Result<Self, CustodyError> {
        let access = settings.pkcs11_access().map_err(unreachable(uri))?;
        let (home, uri, pin) = (home.clone(), uri.clone(), access.pin);
        let open = move || {
            let module = module(&access.module).map_err(unreachable(&uri))?;
            let (idle, turns) = (Mutex::default(), Semaphore::new(SESSIONS));
            let inner = Inner { uri, home, module, pin, idle, turns };
            let seat = inner.take_seat()?;
            inner.leave(seat);
            Ok(Self(Arc::new(inner)))
        };
        tokio::task::spawn_blocking(open).await.map_err(|_| CustodyError::Library)?
    }

    pub(super) async fn encrypt(&self, plain: &[u8], context: &str) -> Result<Vec<u8>, CustodyError> {
        let (plain, context) = (Zeroizing::new(plain.to_vec()), context.to_owned());
        self.with_seat(move |seat| {
            let mut iv = [0; IV_LEN];
            rand::fill(&mut iv).map_err(|_| Error::NotSupported)?;
            let parameters = GcmParams::new(&mut iv, context.as_bytes(), TAG_BITS.into())?;
            let sealed = seat.session.encrypt(&Mechanism::AesGcm(parameters), seat.key, &plain)?;
            // Some tokens choose the IV themselves, and write it in the place of ours.
            Ok([iv.as_slice(), &sealed].concat())
        })
        .await
    }

    pub(super) async fn decrypt(&self, sealed: &[u8], context: &str) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let (iv, body) = sealed.split_first_chunk::<IV_LEN>().ok_or(CustodyError::Open)?;
        let (iv, body, context) = (*iv, body.to_vec(), context.to_owned());
        self.with_seat(move |seat| {
            let mut iv = iv;
            let parameters = GcmParams::new(&mut iv, context.as_bytes(), TAG_BITS.into())?;
            seat.session.decrypt(&Mechanism::AesGcm(parameters), seat.key, &body).map(Zeroizing::new)
        })
        .await
    }

    /// Has the token destroy the key.
    pub(super) async fn destroy(&self) -> Result<(), CustodyError> {
        let _turn = self.0.turns.acquire().await.map_err(|_| CustodyError::Library)?;
        let inner = Arc::clone(&self.0);
        let destroyed = move || {
            // A session that may change the token; its user is logged in, in all sessions of the process.
            let session = inner.module.open_rw_session(inner.slot()?).map_err(|error| inner.failure(error))?;
            let key = inner.key(&session)?;
            session.destroy_object(key).map_err(|error| inner.failure(error))
        };
        tokio::task::spawn_blocking(destroyed).await.map_err(|_| CustodyError::Library)?
    }

    /// Does something with a session, on a thread that may wait. Where it was the session that failed, with another one.
    async fn with_seat<T: Send + 'static>(
        &self,
        act: impl Fn(&Seat) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, CustodyError> {
        let _turn = self.0.turns.acquire().await.map_err(|_| CustodyError::Library)?;
        let inner = Arc::clone(&self.0);
        let acted = move || {
            let seat = inner.take_seat()?;
            let (seat, done) = match act(&seat) {
                Err(error) if is_of_the_session(&error) => {
                    drop(seat);
                    inner.idle().clear();
                    let seat = inner.take_seat()?;
                    let done = act(&seat);
                    (seat, done)
                }
                done => (seat, done),
            };
            match done {
                Ok(done) => {
                    inner.leave(seat);
                    Ok(done)
                }
                Err(error) => Err(inner.failure(error)),
            }
        };
        tokio::task::spawn_blocking(acted).await.map_err(|_| CustodyError::Library)?
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenKey").field(&self.0.uri.to_string()).finish()
    }
}

impl Inner {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Seat>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, seat: Seat) {
        self.idle().push(seat);
    }

    fn take_seat(&self) -> Result<Seat, CustodyError> {
        if let Some(seat) = self.idle().pop() {
            return Ok(seat);
        }
        let slot = self.slot()?;
        let session = self.module.open_ro_session(slot).map_err(|error| self.failure(error))?;
        let pin = self.pin.read(&self.home).map_err(unreachable(&self.uri))?;
        let refusals = || REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        // A token locks its user out after a few of them.
        if refusals().iter().any(|(uri, refused)| *uri == self.uri && **refused == *pin) {
            return Err(self.failure(Error::Pkcs11(RvError::PinIncorrect, Function::Login)));
        }
        match session.login(UserType::User, Some(&AuthPin::from(pin.as_str()))) {
            // All sessions of a process share it.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => {
                if matches!(error, Error::Pkcs11(RvError::PinIncorrect, _)) {
                    refusals().push((self.uri.clone(), pin));
                }
                return Err(self.failure(error));
            }
        }
        let key = self.key(&session)?;
        Ok(Seat { session, key })
    }

    /// The one token that the URI names.
    fn slot(&self) -> Result<Slot, CustodyError> {
        let slots = self.module.get_slots_with_token().map_err(|error| self.failure(error))?;
        let is_named = |slot: &Slot| self.module.get_token_info(*slot).is_ok_and(|token| self.names(&token));
        let mut named = slots.into_iter().filter(is_named);
        match (named.next(), named.next()) {
            (Some(slot), None) => Ok(slot),
            (None, _) => Err(no_key(&self.uri)("no such token is in any slot")),
            (Some(_), Some(_)) => Err(no_key(&self.uri)("more than one token is called so: add `serial=`")),
        }
    }

    fn names(&self, token: &TokenInfo) -> bool {
        let is_so =
            |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found.trim_end());
        token.token_initialized()
            && is_so(&self.uri.token, token.label())
            && is_so(&self.uri.manufacturer, token.manufacturer_id())
            && is_so(&self.uri.model, token.model())
            && is_so(&self.uri.serial, token.serial_number())
    }

    /// The one AES key that the URI names; one that could leave its token is refused.
    fn key(&self, session: &Session) -> Result<ObjectHandle, CustodyError> {
        let mut wanted = vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES)];
        wanted.extend(self.uri.object.iter().map(|label| Attribute::Label(label.clone().into_bytes())));
        wanted.extend(self.uri.id.iter().map(|id| Attribute::Id(id.clone())));
        let unusable = |why: &str| Err(no_key(&self.uri)(why.to_owned()));
        let key = match session.find_objects(&wanted).map_err(|error| self.failure(error))?.as_slice() {
            [key] => *key,
            [] => return Err(no_key(&self.uri)(Absent("its token has no such AES key"))),
            _ => return unusable("its token has more than one such AES key: name it by `id=`, too"),
        };
        // What a token does not say of a key is not taken for granted.
        let mut stays = false;
        let asked = [AttributeType::Extractable, AttributeType::Sensitive, AttributeType::ValueLen];
        for attribute in session.get_attributes(key, &asked).map_err(|error| self.failure(error))? {
            match attribute {
                Attribute::Extractable(true) => return unusable("it may leave its token (CKA_EXTRACTABLE is true)"),
                Attribute::Extractable(false) => stays = true,
                Attribute::Sensitive(false) => return unusable("its token shows it (CKA_SENSITIVE is false)"),
                Attribute::ValueLen(length) if u64::from(length) != 32 => {
                    return unusable("it is no AES key of 256 bits");
                }
                _ => {}
            }
        }
        if !stays {
            return unusable("its token does not say whether it may leave it (CKA_EXTRACTABLE)");
        }
        Ok(key)
    }

    fn failure(&self, error: Error) -> CustodyError {
        let Error::Pkcs11(code, function) = &error else { return unavailable(&self.uri)(Said(error)) };
        match code {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                refused(&self.uri)("the PIN is not the token's user's")
            }
            RvError::PinLocked | RvError::PinExpired => refused(&self.uri)("the PIN is locked or has expired"),
            RvError::ActionProhibited => refused(&self.uri)("the token does not let it be destroyed (CKA_DESTROYABLE)"),
            RvError::KeyFunctionNotPermitted | RvError::KeyTypeInconsistent | RvError::MechanismInvalid => {
                no_key(&self.uri)("the token does not encrypt and decrypt by AES-GCM with it")
            }
            RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange => CustodyError::Open,
            // How SoftHSM says that the tag is another.
            RvError::GeneralError if matches!(function, Function::Decrypt) => CustodyError::Open,
            _ => unavailable(&self.uri)(Said(error)),
        }
    }
}

/// The library's errors in one line: their own texts are paragraphs of the standard.
#[derive(Debug)]
struct Said(Error);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::Pkcs11(code, function) => write!(f, "{function:?} failed: {code:?}"),
            other => other.fmt(f),
        }
    }
}

impl StdError for Said {}

/// Whether another session may succeed.
fn is_of_the_session(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::UserNotLoggedIn
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
                | RvError::DeviceRemoved
                | RvError::DeviceError
                | RvError::TokenNotPresent,
            _
        )
    )
}

/// The module, loaded and initialised once in a process.
fn module(path: &Path) -> Result<Pkcs11, Said> {
    static LOADED: Mutex<Option<HashMap<PathBuf, Pkcs11>>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if let Some(module) = loaded.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path).map_err(Said)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(Said(error)),
    }
    loaded.insert(path.to_owned(), module.clone());
    Ok(module)
}
