//! What three partners' services kept of one run, and the customer's receipts, in one file: whole it proves, otherwise not.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;

use end_to_end::partners::{NAMES, Partners};
use end_to_end::peer::Said;
use serde_json::{Value, json};

/// A run that has ended, and its evidence.
struct Evidenced {
    partners: Partners,
    parts: Vec<String>,
    receipts: String,
    evidence: Value,
}

impl Evidenced {
    fn make() -> Self {
        let partners = Partners::meet();
        partners.cosign_all();
        let receipts = partners.path("receipts");
        partners.run(&partners.image, &partners.files(), &["--receipts", &receipts]).succeeded();
        let parts: Vec<String> = (0..NAMES.len()).map(|number| part(&partners, number, 0)).collect();
        // Another run, whose receipts lie beside those of the first.
        partners.run(&partners.image, &partners.files(), &["--receipts", &receipts]).succeeded();
        let file = partners.path("evidence.json");
        join(&partners, &file, &parts, &receipts).succeeded();
        let evidence = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        Self { partners, parts, receipts, evidence }
    }

    fn verify_by(&self, evidence: &Value, keys: &[usize]) -> Said {
        let file = self.partners.path("judged.json");
        fs::write(&file, evidence.to_string()).unwrap();
        let home = |number: usize| self.partners.vendors[number].home();
        let path = |number: usize, name: &str| home(number).join(name).display().to_string();
        let mut args = vec!["audit".to_owned(), "verify".to_owned(), file];
        for number in keys {
            args.extend(["--key".to_owned(), path(*number, "service/log.pub")]);
            args.extend(["--license-key".to_owned(), path(*number, "service/license.pub")]);
        }
        args.extend(["--roots".to_owned(), path(0, "simulated-platform/ark.der")]);
        self.partners.vendors[0].sealift(args)
    }

    /// Changes the evidence and says how it is refused.
    #[track_caller]
    fn refused(&self, words: &str, change: impl FnOnce(&mut Value)) {
        let mut changed = self.evidence.clone();
        change(&mut changed);
        assert_ne!(changed, self.evidence, "nothing was changed");
        self.verify_by(&changed, &[0, 1, 2]).failed(4, words);
    }
}

/// Has a partner export its part of its newest lease, or of an earlier one.
fn part(partners: &Partners, number: usize, earlier: usize) -> String {
    let lease = partners.json(number, &["lease", "list"])[earlier]["id"].as_str().unwrap().to_owned();
    let file = partners.path(&format!("part-{number}-{lease}.json"));
    partners.vendors[number]
        .sealift(["audit", "export", "--lease", &lease, "--image", &partners.image, &file])
        .succeeded();
    file
}

fn join(partners: &Partners, file: &str, parts: &[String], receipts: &str) -> Said {
    let parts = parts.iter().flat_map(|part| ["--part", part.as_str()]);
    partners.vendors[0].sealift(["audit", "bundle", file, "--receipts", receipts].into_iter().chain(parts))
}

#[test]
fn joint_evidence_proves_who_granted_what_and_nothing_in_it_can_be_changed() {
    let mut evidenced = Evidenced::make();
    let other_run: Vec<String> = (0..NAMES.len()).map(|number| part(&evidenced.partners, number, 0)).collect();
    for vendor in &mut evidenced.partners.vendors {
        // What follows needs no service.
        vendor.stop_service();
    }
    let all = [0, 1, 2];
    let said = evidenced.verify_by(&evidenced.evidence, &all).succeeded().stdout;
    assert!(said.contains("3 logs and 3 receipts of the customer agree") && said.contains("SIMULATED"), "{said}");
    for (id, _) in &evidenced.partners.licenses {
        assert!(said.contains(id.as_str()), "{id} is not in {said}");
    }
    for words in ["lease_granted  receipt", "key_released", "lease_ended"] {
        assert_eq!(said.matches(words).count(), 3, "{words} in {said}");
    }
    evidenced.verify_by(&evidenced.evidence, &[2, 0, 1]).succeeded();
    // Each partner's part is judged by that partner's keys, and by all of them.
    evidenced.verify_by(&evidenced.evidence, &[0, 1]).failed(4, "which is none that was named");
    evidenced.verify_by(&evidenced.evidence, &[0, 1, 1]).failed(4, "each partner has a log of its own");
    evidenced.verify_by(&evidenced.evidence, &[0]).failed(2, "by the keys of all partners");
    evidenced.refused("there is no part of the log", |evidence| drop(evidence["parts"].as_array_mut().unwrap().pop()));
    evidenced.refused("there are two parts", |evidence| {
        let again = evidence["parts"][0].clone();
        evidence["parts"].as_array_mut().unwrap().push(again);
    });
    for part in 0..NAMES.len() {
        evidenced.refused("rests on was altered", |evidence| {
            evidence["parts"][part]["attestations"][0]["policy_input"]["image"] = json!("another");
        });
        evidenced.refused("is not in the log", |evidence| {
            let entry = evidence["parts"][part]["entries"][1]["entry"].as_str().unwrap().to_owned();
            let other = if entry.contains('A') { entry.replacen('A', "B", 1) } else { entry.replacen('b', "c", 1) };
            evidence["parts"][part]["entries"][1]["entry"] = other.into();
        });
        evidenced.refused("of no log that was named, or not in it", |evidence| {
            evidence["receipts"][part]["index"] = json!(evidence["receipts"][part]["index"].as_u64().unwrap() + 1);
        });
        evidenced.refused("has no receipt of the grant", |evidence| {
            drop(evidence["receipts"].as_array_mut().unwrap().remove(part));
        });
    }
    evidenced.refused("only `sealift-joint-evidence/1` is known", |evidence| {
        evidence["format"] = json!("sealift-joint-evidence/2");
    });

    // A part of another run is good by itself, and does not belong to this one.
    let other: Value = serde_json::from_slice(&fs::read(&other_run[1]).unwrap()).unwrap();
    evidenced.refused("do not speak of the same guest", |evidence| evidence["parts"][1] = other);
    let mixed = [evidenced.parts[0].clone(), other_run[1].clone(), evidenced.parts[2].clone()];
    let file = evidenced.partners.path("mixed.json");
    join(&evidenced.partners, &file, &mixed, &evidenced.receipts).succeeded();
    let mixed: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    evidenced.verify_by(&mixed, &all).failed(4, "do not speak of the same guest");
}

#[test]
fn joint_evidence_is_joined_of_parts_and_receipts_that_are_there() {
    let evidenced = Evidenced::make();
    let partners = &evidenced.partners;
    let file = partners.path("again.json");
    let licence = partners.files()[0].to_owned();
    join(partners, &file, &[licence], &evidenced.receipts).failed(3, "is no evidence bundle");
    join(partners, &file, &evidenced.parts, &partners.path("nowhere")).failed(3, "cannot read the receipts");
    fs::create_dir(partners.path("empty")).unwrap();
    join(partners, &file, &evidenced.parts, &partners.path("empty")).failed(3, "has no receipt of these leases");
    assert!(!fs::exists(&file).unwrap());
    join(partners, &partners.path("evidence.json"), &evidenced.parts, &evidenced.receipts).failed(3, "evidence.json");
}
