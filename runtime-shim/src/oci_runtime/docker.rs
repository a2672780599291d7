//! Docker's own image store (`DATA/containers`, `DATA/image/DRIVER`), of which containerd, that runs its containers, knows
//! nothing. Read only, as the files stand.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use command_line::{ExitCode, Failure, FailureContext as _};
use serde::Deserialize;

use super::container_image::diff_ids;
use crate::agent::protocol::ContainerImage;

/// The longest file that is read, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// `config.v2.json`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(default)]
    image: String,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
}

/// The image of the container with this id and root file system (`DATA/DRIVER/NAME/merged`); `None` where it is not Docker's.
pub(super) fn image_of(id: &str, root: &Path) -> Result<Option<ContainerImage>, Failure> {
    let Some((data, driver)) = place(root) else { return Ok(None) };
    let container = data.join("containers").join(id).join("config.v2.json");
    if !container.exists() {
        return Ok(None);
    }
    let cannot = || format!("cannot read Docker's record `{}`", container.display());
    let container: Container = serde_json::from_slice(&read(&container)?).or_fail(ExitCode::Other, cannot)?;
    if container.image.is_empty() {
        return Ok(None);
    }
    let hex = container.image.strip_prefix("sha256:").unwrap_or(&container.image);
    let image = data.join("image").join(driver).join("imagedb/content/sha256").join(hex);
    Ok(Some(ContainerImage {
        reference: container.config.image,
        // Docker opens no sealed layers itself, and keeps no manifests: the layers tell.
        manifest_digest: None,
        is_sealed: false,
        diff_ids: diff_ids(&read(&image)?)?,
        chain_ids: Vec::new(),
    }))
}

/// The data directory and the driver's name.
fn place(root: &Path) -> Option<(PathBuf, String)> {
    let own = root.parent().filter(|_| root.file_name().is_some_and(|name| name == "merged"))?;
    let driver = own.parent()?;
    Some((driver.parent()?.to_owned(), driver.file_name()?.to_str()?.to_owned()))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes))
        .or_fail(ExitCode::Other, || format!("cannot read Docker's record `{}`", file.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_of_a_container_are_found_through_its_image() {
        let data = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = data.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("containers/abc/config.v2.json", r#"{"Image": "sha256:feed", "Config": {"Image": "app:v1"}}"#);
        write("image/overlay2/imagedb/content/sha256/feed", r#"{"rootfs": {"diff_ids": ["sha256:01"]}}"#);
        let root = data.path().join("overlay2/0123/merged");
        let image = image_of("abc", &root).unwrap().unwrap();
        assert_eq!((image.reference.as_str(), image.diff_ids), ("app:v1", vec!["sha256:01".to_owned()]));
        assert_eq!(image_of("other", &root).unwrap(), None);
        assert_eq!(image_of("abc", Path::new("rootfs")).unwrap(), None);
        std::fs::remove_dir_all(data.path().join("image")).unwrap();
        assert!(image_of("abc", &root).is_err());
    }
}
