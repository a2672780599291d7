//! What the relay may do, and until when.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use attestation_service::Service;
use command_line::{Console, ExitCode, Failure};
use held_lease::{BootTime, ClockCheck, Exchange, ReceiptBook, Refused, clocks_parted};
use launch_evidence::Attester;
use release_protocol::{AttestAnswer, Lease, LeaseState, LicenseFile, RelayStatement};

use super::kept::KeptKey;
use super::parent::{Attested, Parent, new_key};
use super::{Publish, local, time, write_child_license};
use crate::home::VendorHome;

/// How often time is looked at: a machine that slept wakes with its authority over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon a service that was away is asked again, at the latest.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long a relay that stops tries to give its authority back.
const GIVE_BACK: Duration = Duration::from_secs(10);

/// A lease of the vendor's, by this machine's clock, which goes on while it sleeps.
struct Held {
    token: String,
    since: Option<u64>,
    lease: Lease,
    asked: BootTime,
}

impl Held {
    fn new(attested: &Attested) -> Result<Self, Failure> {
        let AttestAnswer { token, lease, news_since, .. } = &attested.answer;
        let no_lease = || Failure::verification("the vendor's service granted no lease");
        let lease = lease.clone().ok_or_else(no_lease)?;
        Ok(Self { token: token.clone(), since: *news_since, lease, asked: attested.asked })
    }

    /// Counted from when it was asked for: it is never later than by the service's clock.
    fn ends(&self) -> BootTime {
        self.asked.plus(Duration::from_secs(self.lease.ttl_seconds.saturating_add(self.lease.grace_seconds)))
    }

    fn renews(&self) -> BootTime {
        self.asked.plus(Duration::from_secs(self.lease.renew_after_seconds()))
    }
}

/// What the relay holds, and how long it may hand on what it took up.
struct Term {
    held: Held,
    /// When authority ends. A lease that was renewed lengthens it once what is delegated now was taken up: whoever keeps that
    /// from the relay would have it go on by former rules for ever.
    ends: BootTime,
}

impl Term {
    /// Nothing was taken up yet.
    fn new(held: Held) -> Self {
        Self { held, ends: BootTime::from_nanoseconds(0) }
    }

    fn renewed(&mut self, held: Held) {
        self.ends = self.ends.min(held.ends());
        self.held = held;
    }

    fn taken_up(&mut self) {
        self.ends = self.held.ends();
    }

    /// The same for the service that grants by it.
    fn tell(&self, service: &Service) {
        service.has_authority_until(Duration::from_nanos(self.ends.to_nanoseconds()));
    }
}

/// The authority of a relay that serves.
pub(crate) struct Authority {
    parent: Parent,
    term: Term,
    kept: KeptKey,
    /// What is believed of the vendor's log; none for a service without one.
    receipts: Option<ReceiptBook>,
    /// What its signed times say of this machine's clock.
    clock: ClockCheck,
    publish: Option<Publish>,
}

impl Authority {
    /// Asks the vendor's service for it, and takes up what it delegates.
    pub(crate) async fn obtain(
        home: &VendorHome,
        service: &Service,
        license: LicenseFile,
        publish: Option<Publish>,
        console: &Console,
    ) -> Result<Self, Failure> {
        let claims = license.unverified();
        let log_key = claims.service.log_key.as_ref();
        let receipts = log_key.map(|key| ReceiptBook::of_log(key, &home.directory().join("vendor-log"))).transpose()?;
        let kept = KeptKey::new(home, &claims.id);
        let statement = service.relay_statement().map_err(|error| local(&error))?;
        let attester = super::attester::open(console)?;
        let (parent, attested) = ask(license, statement, attester, &kept).await?;
        let term = Term::new(Held::new(&attested)?);
        let mut this = Self { parent, term, kept, receipts, clock: ClockCheck::default(), publish };
        if let Err(failure) = this.begin(&attested, home, service, console).await {
            // Where nothing runs by it yet, the next start is to find it free.
            if !this.parent.resumes() {
                let _ = this.end_lease().await;
            }
            return Err(failure);
        }
        let simulated = if this.parent.is_simulated() { " (SIMULATED platform)" } else { "" };
        let how = if this.parent.resumes() { "going on with" } else { "holding" };
        let Lease { id, license, .. } = &this.term.held.lease;
        console.say(format!("attested{simulated}; {how} lease {id} of licence {license}"));
        Ok(this)
    }

    async fn begin(
        &mut self,
        attested: &Attested,
        home: &VendorHome,
        service: &Service,
        console: &Console,
    ) -> Result<(), Failure> {
        self.kept.write(self.parent.own_key(), Some(&self.term.held.lease.id))?;
        self.believe(attested).await?;
        self.take_up(home, service, console).await
    }

    /// Believes a grant or renewal by its receipt, as a shim does: that it is in the vendor's log, and was decided now.
    async fn believe(&mut self, attested: &Attested) -> Result<(), Failure> {
        let Some(receipts) = &mut self.receipts else { return Ok(()) };
        let Attested { answer, asked, answered } = attested;
        let (parent, lease) = (&self.parent, &self.term.held.lease.id);
        let accepted =
            receipts.accept(answer.receipt.clone(), lease, |old, new| parent.log_consistency(old, new)).await;
        let service = accepted.map_err(Refused::into_failure)?;
        let exchange = Exchange { service, asked: *asked, answered: *answered };
        self.clock.accept(exchange).map_err(|diverged| clocks_parted(&diverged, "relay"))?;
        time::take_from(&exchange);
        Ok(())
    }

