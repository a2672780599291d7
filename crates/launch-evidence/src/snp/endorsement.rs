//! What AMD writes into an endorsement key's certificate: product, TCB, chip (AMD 57230, X.509 extensions of
//! VCEK and VLEK).

use der::asn1::ObjectIdentifier;
use serde::Serialize;

use super::Product;
use super::certificate::Certificate;
use crate::identity::ChipId;

/// The kind of an endorsement key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// Derived from one chip's secrets.
    Vcek,
    /// Given to a cloud provider, who loads it into many chips.
    Vlek,
}

impl KeyKind {
    /// The common name of its certificates.
    pub(crate) fn common_name(self) -> &'static str {
        match self {
            Self::Vcek => "SEV-VCEK",
            Self::Vlek => "SEV-VLEK",
        }
    }

    /// The common name of the authority that issues its certificates.
    pub(crate) fn issuer_common_name(self, product: Product) -> String {
        match self {
            Self::Vcek => format!("SEV-{product}"),
            Self::Vlek => format!("SEV-VLEK-{product}"),
        }
    }

    /// Its number in a report's `SIGNING_KEY` field.
    pub(crate) fn signing_key(self) -> u32 {
        match self {
            Self::Vcek => 0,
            Self::Vlek => 1,
        }
    }
}

/// AMD's arc.
macro_rules! amd {
    ($rest:literal) => {
        ObjectIdentifier::new_unwrap(concat!("1.3.6.1.4.1.3704.1.", $rest))
    };
}

/// The product's name.
pub(crate) const PRODUCT_NAME: ObjectIdentifier = amd!("2");
/// The chip.
pub(crate) const HARDWARE_ID: ObjectIdentifier = amd!("4");
/// The cloud provider, in a VLEK's certificate.
pub(crate) const CSP_ID: ObjectIdentifier = amd!("5");
/// The version of this set of extensions.
pub(crate) const STRUCT_VERSION: ObjectIdentifier = amd!("1");

const BOOTLOADER: ObjectIdentifier = amd!("3.1");
const TEE: ObjectIdentifier = amd!("3.2");
const SNP: ObjectIdentifier = amd!("3.3");
const SPL4: ObjectIdentifier = amd!("3.4");
const SPL5: ObjectIdentifier = amd!("3.5");
const SPL6: ObjectIdentifier = amd!("3.6");
const SPL7: ObjectIdentifier = amd!("3.7");
const MICROCODE: ObjectIdentifier = amd!("3.8");
const FMC: ObjectIdentifier = amd!("3.9");

/// The tags of DER that AMD's values use.
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const IA5_STRING: u8 = 0x16;

impl Product {
    /// The extensions that make up the eight bytes of its `TCB_VERSION`, in the order of the bytes.
    pub(crate) fn tcb_extensions(self) -> [ObjectIdentifier; 8] {
        match self {
            Self::Milan | Self::Genoa => [BOOTLOADER, TEE, SPL4, SPL5, SPL6, SPL7, SNP, MICROCODE],
            Self::Turin => [FMC, BOOTLOADER, TEE, SNP, SPL5, SPL6, SPL7, MICROCODE],
        }
    }

    /// The length of a hardware id, in bytes; the rest of a chip id is zero.
    pub(crate) fn hardware_id_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => ChipId::LEN,
            Self::Turin => 8,
        }
    }
}

/// The TCB that a certificate endorses, as a report's eight bytes; `Err` names what is missing or malformed.
pub(crate) fn tcb(certificate: &Certificate, product: Product) -> Result<[u8; 8], String> {
    let mut bytes = [0; 8];
    for (byte, id) in bytes.iter_mut().zip(product.tcb_extensions()) {
        let value = value(certificate, id).ok_or_else(|| format!("no extension {id}"))?;
        *byte = small_integer(value).ok_or_else(|| format!("an extension {id} that is no number below 256"))?;
    }
    Ok(bytes)
}

/// The chip id that a certificate endorses.
pub(crate) fn hardware_id(certificate: &Certificate, product: Product) -> Result<ChipId, String> {
    let value = value(certificate, HARDWARE_ID).ok_or("no hardware id")?;
    let length = product.hardware_id_len();
    // Raw in AMD's certificates, wrapped as DER demands in others.
    let bytes = if value.len() == length { Some(value) } else { content(value, OCTET_STRING) };
    let bytes = bytes
        .filter(|bytes| bytes.len() == length)
        .ok_or_else(|| format!("a hardware id that is not of {length} bytes"))?;
    let mut id = [0; ChipId::LEN];
    for (to, from) in id.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(ChipId(id))
}

/// The product's name as the certificate spells it, stepping included (`Milan-B0`).
pub(crate) fn product_name(certificate: &Certificate) -> Option<String> {
    text(certificate, PRODUCT_NAME)
}

/// The provider that a VLEK names.
pub(crate) fn csp_id(certificate: &Certificate) -> Option<String> {
    text(certificate, CSP_ID)
}

/// Whether there is a hardware id at all.
pub(crate) fn has_hardware_id(certificate: &Certificate) -> bool {
    value(certificate, HARDWARE_ID).is_some()
}

fn value(certificate: &Certificate, id: ObjectIdentifier) -> Option<&[u8]> {
    certificate
        .extensions()
        .iter()
        .find(|extension| extension.extn_id == id)
        .map(|extension| extension.extn_value.as_bytes())
}

fn text(certificate: &Certificate, id: ObjectIdentifier) -> Option<String> {
    let bytes = content(value(certificate, id)?, IA5_STRING)?;
    let printable = !bytes.is_empty() && bytes.iter().all(|byte| (0x20..0x7F).contains(byte));
    printable.then(|| String::from_utf8(bytes.to_vec()).ok()).flatten()
}

/// The content of a value of one tag with a one-byte length; nothing may follow it.
fn content(value: &[u8], tag: u8) -> Option<&[u8]> {
    match value {
        [found, length, content @ ..] if *found == tag && *length < 0x80 && content.len() == usize::from(*length) => {
            Some(content)
        }
        _ => None,
    }
}

/// A DER INTEGER from 0 to 255 in its one valid form: numbers above 127 take two bytes of content.
fn small_integer(value: &[u8]) -> Option<u8> {
    match content(value, INTEGER)? {
        [byte @ 0..=0x7F] | [0, byte @ 0x80..=0xFF] => Some(*byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::small_integer;

    #[test]
    fn numbers_have_one_form() {
        assert_eq!(small_integer(&[2, 1, 0]), Some(0));
        assert_eq!(small_integer(&[2, 1, 0x7F]), Some(127));
        assert_eq!(small_integer(&[2, 2, 0, 0x80]), Some(128));
        assert_eq!(small_integer(&[2, 2, 0, 0xFF]), Some(255));
        for wrong in [
            &[2, 1, 0x80][..], // negative
            &[2, 2, 0, 0x7F],  // one byte too long
            &[2, 2, 1, 0],     // 256
            &[2, 1, 0, 0],     // trailing byte
            &[2, 0],
            &[4, 1, 0],
            &[],
        ] {
            assert_eq!(small_integer(wrong), None, "{wrong:?}");
        }
    }
}
