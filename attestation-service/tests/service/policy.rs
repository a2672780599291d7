//! Release policies: the default's reasons, policies of one's own, and policies that misbehave.

use std::fs;
use std::path::Path;

use attestation_service::{DEFAULT_POLICY, Finding, PolicyCase, PolicyError, ReleasePolicy};
use release_protocol::Obligations;
use serde_json::{Value, json};

use crate::guest::Guest;
use crate::rig::{Answer, MANIFEST, Rig};

fn input() -> Value {
    json!({
        "product": "shop",
        "product_signers": ["signer-1"],
        "references": [{"measurement": "ab"}],
        "tee": {"tee": "snp", "measurement": "ab", "policy": {"debug": false}},
        "workload": {"manifest_digest": MANIFEST, "signers": ["signer-1"], "command": []},
    })
}

fn messages(findings: Vec<Finding>) -> Vec<String> {
    findings.into_iter().map(|finding| finding.message).collect()
}

fn decide(change: impl FnOnce(&mut Value)) -> (bool, Vec<String>) {
    let mut input = input();
    change(&mut input);
    let decision = ReleasePolicy::compile(DEFAULT_POLICY).unwrap().evaluate(&input).unwrap();
    (decision.allow, messages(decision.deny))
}

#[test]
fn the_default_policy_allows_what_the_vendor_released() {
    assert_eq!(decide(|_| {}), (true, Vec::new()));
    assert_eq!(decide(|input| input["product_signers"] = json!([])), (true, Vec::new()));
}

#[test]
fn the_default_policy_denies_an_unknown_measurement() {
    let (allow, deny) = decide(|input| input["tee"]["measurement"] = json!("cd"));
    assert!(!allow);
    assert!(deny[0].starts_with("launch measurement cd is no reference value of product shop"), "{deny:?}");
    assert!(!decide(|input| input["references"] = json!([])).0);
}

#[test]
fn the_default_policy_denies_a_guest_that_may_be_debugged() {
    let (allow, deny) = decide(|input| input["tee"]["policy"]["debug"] = json!(true));
    assert!(!allow);
    assert_eq!(deny, ["debugging is allowed on this guest, its memory is open to the host"]);
}

#[test]
fn the_default_policy_denies_an_image_that_no_signer_of_the_product_signed() {
    for signers in [json!([]), json!(["signer-2"])] {
        let (allow, deny) = decide(|input| input["workload"]["signers"] = signers);
        assert!(!allow);
        assert_eq!(deny, ["no signature over this manifest is by a signer of the product"]);
    }
}

#[test]
fn the_default_policy_denies_an_empty_input() {
    let decision = ReleasePolicy::compile(DEFAULT_POLICY).unwrap().evaluate(&json!({})).unwrap();
    assert!(!decision.allow);
}

/// The cases that stand beside the policies: one file each, an input and the decision on it.
#[test]
fn the_cases_beside_the_policies_hold() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/tests");
    let mut count = 0;
    for case in fs::read_dir(cases).unwrap() {
        let path = case.unwrap().path();
        let case: PolicyCase = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let differences = case.differences(&ReleasePolicy::compile(DEFAULT_POLICY).unwrap()).unwrap();
        assert!(differences.is_empty(), "{}: {differences:?}", path.display());
        count += 1;
    }
    assert!(count >= 4, "only {count} cases were found");
}

#[test]
fn another_package_is_refused() {
    let compiled = ReleasePolicy::compile("package elsewhere\nallow := true\n");
    assert!(matches!(compiled, Err(PolicyError::Package { found }) if found == ["data.elsewhere"]));
}

#[test]
fn what_is_not_rego_is_refused() {
    for source in ["", "package", "package sealift.release\nallow if {", "package sealift.release\nallow := nothing(1)"]
    {
        assert!(
            matches!(ReleasePolicy::compile(source), Err(PolicyError::Compile(_) | PolicyError::Evaluate(_))),
            "{source}"
        );
    }
}

#[test]
fn an_output_of_another_form_is_refused() {
    for (source, rule) in [
        ("package sealift.release\nallow := true\nobligations := {\"paint_it_blue\": true}", "obligations"),
        ("package sealift.release\nallow := true\ndeny := \"no\"", "deny"),
    ] {
        let compiled = ReleasePolicy::compile(source);
        assert!(matches!(compiled, Err(PolicyError::Output { rule: ref found, .. }) if found == rule), "{compiled:?}");
    }
}

