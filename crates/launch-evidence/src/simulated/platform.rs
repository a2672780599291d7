//! The simulated platform in its directory: keys, certificates, chip.
//!
//! | file | content |
//! |---|---|
//! | `ark.der`, `ask.der`, `vcek.der` | the certificates |
//! | `ark.key`, `ask.key`, `vcek.key` | the private keys, PKCS#8 DER, mode 0600 |
//! | `platform.json` | product, chip id, TCB; written last |

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use sev::firmware::host::TcbVersion;
use sev::parser::ByteParser as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::SimulatedError;
use super::authority::{CertificateSpec, Issuer, authority_extensions, p384_public_key, vcek_extensions};
use super::guest::{LaunchOptions, SimulatedGuest};
use crate::identity::ChipId;
use crate::measure::LaunchInput;
use crate::snp::Product;
use crate::snp::endorsement::KeyKind;
use crate::snp::roots::{marked, root_common_name};

const ARK: &str = "ark.der";
const ASK: &str = "ask.der";
const VCEK: &str = "vcek.der";
const ARK_KEY: &str = "ark.key";
const ASK_KEY: &str = "ask.key";
const VCEK_KEY: &str = "vcek.key";
const PLATFORM: &str = "platform.json";
/// The largest file that is read, in bytes.
const FILE_LEN: u64 = 64 * 1024;

/// How long authorities and endorsement keys are valid, in days: as AMD's, 25 and 7 years.
const AUTHORITY_DAYS: i64 = 25 * 365;
const VCEK_DAYS: i64 = 7 * 365;

/// A generated platform: a root, an intermediate, and one chip's endorsement key.
#[derive(Debug)]
pub struct SimulatedPlatform {
    pub(crate) chip: Arc<Chip>,
    ark: Vec<u8>,
}

/// What a guest of the platform needs to make evidence.
#[derive(Debug)]
pub(crate) struct Chip {
    pub(crate) product: Product,
    pub(crate) id: ChipId,
    pub(crate) tcb: TcbLevels,
    /// Endorsement key and intermediate, in DER.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: EcdsaKeyPair,
    /// What keys of guests are derived from, in the place of the secret that a real chip has.
    pub(crate) secret: ChipSecret,
}

/// Wiped on drop, never printed.
pub(crate) struct ChipSecret(pub(crate) Zeroizing<[u8; 32]>);

impl ChipSecret {
    /// Of the endorsement key's PKCS#8: the one secret that a simulated chip has.
    pub(crate) fn of(pkcs8: &[u8]) -> Self {
        let digest = Sha256::new_with_prefix(b"SIMULATED chip secret").chain_update(pkcs8).finalize();
        Self(Zeroizing::new(digest.into()))
    }
}

impl fmt::Debug for ChipSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChipSecret([redacted])")
    }
}

/// What may be chosen about a platform.
#[derive(Clone, Copy, Debug)]
pub struct PlatformOptions {
    /// The processor generation.
    pub product: Product,
    /// When its certificates begin to be valid.
    pub not_before: Timestamp,
}

impl Default for PlatformOptions {
    /// Genoa, from a minute ago so that a verifier's clock may be a little behind.
    fn default() -> Self {
        let now = Timestamp::now();
        Self { product: Product::Genoa, not_before: now.checked_sub(Span::new().minutes(1)).unwrap_or(now) }
    }
}

/// The firmware levels of the simulated platform.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TcbLevels {
    /// The FMC firmware; Turin only.
    #[serde(default)]
    pub fmc: Option<u8>,
    /// The PSP bootloader.
    pub bootloader: u8,
    /// The PSP operating system.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// The microcode.
    pub microcode: u8,
}

/// The content of `platform.json`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Description {
    simulated: bool,
    product: Product,
    chip_id: ChipId,
    tcb: TcbLevels,
}

