//! What the relay may do, and until when.

use std::future::pending;
use std::time::Duration;

use attestation_service::{Service, boot_time};
use command_line::{Console, ExitCode, Failure};
use release_protocol::{AttestAnswer, Lease, LeaseState, LicenseFile};
use url::Url;

use super::parent::Parent;
use super::{local, write_child_license};
use crate::home::VendorHome;

/// How often time is looked at: a machine that slept wakes with its authority over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon a service that was away is asked again, at the latest.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A lease of the vendor's, by this machine's clock, which goes on while it sleeps.
struct Held {
    token: String,
    since: Option<u64>,
    lease: Lease,
    asked: Duration,
}

impl Held {
    fn new(answer: AttestAnswer, asked: Duration) -> Result<Self, Failure> {
        let lease = answer.lease.ok_or_else(|| Failure::verification("the vendor's service granted no lease"))?;
        Ok(Self { token: answer.token, since: answer.news_since, lease, asked })
    }

    /// Counted from when it was asked for: it is never later than by the service's clock.
    fn ends(&self) -> Duration {
        self.asked + Duration::from_secs(self.lease.ttl_seconds.saturating_add(self.lease.grace_seconds))
    }

    fn renews(&self) -> Duration {
        self.asked + Duration::from_secs(self.lease.renew_after_seconds())
    }
}

/// What the relay holds, and how long it may hand on what it took up.
struct Term {
    held: Held,
    /// When authority ends. A lease that was renewed lengthens it once what is delegated now was taken up: whoever keeps that
    /// from the relay would have it go on by former rules for ever.
    ends: Duration,
}

impl Term {
    /// Nothing was taken up yet.
    fn new(held: Held) -> Self {
        Self { held, ends: Duration::ZERO }
    }

    fn renewed(&mut self, held: Held) {
        self.ends = self.ends.min(held.ends());
        self.held = held;
    }

    fn taken_up(&mut self) {
        self.ends = self.held.ends();
    }
}

/// The authority of a relay that serves.
pub(crate) struct Authority {
    parent: Parent,
    term: Term,
}

impl Authority {
    /// Asks the vendor's service for it, and takes up what it delegates.
    pub(crate) async fn obtain(
        home: &VendorHome,
        service: &Service,
        license: LicenseFile,
        own_url: Url,
        console: &Console,
    ) -> Result<Self, Failure> {
        let parent = Parent::new(license, own_url, super::attester::open(console)?)?;
        let asked = boot_time();
        let term = Term::new(Held::new(parent.attest(false).await?, asked)?);
        let mut this = Self { parent, term };
        match this.take_up(home, service).await {
            Ok(()) => Ok(this),
            Err(failure) => {
                // Nothing runs yet: the next start is to find it free.
                let _ = this.parent.end_lease(&this.term.held.token).await;
                Err(failure)
            }
        }
    }

    /// Takes up what is delegated now. Who is refused in the middle has what it had before, or less.
    async fn take_up(&mut self, home: &VendorHome, service: &Service) -> Result<(), Failure> {
        let token = &self.term.held.token;
        let delegation = self.parent.delegation(token).await?;
        service.take_up(&delegation).await.map_err(|error| local(&error))?;
        for (path, key) in service.missing_keys(&delegation).await.map_err(|error| local(&error))? {
            let kek = self.parent.key(token, &path).await?;
            service.take_up_key(&path, key, &kek).await.map_err(|error| local(&error))?;
        }
        let issued = service.child_license(&delegation).await.map_err(|error| local(&error))?;
        write_child_license(home, &issued)?;
        self.term.taken_up();
        service.has_authority_until(self.term.ends);
        Ok(())
    }

