//! References to registries: host, repository, tag and digest, by the grammar of the distribution specification.

use std::fmt;
use std::str::FromStr;

use super::ParseReferenceError;
use crate::digest::Digest;

/// A repository in a registry, and which of its images.
///
/// Where both tag and digest stand, the digest decides.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RegistryReference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl RegistryReference {
    /// The host with its port, as written; `docker.io` for references without one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name of the repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Host and repository without tag or digest: what simple signing calls the docker reference's name.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The same repository at a digest, without tag.
    #[must_use]
    pub fn with_digest(self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self }
    }

    /// Whether the host is a loopback address by name: `localhost`, `127.0.0.0/8` or `[::1]`.
    pub fn is_loopback(&self) -> bool {
        let host = match self.host.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.host,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for RegistryReference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A first component is a host when it could not be one of a name; otherwise the name is on Docker Hub.
        let (host, rest) = match rest.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':', '[']) || host == "localhost" => (host, rest),
            _ => ("docker.io", rest),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        if !is_host(host) {
            return Err(ParseReferenceError::Host { host: host.to_owned() });
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ParseReferenceError::Tag { tag: tag.to_owned() });
        }
        let repository = match host {
            "docker.io" if !name.contains('/') => format!("library/{name}"),
            _ => name.to_owned(),
        };
        if !is_repository(&repository) {
            return Err(ParseReferenceError::Repository { name: name.to_owned() });
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: host.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether a text is a tag of a registry ([distribution-spec], "pulling manifests").
///
/// [distribution-spec]: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests
pub fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, port)) => match port.strip_prefix(':') {
            Some(port) => (address, Some(port)),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let name_is_right = if text.starts_with('[') {
        name.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        name.len() <= 253
            && name.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
    };
    let port_is_right = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    name_is_right && port_is_right
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/…)*`, at most 255 bytes.
fn is_repository(text: &str) -> bool {
    text.len() <= 255
        && text.split('/').all(|component| {
            let mut separator = "";
            let mut start = 0;
            let bytes = component.as_bytes();
            let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
                return false;
            }
            for (at, byte) in bytes.iter().enumerate() {
                if alphanumeric(byte) {
                    if !matches!(separator, "" | "." | "_" | "__") && separator.bytes().any(|byte| byte != b'-') {
                        return false;
                    }
                    separator = "";
                    start = at + 1;
                } else if matches!(byte, b'.' | b'_' | b'-') {
                    separator = component.get(start..=at).unwrap_or("");
                } else {
                    return false;
                }
            }
            true
        })
}