impl SimulatedPlatform {
    /// Generates a platform into `dir`, which is made where it is missing. Two RSA-4096 keys take some seconds.
    ///
    /// # Errors
    /// [`SimulatedError::Exists`] when there is one, unreadable or unwritable files, keys that could not be
    /// made.
    pub fn create(dir: &Path) -> Result<Self, SimulatedError> {
        Self::create_with(dir, PlatformOptions::default())
    }

    /// The same with a chosen product and date.
    ///
    /// # Errors
    /// As [`SimulatedPlatform::create`].
    pub fn create_with(dir: &Path, options: PlatformOptions) -> Result<Self, SimulatedError> {
        let PlatformOptions { product, not_before } = options;
        if [PLATFORM, ARK, ARK_KEY].iter().any(|name| dir.join(name).exists()) {
            return Err(SimulatedError::Exists(dir.to_owned()));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| io(dir, "made", source))?;

        let random = SystemRandom::new();
        let mut chip_id = [0; ChipId::LEN];
        let identity = chip_id.get_mut(..product.hardware_id_len()).unwrap_or_default();
        random.fill(identity).map_err(|_| SimulatedError::Key)?;
        let description =
            Description { simulated: true, product, chip_id: ChipId(chip_id), tcb: TcbLevels::of(product) };

        let root = Issuer { name: root_common_name(product, true), key: generate()? };
        let intermediate = Issuer { name: marked(&KeyKind::Vcek.issuer_common_name(product), true), key: generate()? };
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).map_err(|_| SimulatedError::Key)?;

        let authority = |subject: &Issuer, serial: u8, below| -> Result<CertificateSpec, SimulatedError> {
            Ok(CertificateSpec {
                subject: subject.name.clone(),
                serial: vec![1, 0, serial],
                not_before,
                not_after: after(not_before, AUTHORITY_DAYS),
                key: subject.public_key()?,
                extensions: authority_extensions(below).map_err(SimulatedError::Certificate)?,
            })
        };
        let ark = root.issue(authority(&root, 0, None)?)?;
        let ask = root.issue(authority(&intermediate, 1, Some(0))?)?;
        let extensions = vcek_extensions(product, description.tcb.bytes(product)?, &chip_id);
        let vcek = intermediate.issue(CertificateSpec {
            subject: marked(KeyKind::Vcek.common_name(), true),
            // As AMD's.
            serial: vec![0],
            not_before,
            not_after: after(not_before, VCEK_DAYS),
            key: p384_public_key(key.public_key().as_ref())?,
            extensions: extensions.map_err(SimulatedError::Certificate)?,
        })?;

        write(&dir.join(ARK), &ark, 0o644)?;
        write(&dir.join(ASK), &ask, 0o644)?;
        write(&dir.join(VCEK), &vcek, 0o644)?;
        for (name, issuer) in [(ARK_KEY, &root), (ASK_KEY, &intermediate)] {
            let pkcs8 = issuer.key.as_der().map_err(|_| SimulatedError::Key)?;
            write(&dir.join(name), pkcs8.as_ref(), 0o600)?;
        }
        let pkcs8 = key.to_pkcs8v1().map_err(|_| SimulatedError::Key)?;
        write(&dir.join(VCEK_KEY), pkcs8.as_ref(), 0o600)?;
        let json = serde_json::to_vec_pretty(&description).map_err(|error| malformed(&dir.join(PLATFORM), error))?;
        write(&dir.join(PLATFORM), &json, 0o644)?;

