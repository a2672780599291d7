//! What the licensing desk does: licences issued, changed and ended. What may become of a licence stands in
//! `store/license_change.rs`.

use jiff::{SignedDuration, Timestamp};
use launch_evidence::ChipId;
use release_protocol::{License, LicenseId};

use crate::api::{End, IssuedLicense, LicenseStatus, NewLicense, Reason, Renewal, Revocation, Revoked, Transfer};
use crate::service::{Service, ServiceError};
use crate::store::AuditKind;

/// The longest lease, in seconds: 31 days.
const LEASE_MAX_SECONDS: u64 = 31 * 24 * 3600;
/// The longest offline allowance, in seconds: 93 days.
const OFFLINE_MAX_SECONDS: u64 = 93 * 24 * 3600;
/// The most licences that are issued in one go.
const ISSUED_MAX: usize = 10_000;

impl Service {
    /// Issues licences: all of them, or none.
    pub(crate) async fn issue_licenses(&self, all: Vec<NewLicense>) -> Result<Vec<IssuedLicense>, ServiceError> {
        if all.is_empty() || all.len() > ISSUED_MAX {
            return Err(ServiceError::BadRequest(format!("one to {ISSUED_MAX} licences are issued in one go")));
        }
        let now = self.now();
        let mut licenses = Vec::with_capacity(all.len());
        let mut issued = Vec::with_capacity(all.len());
        for (position, new) in all.into_iter().enumerate() {
            let named = |why: String| ServiceError::BadRequest(format!("licence {}: {why}", position + 1));
            let license = self.draft(new, now).await.map_err(|error| match error {
                ServiceError::BadRequest(why) => named(why),
                other => other,
            })?;
            let token = license.sign(&self.license_key)?.token().to_owned();
            issued.push(IssuedLicense { id: license.id.0.clone(), token });
            licenses.push(license);
        }
        self.store.insert_licenses(&licenses, now).await?;
        Ok(issued)
    }

    async fn draft(&self, new: NewLicense, now: Timestamp) -> Result<License, ServiceError> {
        let valid_from = new.valid_from.unwrap_or(now);
        let valid_until = moment(new.valid_until, now)?;
        check_license(&new, valid_from, valid_until)?;
        let mut signers: Vec<String> = Vec::new();
        for product in &new.products {
            signers.extend(self.store.product(product).await?.signers.into_iter().map(|signer| signer.pem));
        }
        signers.sort();
        signers.dedup();
        Ok(License {
            id: LicenseId(format!("lic-{}", uuid::Uuid::now_v7())),
            customer: new.customer,
            products: new.products,
            issued_at: now.as_second(),
            valid_from: valid_from.as_second(),
            valid_until: valid_until.as_second(),
            seats: new.seats,
            lease_seconds: new.lease_seconds,
            grace_seconds: new.grace_seconds,
            offline_seconds: new.offline_seconds,
            platforms: new.platforms,
            features: new.features,
            generation: 0,
            relay: new.relay,
            service: self.address.clone(),
            signers,
        })
    }

    /// Suspends a licence.
    pub(crate) async fn suspend_license(&self, id: &LicenseId, why: &Reason) -> Result<LicenseStatus, ServiceError> {
        demand_reason(&why.reason)?;
        self.store.suspend_license(id, &why.reason, self.now()).await?;
        Ok(self.store.license_status(id, self.now()).await?)
    }

    /// Lets a suspended licence hold again.
    pub(crate) async fn resume_license(&self, id: &LicenseId, why: &Reason) -> Result<LicenseStatus, ServiceError> {
        demand_reason(&why.reason)?;
        self.store.resume_license(id, &why.reason, self.now()).await?;
        Ok(self.store.license_status(id, self.now()).await?)
    }

    /// Gives a licence another end or number of seats. The files that are out there go on serving.
    pub(crate) async fn renew_license(&self, id: &LicenseId, new: &Renewal) -> Result<IssuedLicense, ServiceError> {
        demand_reason(&new.reason)?;
        let current = self.store.license_status(id, self.now()).await?;
        let valid_until = new.valid_until.map(|end| moment(end, self.now())).transpose()?;
        if valid_until.is_some_and(|until| until <= current.valid_from) {
            return Err(ServiceError::BadRequest("a licence ends after it begins".to_owned()));
        }
        if new.seats == Some(0) {
            return Err(ServiceError::BadRequest("a licence has at least one seat".to_owned()));
        }
        let change = |license: &mut License| {
            license.valid_until = valid_until.map_or(license.valid_until, Timestamp::as_second);
            license.seats = new.seats.unwrap_or(license.seats);
        };
        self.change_license(id, AuditKind::LicenseRenewed, &new.reason, change).await
    }