#[test]
fn only_true_allows() {
    for allow in ["1", "\"true\"", "null", "[true]"] {
        let policy = ReleasePolicy::compile(&format!("package sealift.release\nallow := {allow}")).unwrap();
        assert!(!policy.evaluate(&input()).unwrap().allow, "{allow}");
    }
    let policy = "package sealift.release\nimport rego.v1\nallow := true\ndeny contains \"no\"";
    assert!(!ReleasePolicy::compile(policy).unwrap().evaluate(&input()).unwrap().allow);
}

const ENDLESS: &str = "package sealift.release\nimport rego.v1\n\
    allow if {\n\tinput.tee\n\tsome a in numbers.range(1, 3000)\n\tsome b in numbers.range(1, 3000)\n\
    \tsome c in numbers.range(1, 3000)\n\ta + b + c == 0\n}\n";

#[test]
fn a_policy_that_does_not_end_is_stopped() {
    let policy = ReleasePolicy::compile(ENDLESS).unwrap();
    assert!(matches!(policy.evaluate(&input()), Err(PolicyError::Evaluate(_))));
}

/// A policy that builds `value` when it is asked about a guest. `many` is a million letters.
fn greedy(value: &str) -> String {
    format!(
        "package sealift.release\nimport rego.v1\ndefault allow := false\n\
         allow if {{\n\tinput.tee\n\thoard := {value}\n\tcount(hoard) > 0\n}}\n\
         letters := \"{}\"\nmany := replace(letters, \"a\", letters)\n",
        "a".repeat(1000)
    )
}

/// A call that asks for gigabytes at once, so that the clock never comes first.
const HOARD: &str = "numbers.range(1, 1000000000)";

/// Evaluates until memory is what stops it: on a busy machine its time may be over first.
fn until_memory_stops(policy: &ReleasePolicy) -> Result<(), String> {
    for _ in 0..50 {
        match policy.evaluate(&input()) {
            Err(PolicyError::Memory) => return Ok(()),
            Err(PolicyError::Evaluate(problem)) if problem.contains("time limit") => {}
            other => return Err(format!("{other:?}")),
        }
    }
    Err("its time was over each time".to_owned())
}

#[test]
fn a_policy_that_takes_too_much_memory_is_stopped_by_its_bound() {
    for hoard in [
        HOARD,
        "[numbers.range(n, n + 400000) | some n in numbers.range(1, 1000)]",
        "{numbers.range(n, n + 400000) | some n in numbers.range(1, 1000)}",
        "{n: numbers.range(n, n + 400000) | some n in numbers.range(1, 1000)}",
        "replace(many, \"a\", many)",
    ] {
        let policy = ReleasePolicy::compile(&greedy(hoard)).unwrap();
        assert_eq!(until_memory_stops(&policy), Ok(()), "{hoard}");
        // What comes after is judged as ever.
        assert!(!policy.evaluate(&json!({})).unwrap().allow, "{hoard}");
    }
}

#[test]
fn a_policy_within_the_bound_is_not_stopped() {
    let policy = ReleasePolicy::compile(&greedy("[many, numbers.range(1, 10000)]")).unwrap();
    for _ in 0..3 {
        assert!(policy.evaluate(&input()).unwrap().allow);
    }
}

#[test]
fn greedy_evaluations_stop_none_beside_them() {
    let modest = ReleasePolicy::compile(DEFAULT_POLICY).unwrap();
    let greedy = ReleasePolicy::compile(&greedy(HOARD)).unwrap();
    std::thread::scope(|scope| {
        let stopped: Vec<_> = (0..4).map(|_| scope.spawn(|| greedy.evaluate(&input()))).collect();
        let decided: Vec<_> = (0..4).map(|_| scope.spawn(|| modest.evaluate(&input()))).collect();
        for evaluation in stopped {
            let result = evaluation.join().unwrap();
            assert!(matches!(result, Err(PolicyError::Memory)), "{result:?}");
        }
        for evaluation in decided {
            assert!(evaluation.join().unwrap().unwrap().allow);
        }
    });
}