        let Description { product, chip_id, tcb, .. } = description;
        let secret = ChipSecret::of(pkcs8.as_ref());
        Ok(Self { chip: Arc::new(Chip { product, id: chip_id, tcb, chain: vec![vcek, ask], key, secret }), ark })
    }

    /// Opens the platform in `dir`.
    ///
    /// # Errors
    /// [`SimulatedError::NoPlatform`] when there is none, unreadable and malformed files.
    pub fn open(dir: &Path) -> Result<Self, SimulatedError> {
        let path = dir.join(PLATFORM);
        if !path.exists() {
            return Err(SimulatedError::NoPlatform(dir.to_owned()));
        }
        let Description { product, chip_id, tcb, .. } =
            serde_json::from_slice(&read(&path)?).map_err(|error| malformed(&path, error))?;
        let path = dir.join(VCEK_KEY);
        let pkcs8 = read(&path)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &pkcs8)
            .map_err(|error| malformed(&path, error))?;
        let chain = vec![read(&dir.join(VCEK))?.to_vec(), read(&dir.join(ASK))?.to_vec()];
        let secret = ChipSecret::of(&pkcs8);
        let chip = Chip { product, id: chip_id, tcb, chain, key, secret };
        Ok(Self { chip: Arc::new(chip), ark: read(&dir.join(ARK))?.to_vec() })
    }

    /// The root certificate in DER, for [`TrustRoots::with_simulated`](crate::TrustRoots::with_simulated).
    pub fn ark_der(&self) -> &[u8] {
        &self.ark
    }

    /// The endorsement key's certificate in DER, as evidence brings it.
    pub fn endorsement_der(&self) -> &[u8] {
        self.chip.chain.first().map(Vec::as_slice).unwrap_or_default()
    }

    /// The chip.
    pub fn chip_id(&self) -> ChipId {
        self.chip.id
    }

    /// The processor generation.
    pub fn product(&self) -> Product {
        self.chip.product
    }

    /// Launches a guest: measures its files, now, and remembers what its reports will say.
    ///
    /// # Errors
    /// [`SimulatedError::Measure`], [`SimulatedError::Version`].
    pub fn launch(&self, input: &LaunchInput, options: LaunchOptions) -> Result<SimulatedGuest, SimulatedError> {
        SimulatedGuest::launch(Arc::clone(&self.chip), input.measure()?, options)
    }
}

impl TcbLevels {
    /// Levels like those of real machines.
    fn of(product: Product) -> Self {
        let (fmc, bootloader, tee, snp, microcode) = match product {
            Product::Milan => (None, 4, 0, 24, 219),
            Product::Genoa => (None, 10, 0, 23, 84),
            Product::Turin => (Some(1), 1, 1, 4, 71),
        };
        Self { fmc, bootloader, tee, snp, microcode }
    }

    /// As a report's eight bytes.
    pub(crate) fn bytes(self, product: Product) -> Result<[u8; 8], SimulatedError> {
        TcbVersion::from(self).to_bytes_with(product.generation()).map_err(SimulatedError::Report)
    }
}

impl From<TcbLevels> for TcbVersion {
    fn from(levels: TcbLevels) -> Self {
        let TcbLevels { fmc, bootloader, tee, snp, microcode } = levels;
        Self { fmc, bootloader, tee, snp, microcode }
    }
}

fn generate() -> Result<RsaKeyPair, SimulatedError> {
    RsaKeyPair::generate(KeySize::Rsa4096).map_err(|_| SimulatedError::Key)
}

fn after(from: Timestamp, days: i64) -> Timestamp {
    from.checked_add(Span::new().hours(days * 24)).unwrap_or(Timestamp::MAX)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), SimulatedError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content));
    written.map_err(|source| io(path, "written", source))
}

/// Wiped on drop, since some of the files are keys.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SimulatedError> {
    let mut content = Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(|source| io(path, "read", source))?;
    file.take(FILE_LEN).read_to_end(&mut content).map_err(|source| io(path, "read", source))?;
    Ok(content)
}

pub(crate) fn io(path: &Path, operation: &'static str, source: std::io::Error) -> SimulatedError {
    SimulatedError::Io { path: PathBuf::from(path), operation, source }
}

fn malformed(path: &Path, error: impl std::fmt::Display) -> SimulatedError {
    SimulatedError::Malformed { path: path.to_owned(), offence: error.to_string() }
}
