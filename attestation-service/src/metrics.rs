//! What the service counts, and its text form for Prometheus. Labels are of the few kinds named here: nothing of licences,
//! customers or secrets is ever one.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the service started.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: [[AtomicU64; CLASSES.len()]; ROUTES.len()],
    attestations: [AtomicU64; OUTCOMES.len()],
    pub(crate) key_releases: Counter,
    /// How often the database was asked for the lease of a guest that waits for news.
    pub(crate) leases_looked_at: Counter,
    /// Requests that were refused since their address made too many.
    pub(crate) rate_limited: Counter,
    /// Requests that were refused since too many were being answered.
    pub(crate) overloaded: Counter,
    /// The size of the newest checkpoint that witnesses cosigned.
    cosigned_entries: AtomicU64,
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the database says at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    pub(crate) leases_live: u64,
    pub(crate) audit_entries: u64,
}

/// The classes of routes: a path's beginning and the class. The last one is for all others.
const ROUTES: [(&str, &str); 10] = [
    ("/healthz", "health"),
    ("/readyz", "health"),
    ("/metrics", "metrics"),
    ("/kbs/v0/auth", "auth"),
    ("/kbs/v0/attest", "attest"),
    ("/kbs/v0/resource/", "resource"),
    ("/kbs/v0/lease/", "lease"),
    ("/kbs/v0/log/", "log"),
    ("/api/v1/", "admin"),
    ("", "other"),
];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// How an attestation ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Allowed,
    Denied,
    EvidenceRejected,
    SeatsExhausted,
    /// Malformed, or without a valid challenge.
    Refused,
    Unavailable,
    Failed,
}

const OUTCOMES: [(Outcome, &str); 7] = [
    (Outcome::Allowed, "allowed"),
    (Outcome::Denied, "denied"),
    (Outcome::EvidenceRejected, "evidence_rejected"),
    (Outcome::SeatsExhausted, "seats_exhausted"),
    (Outcome::Refused, "refused"),
    (Outcome::Unavailable, "unavailable"),
    (Outcome::Failed, "failed"),
];

impl Metrics {
    /// Counts an answer with this HTTP status.
    pub(crate) fn answered(&self, path: &str, status: u16) {
        let route = ROUTES.iter().position(|(prefix, _)| path.starts_with(prefix));
        let class = usize::from(status / 100).saturating_sub(1);
        let counter = route.and_then(|route| self.requests.get(route)).and_then(|classes| classes.get(class));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn cosigned(&self, entries: u64) {
        self.cosigned_entries.store(entries, Ordering::Relaxed);
    }

    pub(crate) fn attested(&self, outcome: Outcome) {
        let position = OUTCOMES.iter().position(|(known, _)| *known == outcome);
        if let Some(counter) = position.and_then(|position| self.attestations.get(position)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The text form, version 0.0.4.
    pub(crate) fn text(&self, gauges: Gauges) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
        };
        head(&mut text, REQUESTS, "counter", "Requests answered, by class of route and of status.")?;
        for (index, (_, route)) in ROUTES.iter().enumerate() {
            // Neighbours of one class are one series.
            if index > 0 && ROUTES.get(index - 1).is_some_and(|(_, before)| before == route) {
                continue;
            }
            for (class, status) in CLASSES.iter().enumerate() {
                let same = ROUTES.iter().zip(&self.requests).filter(|((_, other), _)| other == route);
                let sum: u64 =
                    same.filter_map(|(_, counters)| counters.get(class)).map(|one| one.load(Ordering::Relaxed)).sum();
                writeln!(text, "{REQUESTS}{{route=\"{route}\",status=\"{status}\"}} {sum}")?;
            }
        }
        head(&mut text, ATTESTATIONS, "counter", "Attestations judged, by outcome.")?;
        for ((_, outcome), counter) in OUTCOMES.iter().zip(&self.attestations) {
            writeln!(text, "{ATTESTATIONS}{{outcome=\"{outcome}\"}} {}", counter.load(Ordering::Relaxed))?;
        }
        let cosigned = self.cosigned_entries.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("sealift_key_releases_total", "counter", "Keys released.", self.key_releases.get()),
            (
                "sealift_watched_leases_looked_at_total",
                "counter",
                "Leases looked at for guests that wait for news.",
                self.leases_looked_at.get(),
            ),
            ("sealift_rate_limited_total", "counter", "Requests refused by address.", self.rate_limited.get()),
            ("sealift_overloaded_total", "counter", "Requests refused under load.", self.overloaded.get()),
            ("sealift_leases_live", "gauge", "Leases that live.", gauges.leases_live),
            ("sealift_audit_entries", "gauge", "Entries of the audit log.", gauges.audit_entries),
            ("sealift_audit_entries_cosigned", "gauge", "Entries that witnesses cosigned.", cosigned),
        ] {
            head(&mut text, name, kind, help)?;
            writeln!(text, "{name} {value}")?;
        }
        Ok(text)
    }
}

const REQUESTS: &str = "sealift_http_requests_total";
const ATTESTATIONS: &str = "sealift_attestations_total";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class_and_whatever_is_asked_makes_no_new_series() {
        let metrics = Metrics::default();
        let gauges = Gauges { leases_live: 3, audit_entries: 9 };
        let lines = metrics.text(gauges).unwrap().lines().count();
        metrics.answered("/healthz", 200);
        metrics.answered("/readyz", 200);
        metrics.answered("/kbs/v0/resource/a-secret/of/theirs", 403);
        metrics.answered("/\"evil\"\n", 404);
        metrics.answered("/", 999);
        metrics.attested(Outcome::SeatsExhausted);
        metrics.cosigned(5);
        let text = metrics.text(gauges).unwrap();
        assert_eq!(text.lines().count(), lines);
        for line in [
            "sealift_http_requests_total{route=\"health\",status=\"2xx\"} 2",
            "sealift_http_requests_total{route=\"resource\",status=\"4xx\"} 1",
            "sealift_http_requests_total{route=\"other\",status=\"4xx\"} 1",
            "sealift_attestations_total{outcome=\"seats_exhausted\"} 1",
            "sealift_leases_live 3",
            "sealift_audit_entries 9",
            "sealift_audit_entries_cosigned 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("secret"));
    }
}
