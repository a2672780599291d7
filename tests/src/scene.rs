//! Where the tests of bad input begin: a vendor, a sealed image in an OCI layout, and a licence for it.

use std::path::{Path, PathBuf};

use image_store::{Manifest, media_type};
use tempfile::TempDir;

use crate::image::{PlainImage, create, manifest, open};
use crate::peer::Said;
use crate::vendor::Vendor;

/// The product of the scene's image.
pub const PRODUCT: &str = "recipe";

/// A vendor with a sealed image in an OCI layout, and a licence for it.
#[derive(Debug)]
pub struct Scene {
    /// Everything of it.
    pub scratch: TempDir,
    /// The image before it was sealed.
    pub plain: PlainImage,
    /// The vendor, its service running.
    pub vendor: Vendor,
    /// The path of a licence for one seat.
    pub license: String,
    /// `oci:DIR:v1`.
    pub sealed: String,
}

impl Scene {
    /// Makes it.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn set() -> Self {
        Self::around(|directory| Vendor::start(directory, &[PRODUCT, "other"])).await
    }

    /// Makes one whose service has so many replicas on a PostgreSQL database.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn set_on(database: &str, replicas: usize) -> Self {
        Self::around(|directory| Vendor::start_replicas(database, replicas, directory, &[PRODUCT])).await
    }

    /// Makes one whose keys are under this master key, which the environment says how to reach.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn set_under(master_key: &str, environment: Vec<(String, String)>) -> Self {
        Self::around(|directory| Vendor::start_under(master_key, environment, directory, &[PRODUCT])).await
    }

    async fn around(vendor: impl FnOnce(&Path) -> Vendor) -> Self {
        let scratch = tempfile::tempdir().expect("works");
        let plain = PlainImage::make(&scratch.path().join("plain")).await;
        let vendor = vendor(scratch.path());
        let sealed = format!("oci:{}:v1", scratch.path().join("sealed").display());
        vendor.pack(&plain.reference("mixed"), &sealed, PRODUCT);
        let (_, license) = vendor.license(PRODUCT, &[]);
        Self { license: license.display().to_string(), scratch, plain, vendor, sealed }
    }

    /// Runs the sealed image with the scene's licence, in a simulated guest.
    ///
    /// # Panics
    /// When anything fails.
    #[track_caller]
    #[must_use]
    pub fn run(&self) -> Said {
        self.run_with(&self.license)
    }

    /// The same with another licence; asserts that nothing stays behind.
    ///
    /// # Panics
    /// When anything fails.
    #[track_caller]
    #[must_use]
    pub fn run_with(&self, license: &str) -> Said {
        let said = self.vendor.guest(["run", &self.sealed, "--license", license]);
        self.vendor.assert_nothing_left();
        said
    }

    /// The file of a sealed layer.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn blob_of_layer(&self, position: usize) -> PathBuf {
        let manifest = manifest(&open(&self.sealed).await).await;
        self.scratch.path().join("sealed/blobs/sha256").join(manifest.layers[position].digest.hex())
    }

    /// Puts a changed manifest in the place of the sealed one.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn change_manifest(&self, change: impl FnOnce(&mut Manifest)) {
        let store = create(&self.sealed).await;
        let mut changed = manifest(&store).await;
        change(&mut changed);
        store.put_image(changed.to_bytes().expect("works"), media_type::OCI_MANIFEST).await.expect("works");
        store.commit().await.expect("works");
    }
}