#[test]
fn a_source_that_takes_too_much_memory_to_compile_is_refused() {
    let row = format!("\t{}\n", "[],".repeat(300));
    let source = format!("package sealift.release\nhoard := [\n{}]\n", row.repeat(1000));
    let compiled = ReleasePolicy::compile(&source);
    assert!(matches!(compiled, Err(PolicyError::Memory)), "{compiled:?}");
}

#[test]
fn a_policy_that_stays_in_one_call_is_stopped() {
    // Each of a million letters is looked for behind a million others, which takes the better part of a minute.
    let call = "trim_left(many, concat(\"\", [replace(many, \"a\", \"b\"), \"a\"]))";
    let policy = ReleasePolicy::compile(&greedy(call)).unwrap();
    let stopped = policy.evaluate(&input());
    assert!(matches!(stopped, Err(PolicyError::Time)), "{stopped:?}");
}

#[test]
fn an_answer_without_measure_is_refused() {
    let policy = ReleasePolicy::compile(&(greedy("[1]") + "obligations := {\"command\": [many, many]} if input.tee\n"));
    let refused = policy.unwrap().evaluate(&input());
    assert!(matches!(&refused, Err(PolicyError::Evaluate(problem)) if problem.contains("its answer")), "{refused:?}");
}

async fn run(rig: &Rig) -> Answer {
    let license = rig.issue(|license| license.seats = 9).await;
    Guest::new(rig, &license.token).attest(rig).await
}

#[tokio::test]
async fn a_policy_of_ones_own_decides_and_obliges() {
    let rig = Rig::start().await;
    let source = "package sealift.release\nimport rego.v1\ndefault allow := false\n\
        allow if input.license.sub == \"customer\"\n\
        deny contains \"not on a simulated platform\" if { input.tee.simulated; input.license.seats < 9 }\n\
        obligations := {\"read_only_root\": true, \"command\": input.workload.command, \"signer_threshold\": 1}\n";
    assert_eq!(rig.set_policy(source).await.status, 204);
    let answer: release_protocol::AttestAnswer = run(&rig).await.ok();
    let obligations = Obligations {
        read_only_root: true,
        command: Some(vec!["/bin/serve".to_owned()]),
        signer_threshold: Some(1),
        ..Obligations::default()
    };
    assert_eq!(answer.obligations, Some(obligations));
    let license = rig.issue(|_| {}).await;
    let reasons = Guest::new(&rig, &license.token).attest(&rig).await.denied();
    assert_eq!(reasons, ["not on a simulated platform"]);
    assert_eq!(rig.audit_of("policy_changed").await.len(), 1);
}

#[tokio::test]
async fn a_policy_reads_platform_and_checks() {
    let rig = Rig::start().await;
    let source = "package sealift.release\nimport rego.v1\n\
        allow if {\n\tinput.platform.product == input.tee.product\n\tinput.platform.chip_id == input.tee.chip_id\n\
        \tinput.platform.reported_tcb == input.tee.reported_tcb\n\
        \tevery check in input.checks { check.verdict in {\"passed\", \"skipped\"} }\n\
        \t{\"name\": \"report-signature\", \"verdict\": \"passed\"} in input.checks\n}\n";
    assert_eq!(rig.set_policy(source).await.status, 204);
    run(&rig).await.ok::<release_protocol::AttestAnswer>();
}

#[tokio::test]
async fn findings_reach_the_audit_log_in_full_and_the_guest_by_their_messages() {
    let rig = Rig::start().await;
    let source = "package sealift.release\nimport rego.v1\nallow := true\ndeny contains \"plain words\"\n\
        deny contains {\"message\": \"an object\", \"claim\": \"tee.vmpl\", \"expected\": [1, 2], \
        \"found\": input.tee.vmpl, \"fix\": \"ask at another level\"}";
    assert_eq!(rig.set_policy(source).await.status, 204);
    assert_eq!(run(&rig).await.denied(), ["an object", "plain words"]);
    let [entry] = rig.audit_of("denied").await.try_into().unwrap();
    let whole = json!({
        "message": "an object", "claim": "tee.vmpl", "expected": [1, 2], "found": 0, "fix": "ask at another level",
    });
    assert_eq!(entry["findings"], json!([whole, {"message": "plain words"}]));
    assert_eq!((&entry["reasons"], &entry["stage"]), (&json!(["an object", "plain words"]), &json!("policy")));
}

