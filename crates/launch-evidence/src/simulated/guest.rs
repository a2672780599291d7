//! A launched guest of the simulated platform: what asks for reports and gets them, as from the firmware of
//! a real one.

use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sev::firmware::guest::{AttestationReport, GuestPolicy, KeyInfo, PlatformInfo, Version};
use sev::parser::ByteParser as _;
use zeroize::Zeroizing;

use super::SimulatedError;
use super::platform::Chip;
use crate::identity::{KeyDigest, Measurement};
use crate::snp::Product;
use crate::snp::report::{REPORT_LEN, SCALAR_LEN, SIGNATURE_R, SIGNATURE_S, SIGNED};
use crate::snp::signature::ECDSA_P384_SHA384;

/// SMT allowed, the reserved bit, nothing else.
const POLICY: u64 = 0x3_0000;
/// SMT, error-correcting memory, alias check complete: what real platforms report.
const PLATFORM_INFO: u64 = 0x25;
/// The firmware's version, as real platforms report it.
const FIRMWARE: Version = Version { major: 1, minor: 55, build: 29 };

/// What a host chooses at a guest's launch, and what an ID block would add.
#[derive(Clone, Copy, Debug)]
pub struct LaunchOptions {
    /// The version of the reports: 2, 3 or 5.
    pub report_version: u32,
    /// `HOST_DATA`: the digest of the initialisation data, or zero.
    pub host_data: [u8; 32],
    /// POLICY.
    pub policy: u64,
    /// The privilege level that asks for reports.
    pub vmpl: u32,
    /// `GUEST_SVN`.
    pub guest_svn: u32,
    /// `FAMILY_ID`.
    pub family_id: [u8; 16],
    /// `IMAGE_ID`.
    pub image_id: [u8; 16],
    /// The digest of the key that signed the ID block, or zero.
    pub id_key_digest: KeyDigest,
    /// The digest of the key that certified the ID key, or zero.
    pub author_key_digest: KeyDigest,
}

impl Default for LaunchOptions {
    fn default() -> Self {
        Self {
            report_version: 5,
            host_data: [0; 32],
            policy: POLICY,
            vmpl: 0,
            guest_svn: 0,
            family_id: [0; 16],
            image_id: [0; 16],
            id_key_digest: KeyDigest([0; KeyDigest::LEN]),
            author_key_digest: KeyDigest([0; KeyDigest::LEN]),
        }
    }
}

/// A guest after its launch. Its measurement is that of the files as they were then.
#[derive(Debug)]
pub struct SimulatedGuest {
    chip: Arc<Chip>,
    template: AttestationReport,
}

impl SimulatedGuest {
    pub(crate) fn launch(
        chip: Arc<Chip>,
        measurement: Measurement,
        options: LaunchOptions,
    ) -> Result<Self, SimulatedError> {
        if ![2, 3, 5].contains(&options.report_version) {
            return Err(SimulatedError::Version(options.report_version));
        }
        let mut report_id = [0; 32];
        SystemRandom::new().fill(&mut report_id).map_err(|_| SimulatedError::Key)?;
        let [family, model, stepping] = cpuid(chip.product);
        let tcb = chip.tcb.into();
        let cpuid = options.report_version >= 3;
        let template = AttestationReport {
            version: options.report_version,
            guest_svn: options.guest_svn,
            // The conversion sets bit 17, as the firmware demands.
            policy: GuestPolicy::from(options.policy),
            family_id: options.family_id,
            image_id: options.image_id,
            vmpl: options.vmpl,
            sig_algo: ECDSA_P384_SHA384,
            current_tcb: tcb,
            plat_info: PlatformInfo::from(PLATFORM_INFO),
            key_info: KeyInfo::from(u32::from(options.author_key_digest.0 != [0; KeyDigest::LEN])),
            measurement: measurement.0,
            host_data: options.host_data,
            id_key_digest: options.id_key_digest.0,
            author_key_digest: options.author_key_digest.0,
            report_id,
            report_id_ma: [0xFF; 32],
            reported_tcb: tcb,
            cpuid_fam_id: cpuid.then_some(family),
            cpuid_mod_id: cpuid.then_some(model),
            cpuid_step: cpuid.then_some(stepping),
            chip_id: chip.id.0,
            committed_tcb: tcb,
            current: FIRMWARE,
            committed: FIRMWARE,
            launch_tcb: tcb,
            launch_mit_vector: (options.report_version >= 5).then_some(0),
            current_mit_vector: (options.report_version >= 5).then_some(0),
            ..AttestationReport::default()
        };
        Ok(Self { chip, template })
    }

    /// The launch measurement.
    pub fn measurement(&self) -> Measurement {
        Measurement(self.template.measurement)
    }

    /// A signed report over `report_data`, in the real layout.
    ///
    /// # Errors
    /// When it cannot be encoded or signed.
    pub fn report(&self, report_data: &[u8; 64]) -> Result<[u8; REPORT_LEN], SimulatedError> {
        let report = AttestationReport { report_data: *report_data, ..self.template };
        let mut bytes = report.to_bytes().map_err(SimulatedError::Report)?;
        self.sign(&mut bytes)?;
        Ok(bytes)
    }

    /// Evidence over `report_data`: the protocol's `primary_evidence` in our raw form, marked `"simulated":
    /// true`.
    ///
    /// # Errors
    /// As [`SimulatedGuest::report`].
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Value, SimulatedError> {
        let report = STANDARD.encode(self.report(report_data)?);
        let chain: Vec<String> = self.chip.chain.iter().map(|der| STANDARD.encode(der)).collect();
        Ok(json!({"report": report, "cert_chain": chain, "simulated": true}))
    }

    /// The key of this launch, as the firmware of a real chip derives it: of the chip's secret, and of the measurement, policy,
    /// family and image of the guest. SIMULATED: who has the platform's files can derive it, too.
    pub fn derived_key(&self) -> Zeroizing<[u8; 32]> {
        let AttestationReport { policy, family_id, image_id, measurement, .. } = &self.template;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.chip.secret.0[..]);
        let mut context = hmac::Context::with_key(&key);
        context.update(b"SIMULATED derived key");
        context.update(&policy.0.to_le_bytes());
        for field in [&family_id[..], &image_id[..], &measurement[..]] {
            context.update(field);
        }
        let mut derived = Zeroizing::new([0; 32]);
        derived.copy_from_slice(context.sign().as_ref());
        derived
    }

    /// Puts the endorsement key's signature into a report whose body is whole.
    pub(crate) fn sign(&self, report: &mut [u8; REPORT_LEN]) -> Result<(), SimulatedError> {
        let body = report.get(SIGNED).unwrap_or_default();
        let signature = self.chip.key.sign(&SystemRandom::new(), body).map_err(|_| SimulatedError::Key)?;
        let (r, s) = signature.as_ref().split_at_checked(SCALAR_LEN).ok_or(SimulatedError::Key)?;
        for (range, number) in [(SIGNATURE_R, r), (SIGNATURE_S, s)] {
            let field = report.get_mut(range).unwrap_or_default();
            field.fill(0);
            // Little-endian, where the signature is big-endian.
            for (to, from) in field.iter_mut().zip(number.iter().rev()) {
                *to = *from;
            }
        }
        Ok(())
    }
}

/// CPUID family, model and stepping of a processor of this product.
fn cpuid(product: Product) -> [u8; 3] {
    match product {
        Product::Milan => [0x19, 0x01, 0x01],
        Product::Genoa => [0x19, 0x11, 0x01],
        Product::Turin => [0x1A, 0x02, 0x01],
    }
}
