//! Media types of layers and what they are called once encrypted (ocicrypt `spec/spec.go`; OCI
//! image-spec, media types). Docker's layer types have no encrypted form of their own and are
//! mapped to the OCI ones.

/// Why a media type has no encrypted, or no plain, counterpart.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaTypeError {
    /// The layer is encrypted already.
    #[error("the layer is encrypted already: `{found}`")]
    AlreadyEncrypted {
        /// The media type.
        found: String,
    },
    /// The layer is not encrypted.
    #[error("the layer is not encrypted: `{found}`")]
    NotEncrypted {
        /// The media type.
        found: String,
    },
    /// No layer type that can be encrypted.
    #[error("`{found}` is no layer type that can be encrypted")]
    Unknown {
        /// The media type.
        found: String,
    },
}

/// How a plain layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip
    Gzip,
    /// A plain tar archive.
    None,
    /// Zstandard
    Zstd,
}

/// Whether a layer may be given away. The format has names for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// An ordinary layer.
    Distributable,
    /// A layer that registries do not hold: OCI `nondistributable`, Docker `foreign`.
    Restricted,
}

/// Whether a layer's bytes are ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// `…+encrypted`
    Encrypted,
    /// As tar, compressed or not.
    Plain,
}

/// A layer's media type, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerType {
    /// How the plain layer is compressed.
    pub compression: Compression,
    /// Whether registries hold it.
    pub distribution: Distribution,
    /// Whether it is encrypted.
    pub encryption: Encryption,
}

impl LayerType {
    /// Reads a media type; `None` when it is no layer's.
    pub fn parse(media_type: &str) -> Option<Self> {
        let (plain, encryption) = match media_type.strip_suffix(ENCRYPTED) {
            Some(plain) => (plain, Encryption::Encrypted),
            None => (media_type, Encryption::Plain),
        };
        let find = |table: &[Names]| {
            table.iter().find_map(|(name, compression, distribution)| {
                (*name == plain).then_some(Self { compression: *compression, distribution: *distribution, encryption })
            })
        };
        match encryption {
            Encryption::Encrypted => find(&OCI),
            Encryption::Plain => find(&OCI).or_else(|| find(&DOCKER)),
        }
    }

    /// The OCI media type.
    pub fn name(self) -> String {
        let plain = OCI
            .iter()
            .find(|(_, compression, distribution)| {
                (*compression, *distribution) == (self.compression, self.distribution)
            })
            .map_or("", |(name, ..)| name);
        match self.encryption {
            Encryption::Encrypted => format!("{plain}{ENCRYPTED}"),
            Encryption::Plain => plain.to_owned(),
        }
    }
}

/// The media type of the layer once it is encrypted.
///
/// # Errors
/// [`MediaTypeError::AlreadyEncrypted`], [`MediaTypeError::Unknown`].
pub fn encrypted(plain: &str) -> Result<String, MediaTypeError> {
    let found = || plain.to_owned();
    let layer = LayerType::parse(plain).ok_or_else(|| MediaTypeError::Unknown { found: found() })?;
    match layer.encryption {
        Encryption::Encrypted => Err(MediaTypeError::AlreadyEncrypted { found: found() }),
        Encryption::Plain => Ok(LayerType { encryption: Encryption::Encrypted, ..layer }.name()),
    }
}

/// The media type of the layer once it is decrypted, always an OCI one.
///
/// # Errors
/// [`MediaTypeError::NotEncrypted`], [`MediaTypeError::Unknown`].
pub fn plain(encrypted: &str) -> Result<String, MediaTypeError> {
    let found = || encrypted.to_owned();
    let layer = LayerType::parse(encrypted).ok_or_else(|| MediaTypeError::Unknown { found: found() })?;
    match layer.encryption {
        Encryption::Plain => Err(MediaTypeError::NotEncrypted { found: found() }),
        Encryption::Encrypted => Ok(LayerType { encryption: Encryption::Plain, ..layer }.name()),
    }
}

/// Whether a media type claims to be encrypted, known or not.
pub fn is_encrypted(media_type: &str) -> bool {
    media_type.ends_with(ENCRYPTED)
}

type Names = (&'static str, Compression, Distribution);

const ENCRYPTED: &str = "+encrypted";

const OCI: [Names; 6] = {
    use Compression::{Gzip, None, Zstd};
    use Distribution::{Distributable, Restricted};
    [
        ("application/vnd.oci.image.layer.v1.tar", None, Distributable),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Gzip, Distributable),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Zstd, Distributable),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", None, Restricted),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Gzip, Restricted),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", Zstd, Restricted),
    ]
};

const DOCKER: [Names; 5] = {
    use Compression::{Gzip, None, Zstd};
    use Distribution::{Distributable, Restricted};
    [
        ("application/vnd.docker.image.rootfs.diff.tar", None, Distributable),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Gzip, Distributable),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", Zstd, Distributable),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar", None, Restricted),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Gzip, Restricted),
    ]
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_plain_type_has_its_encrypted_one() {
        for (from, to) in [
            ("application/vnd.oci.image.layer.v1.tar", "layer.v1.tar+encrypted"),
            ("application/vnd.oci.image.layer.v1.tar+gzip", "layer.v1.tar+gzip+encrypted"),
            ("application/vnd.oci.image.layer.v1.tar+zstd", "layer.v1.tar+zstd+encrypted"),
            ("application/vnd.docker.image.rootfs.diff.tar", "layer.v1.tar+encrypted"),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", "layer.v1.tar+gzip+encrypted"),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", "layer.v1.tar+zstd+encrypted"),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "layer.nondistributable.v1.tar+gzip+encrypted",
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
                "layer.nondistributable.v1.tar+zstd+encrypted",
            ),
        ] {
            let sealed = encrypted(from).unwrap();
            assert_eq!(sealed, format!("application/vnd.oci.image.{to}"));
            assert!(is_encrypted(&sealed));
            let opened = plain(&sealed).unwrap();
            let layer = LayerType::parse(&opened).unwrap();
            assert_eq!(Some(layer), LayerType::parse(from));
        }
    }

    #[test]
    fn types_without_counterpart_are_errors() {
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        let sealed = encrypted(gzip).unwrap();
        assert!(matches!(encrypted(&sealed), Err(MediaTypeError::AlreadyEncrypted { .. })));
        assert!(matches!(plain(gzip), Err(MediaTypeError::NotEncrypted { .. })));
        for unknown in [
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+bzip2+encrypted",
            "application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted",
            "application/vnd.oci.image.layer.v1.tar+encrypted+encrypted",
        ] {
            assert!(matches!(encrypted(unknown), Err(MediaTypeError::Unknown { .. })));
            assert!(matches!(plain(unknown), Err(MediaTypeError::Unknown { .. })));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(application/vnd.oci.image.layer.v1.tar)?[a-z.+]{0,12}(\\+encrypted)?") {
            if let Some(layer) = LayerType::parse(&text) {
                prop_assert_eq!(LayerType::parse(&layer.name()), Some(layer));
            }
        }
    }
}
