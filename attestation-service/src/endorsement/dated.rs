//! What may take the place of what is on a shelf: lists and collateral are believed by their dates for weeks, and an older one may
//! lack what was revoked since.

use std::path::Path;

use jiff::Timestamp;
use launch_evidence::TrustRoots;
use launch_evidence::snp::Product;
use serde::Deserialize;

use super::shelf::Shelf;

/// Why nothing is put in the place of what is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotTaken {
    /// What is there is newer.
    #[error("what is there already is newer")]
    Older,
    /// No list that AMD signed for the product, or collateral that does not say when it was made.
    #[error("it is none that counts: {0}")]
    Unusable(String),
}

impl Shelf {
    /// Sees whether a file may be put under this name. Certificates have no order.
    ///
    /// # Errors
    /// [`NotTaken`] where what is there is newer, or what is offered would count for nothing.
    pub fn check(&self, roots: &TrustRoots, relative: &str, offered: &[u8], now: Timestamp) -> Result<(), NotTaken> {
        let (folder, name) = relative.split_once('/').unwrap_or_default();
        let list_dates = |list: &[u8]| {
            let product = Product::ALL.into_iter().find(|product| product.as_str() == folder);
            let product = product.ok_or_else(|| format!("no product {folder}"))?;
            roots.revocation_list_date(product, list).map(|date| vec![date]).map_err(|error| error.to_string())
        };
        let dates: &dyn Fn(&[u8]) -> Dates = match (folder, name) {
            (_, "crl.der") => &list_dates,
            (Self::TDX, _) => &collateral_dates,
            _ => return Ok(()),
        };
        let offered = dates(offered).map_err(NotTaken::Unusable)?;
        if let Some(date) = offered.iter().find(|date| **date > now) {
            return Err(NotTaken::Unusable(format!("it is of {date}, which is yet to come")));
        }
        // What is there and counts for nothing is no loss.
        let present = self.read(Path::new(relative)).and_then(|present| dates(&present).ok()).unwrap_or_default();
        if present.iter().zip(&offered).any(|(present, offered)| offered < present) {
            return Err(NotTaken::Older);
        }
        Ok(())
    }
}

/// When the parts of a file were made, or why it counts for nothing.
type Dates = Result<Vec<Timestamp>, String>;

/// The parts of collateral that say when they were made.
#[derive(Deserialize)]
struct Collateral {
    tcb_info: String,
    qe_identity: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dated {
    issue_date: Timestamp,
}

fn collateral_dates(json: &[u8]) -> Dates {
    let collateral: Collateral = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let date = |part: &str| serde_json::from_str::<Dated>(part).map(|dated| dated.issue_date);
    let dates = [&collateral.tcb_info, &collateral.qe_identity].map(|part| date(part));
    dates.into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collateral(tcb: &str, enclave: &str) -> Vec<u8> {
        let part = |date: &str| serde_json::json!({"issueDate": date}).to_string();
        serde_json::json!({"tcb_info": part(tcb), "qe_identity": part(enclave)}).to_string().into_bytes()
    }

    #[test]
    fn nothing_older_and_nothing_that_counts_for_nothing_takes_a_lists_place() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(directory.path().to_owned());
        let check = |name: &str, offered: &[u8]| {
            shelf.check(&TrustRoots::amd(), name, offered, "2026-05-01T00:00:00Z".parse().unwrap())
        };
        let (march, april) = ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z");
        let name = "tdx/00806f050000.json";
        check(name, &collateral(march, march)).unwrap();
        shelf.put(name, b"damaged").unwrap();
        check(name, &collateral(march, march)).unwrap();
        shelf.put(name, &collateral(april, april)).unwrap();
        check(name, &collateral(april, april)).unwrap();
        for older in [collateral(march, april), collateral(april, march)] {
            assert!(matches!(check(name, &older), Err(NotTaken::Older)));
        }
        let tomorrow = collateral("2026-05-02T00:00:00Z", april);
        for (name, offered) in
            [(name, &b"damaged"[..]), (name, &tomorrow), ("Genoa/crl.der", b"a list"), ("Rome/crl.der", b"a list")]
        {
            assert!(matches!(check(name, offered), Err(NotTaken::Unusable(_))), "{name}");
        }
        check("Genoa/chip/tcb.der", b"a certificate").unwrap();
    }
}