    /// Renews the authority until it is lost; gives why.
    pub(crate) async fn keep(&mut self, home: &VendorHome, service: &Service, console: &Console) -> Failure {
        let mut away: Option<Failure> = None;
        let mut next = self.term.held.renews();
        loop {
            let due = next.min(self.term.ends);
            let told = tokio::select! {
                told = self.wait_for_news(away.is_some()) => told,
                () = wait_until(due) => Ok(()),
            };
            if let Err(lost) = told {
                return lost;
            }
            let left = self.term.ends.saturating_sub(boot_time());
            if left.is_zero() {
                return over(away);
            }
            let renewed = tokio::time::timeout(left, self.renew(home, service)).await;
            match renewed {
                Err(_) => return over(away),
                Ok(Ok(())) => {
                    if away.take().is_some() {
                        console.say("the vendor's service is back; the relay's authority is renewed");
                    }
                    next = self.term.held.renews();
                }
                Ok(Err(failure)) if failure.code == ExitCode::Unavailable => {
                    if away.is_none() {
                        let left = self.term.ends.saturating_sub(boot_time()).as_secs();
                        console.say(format!("{}: the relay can go on for {left} s without it", failure.message));
                    }
                    away = Some(failure);
                    let soon = Duration::from_secs(self.term.held.lease.renew_after_seconds()).min(ASK_AGAIN);
                    next = boot_time() + soon;
                }
                Ok(Err(failure)) => return failure,
            }
        }
    }

    /// Gives the authority back where nothing runs by it. Else it stays taken until it lapses: another relay would give the
    /// same seats out once more.
    pub(crate) async fn give_back(&self, service: &Service, console: &Console) {
        if matches!(service.children().await, Ok(0)) {
            if let Err(failure) = self.parent.end_lease(&self.term.held.token).await {
                console.say(format!("the relay's authority could not be given back: {}", failure.message));
            }
            return;
        }
        let left = self.term.held.ends().saturating_sub(boot_time()).as_secs();
        console.say(format!(
            "guests of this relay run on: no relay gets this licence again before {left} s are over, or the vendor ends its lease"
        ));
    }

    async fn renew(&mut self, home: &VendorHome, service: &Service) -> Result<(), Failure> {
        let asked = boot_time();
        self.term.renewed(Held::new(self.parent.attest(true).await?, asked)?);
        service.has_authority_until(self.term.ends);
        self.take_up(home, service).await
    }

    /// Returns when the lease has to be renewed now, or why it was lost. Of a service that is away there is no news.
    async fn wait_for_news(&mut self, is_away: bool) -> Result<(), Failure> {
        loop {
            if is_away {
                return pending().await;
            }
            match self.parent.watch(&self.term.held.token, self.term.held.since).await {
                Ok(news) => {
                    self.term.held.since = Some(news.since);
                    match news.state {
                        LeaseState::Live => {}
                        LeaseState::Renew => return Ok(()),
                        LeaseState::Ended { reason } => {
                            return Err(Failure::denied("the vendor's service ended the relay's lease").cause(reason));
                        }
                    }
                }
                // The renewal shows what that means.
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// Waits by the clock that goes on while the machine sleeps.
async fn wait_until(then: Duration) {
    loop {
        let left = then.saturating_sub(boot_time());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_EVERY)).await;
    }
}

fn over(away: Option<Failure>) -> Failure {
    let lost = Failure::unavailable("the vendor's service did not renew the relay's authority in time");
    match away {
        None => lost,
        Some(why) => why.causes.iter().fold(lost.cause(why.message), Failure::cause),
    }
}

#[cfg(test)]
mod tests {
    use release_protocol::LeaseId;

    use super::*;

    fn held(asked: u64, ttl_seconds: u64) -> Held {
        let lease = Lease {
            id: LeaseId("relay".to_owned()),
            license: "licence".to_owned(),
            expires_at: jiff::Timestamp::UNIX_EPOCH,
            ttl_seconds,
            grace_seconds: 10,
        };
        Held { token: String::new(), since: None, lease, asked: Duration::from_secs(asked) }
    }

    #[test]
    fn a_renewal_whose_rules_were_not_taken_up_lengthens_nothing() {
        let mut term = Term::new(held(100, 60));
        assert_eq!(term.ends, Duration::ZERO, "nothing was taken up yet");
        term.taken_up();
        assert_eq!(term.ends, Duration::from_secs(170));
        term.renewed(held(150, 60));
        assert_eq!(term.ends, Duration::from_secs(170));
        term.taken_up();
        assert_eq!(term.ends, Duration::from_secs(220));
        // What the vendor shortens is shorter at once.
        term.renewed(held(200, 5));
        assert_eq!(term.ends, Duration::from_secs(215));
    }
}