    /// Gives a licence to another customer, or binds it to other chips. For another customer it is another file: those
    /// before open nothing any more.
    pub(crate) async fn transfer_license(&self, id: &LicenseId, new: &Transfer) -> Result<IssuedLicense, ServiceError> {
        demand_reason(&new.reason)?;
        if new.customer.is_none() && new.platforms.is_none() {
            return Err(ServiceError::BadRequest("a transfer names a customer or chips".to_owned()));
        }
        if new.customer.as_ref().is_some_and(|customer| customer.trim().is_empty()) {
            return Err(ServiceError::BadRequest("a licence names its customer".to_owned()));
        }
        check_platforms(new.platforms.as_deref().unwrap_or_default())?;
        let change = |license: &mut License| {
            if let Some(customer) = &new.customer {
                license.customer.clone_from(customer);
                license.generation = license.generation.saturating_add(1);
            }
            if let Some(platforms) = &new.platforms {
                license.platforms.clone_from(platforms);
            }
        };
        self.change_license(id, AuditKind::LicenseTransferred, &new.reason, change).await
    }

    async fn change_license(
        &self,
        id: &LicenseId,
        kind: AuditKind,
        reason: &str,
        change: impl FnOnce(&mut License) + Send,
    ) -> Result<IssuedLicense, ServiceError> {
        let changed = self.store.change_license(id, kind, reason, self.now(), change).await?;
        Ok(IssuedLicense { id: id.0.clone(), token: changed.sign(&self.license_key)?.token().to_owned() })
    }

    /// Revokes a licence for ever.
    pub(crate) async fn revoke_license(&self, id: &LicenseId, why: &Revocation) -> Result<Revoked, ServiceError> {
        demand_reason(&why.reason)?;
        let now = self.now();
        let drain = why.drain_seconds.filter(|seconds| *seconds > 0);
        if drain.is_some_and(|seconds| seconds > LEASE_MAX_SECONDS) {
            return Err(ServiceError::BadRequest("what runs may drain for 31 days at most".to_owned()));
        }
        let until = |seconds| {
            let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            now.checked_add(seconds).map_err(|error| ServiceError::BadRequest(error.to_string()))
        };
        let drain_until = drain.map(until).transpose()?;
        Ok(self.store.revoke_license(id, &why.reason, drain_until, now).await?)
    }
}

fn demand_reason(reason: &str) -> Result<(), ServiceError> {
    if reason.trim().is_empty() {
        return Err(ServiceError::BadRequest("a licence is not changed without a reason".to_owned()));
    }
    Ok(())
}

fn moment(end: End, now: Timestamp) -> Result<Timestamp, ServiceError> {
    end.moment(now)
        .map_err(|error| ServiceError::BadRequest(format!("`{end}` is no time that a licence can end at: {error}")))
}

fn check_license(new: &NewLicense, valid_from: Timestamp, valid_until: Timestamp) -> Result<(), ServiceError> {
    let refuse = |why: &str| Err(ServiceError::BadRequest(why.to_owned()));
    if new.products.is_empty() {
        return refuse("a licence covers at least one product");
    }
    if new.customer.trim().is_empty() {
        return refuse("a licence names its customer");
    }
    if new.seats == 0 {
        return refuse("a licence has at least one seat");
    }
    if valid_until <= valid_from {
        return refuse("a licence ends after it begins");
    }
    check_platforms(&new.platforms)?;
    if new.lease_seconds == 0 || new.lease_seconds > LEASE_MAX_SECONDS || new.grace_seconds > LEASE_MAX_SECONDS {
        return refuse("a lease lives from one second to 31 days, and so does its grace (or none)");
    }
    if new.offline_seconds.is_some_and(|seconds| seconds == 0 || seconds > OFFLINE_MAX_SECONDS) {
        return refuse("what a guest may do without the service lasts from one second to 93 days");
    }
    Ok(())
}

fn check_platforms(platforms: &[String]) -> Result<(), ServiceError> {
    for platform in platforms {
        let chip: ChipId = platform
            .parse()
            .map_err(|error| ServiceError::BadRequest(format!("`{platform}` is no chip id: {error}")))?;
        if chip.as_bytes().iter().all(|byte| *byte == 0) {
            let why = "a licence cannot be bound to the zero chip id: every platform that masks its id reports it";
            return Err(ServiceError::BadRequest(why.to_owned()));
        }
    }
    Ok(())
}