#[tokio::test]
async fn a_policy_with_a_thousand_reasons_fills_no_audit_log() {
    let rig = Rig::start().await;
    let source = "package sealift.release\nimport rego.v1\n\
        deny contains concat(\"\", [sprintf(\"%04d \", [n]) | some n in numbers.range(m, m + 250)]) if some m in numbers.range(1, 40)";
    assert_eq!(rig.set_policy(source).await.status, 204);
    let reasons = run(&rig).await.denied();
    assert_eq!(reasons.len(), Finding::COUNT_MAX);
    assert!(reasons.iter().all(|reason| reason.len() <= Finding::TEXT_MAX + 3), "{reasons:?}");
}

#[test]
fn a_reason_of_another_form_is_refused() {
    for reason in ["1", "{\"claim\": \"now\"}", "{\"message\": \"no\", \"remedy\": \"none\"}"] {
        let source = format!("package sealift.release\nimport rego.v1\ndeny contains {reason}");
        let compiled = ReleasePolicy::compile(&source);
        assert!(matches!(compiled, Err(PolicyError::Output { ref rule, .. }) if rule == "deny"), "{compiled:?}");
    }
}

#[tokio::test]
async fn a_bad_policy_is_not_set_and_the_old_one_stays() {
    let rig = Rig::start().await;
    for source in ["nonsense", "package elsewhere\nallow := true"] {
        rig.set_policy(source).await.problem(400, "malformed");
    }
    run(&rig).await.ok::<release_protocol::AttestAnswer>();
    assert!(rig.audit_of("policy_changed").await.is_empty());
}

#[tokio::test]
async fn a_policy_that_fails_at_release_denies() {
    let rig = Rig::start().await;
    assert_eq!(rig.set_policy(ENDLESS).await.status, 204);
    let reasons = run(&rig).await.denied();
    assert!(reasons[0].starts_with("the release policy of product shop gave no decision: "), "{reasons:?}");
    assert_eq!(rig.audit_of("denied").await.len(), 1);
}

#[tokio::test]
async fn the_service_answers_on_after_policies_that_took_too_much_memory() {
    let rig = Rig::start().await;
    assert_eq!(rig.set_policy(&greedy(HOARD)).await.status, 204);
    let license = rig.issue(|license| license.seats = 9).await;
    let guest = async || Guest::new(&rig, &license.token).attest(&rig).await;
    let (one, two, three, four, five) = tokio::join!(guest(), guest(), guest(), guest(), guest());
    for answer in [one, two, three, four, five] {
        let reasons = answer.denied();
        assert!(reasons[0].contains("it takes more memory than the 64 MiB that one may"), "{reasons:?}");
    }
    assert_eq!(rig.audit_of("denied").await.len(), 5);
    assert_eq!(rig.set_policy("package sealift.release\nallow := true").await.status, 204);
    guest().await.ok::<release_protocol::AttestAnswer>();
}

#[test]
fn the_documented_example_does_what_it_says() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/README.md")).unwrap();
    let source = readme.split("```rego\n").nth(1).unwrap().split("```").next().unwrap();
    let policy = ReleasePolicy::compile(source).unwrap();
    let mut input = input();
    input["license"] = json!({"features": {"tier": "gold"}});
    input["tee"]["reported_tcb"] = json!({"snp": 23});
    input["tee"]["simulated"] = json!(false);
    let decision = policy.evaluate(&input).unwrap();
    assert!(decision.allow && decision.obligations.read_only_root);
    input["tee"]["simulated"] = json!(true);
    assert_eq!(messages(policy.evaluate(&input).unwrap().deny), ["simulated platforms run nothing of ours"]);
}

#[test]
fn the_documented_policy_for_tdx_wants_every_register() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/README.md")).unwrap();
    let source = readme.split("```rego\n").nth(2).unwrap().split("```").next().unwrap();
    let policy = ReleasePolicy::compile(source).unwrap();
    let mut input = input();
    input["tee"] =
        json!({"tee": "tdx", "tcb_status": "UpToDate", "mrtd": "…", "rtmr0": "…", "rtmr1": "…", "rtmr2": "…"});
    assert!(policy.evaluate(&input).unwrap().allow);
    for (member, value) in [("rtmr2", "another"), ("tee", "snp"), ("tcb_status", "OutOfDate")] {
        let mut input = input.clone();
        input["tee"][member] = json!(value);
        assert!(!policy.evaluate(&input).unwrap().allow, "{member}");
    }
}
