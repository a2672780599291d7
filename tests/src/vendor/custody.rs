//! A vendor whose master key is elsewhere than in the home.

use std::path::Path;

use super::Vendor;

impl Vendor {
    /// Like [`Self::start`], with this master key, which the environment says how to reach.
    ///
    /// # Panics
    /// When anything fails.
    pub fn start_under(
        master_key: &str,
        environment: Vec<(String, String)>,
        directory: &Path,
        products: &[&str],
    ) -> Self {
        Self { master_key: Some(master_key.to_owned()), environment, ..Self::new(directory) }.set_up(products)
    }

    /// Adds to what commands and a service that is started find in their environment.
    pub fn add_environment(&mut self, more: Vec<(String, String)>) {
        self.environment.extend(more);
    }
}