    /// Takes up what is delegated now. Who is refused in the middle has what it had before, or less.
    async fn take_up(&mut self, home: &VendorHome, service: &Service, console: &Console) -> Result<(), Failure> {
        let token = &self.term.held.token;
        let delegation = self.parent.delegation(token).await?;
        service.take_up(&delegation).await.map_err(|error| local(&error))?;
        for (path, key) in service.missing_keys(&delegation).await.map_err(|error| local(&error))? {
            let kek = self.parent.key(token, &path).await?;
            service.take_up_key(&path, key, &kek).await.map_err(|error| local(&error))?;
        }
        let issued = service.child_license(&delegation).await.map_err(|error| local(&error))?;
        write_child_license(home, &issued, self.publish, console)?;
        self.term.taken_up();
        self.term.tell(service);
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
            let left = self.term.ends.until();
            if left.is_zero() {
                return over(away);
            }
            let renewed = tokio::time::timeout(left, self.renew(home, service, console)).await;
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
                        let left = self.term.ends.until().as_secs();
                        console.say(format!("{}: the relay can go on for {left} s without it", failure.message));
                    }
                    away = Some(failure);
                    let soon = Duration::from_secs(self.term.held.lease.renew_after_seconds()).min(ASK_AGAIN);
                    next = BootTime::now().plus(soon);
                }
                Ok(Err(failure)) => return failure,
            }
        }
    }

    /// Gives the authority back where nothing runs by it; nothing may begin any more. Else it stays taken until it lapses:
    /// another relay would give the same seats out once more.
    pub(crate) async fn give_back(&self, service: &Service, console: &Console) {
        if matches!(service.children().await, Ok(0)) {
            match self.end_lease().await {
                Ok(()) => console.say("the relay's authority is given back"),
                Err(failure) => {
                    console.say(format!("the relay's authority could not be given back: {}", failure.message));
                }
            }
            return;
        }
        let left = self.term.held.ends().until().as_secs();
        console.say(format!(
            "guests of this relay run on until their own leases end: started again in this guest, the relay goes on with its \
             own; another gets this licence when {left} s are over, or the vendor has ended that lease"
        ));
    }

    async fn end_lease(&self) -> Result<(), Failure> {
        let ended = tokio::time::timeout(GIVE_BACK, self.parent.end_lease(&self.term.held.token)).await;
        ended.unwrap_or_else(|_| Err(Failure::unavailable("the vendor's service does not answer in time")))?;
        self.kept.forget();
        Ok(())
    }

    async fn renew(&mut self, home: &VendorHome, service: &Service, console: &Console) -> Result<(), Failure> {
        let attested = self.parent.attest(Some(&self.term.held.lease.id)).await?;
        let held = Held::new(&attested)?;
        self.believe(&attested).await?;
        self.term.renewed(held);
        self.term.tell(service);
        self.take_up(home, service, console).await
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
                        LeaseState::Renew => {
                            // Whatever the service says, it is not asked without a pause.
                            wait_until(self.term.held.asked.plus(LOOK_EVERY)).await;
                            return Ok(());
                        }
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

/// Asks for a lease: for that of an earlier start in this guest, whose key was kept, or for a new one.
async fn ask(
    license: LicenseFile,
    statement: RelayStatement,
    attester: Arc<dyn Attester>,
    kept: &KeptKey,
) -> Result<(Parent, Attested), Failure> {
    if let Some((key, lease)) = kept.read() {
        let statement = RelayStatement { resumes: true, ..statement.clone() };
        let parent = Parent::new(license.clone(), statement, Arc::clone(&attester), key)?;
        match parent.attest(lease.as_ref()).await {
            // It is of another guest, or over.
            Err(failure) if failure.code == ExitCode::Denied => {}
            attested => return Ok((parent, attested?)),
        }
    }
    let parent = Parent::new(license, statement, attester, new_key()?)?;
    // Before it is of any lease: a start that dies in between leaves none that nobody can go on with.
    kept.write(parent.own_key(), None)?;
    let attested = parent.attest(None).await?;
    Ok((parent, attested))
}

/// Waits by the clock that goes on while the machine sleeps.
async fn wait_until(then: BootTime) {
    loop {
        let left = then.until();
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

    fn at(seconds: u64) -> BootTime {
        BootTime::from_nanoseconds(seconds * 1_000_000_000)
    }

    fn held(asked: u64, ttl_seconds: u64) -> Held {
        let lease = Lease {
            id: LeaseId("relay".to_owned()),
            license: "licence".to_owned(),
            expires_at: jiff::Timestamp::UNIX_EPOCH,
            ttl_seconds,
            grace_seconds: 10,
        };
        Held { token: String::new(), since: None, lease, asked: at(asked) }
    }

    #[test]
    fn a_renewal_whose_rules_were_not_taken_up_lengthens_nothing() {
        let mut term = Term::new(held(100, 60));
        assert_eq!(term.ends, at(0), "nothing was taken up yet");
        term.taken_up();
        assert_eq!(term.ends, at(170));
        term.renewed(held(150, 60));
        assert_eq!(term.ends, at(170));
        term.taken_up();
        assert_eq!(term.ends, at(220));
        // What the vendor shortens is shorter at once.
        term.renewed(held(200, 5));
        assert_eq!(term.ends, at(215));
    }
}
