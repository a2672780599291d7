//! The audit log as guests and auditors see it: receipts, proofs, tiles.

use release_protocol::AttestAnswer;
use reqwest::Method;
use serde_json::Value;
use transparency_log::{
    Advance, ConsistencyProof, Receipt, SeenError, SeenLog, SignedCheckpoint, TileKind, TileSet, decode_bundle,
    hash_leaf, root, tile_paths,
};

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{Answer, Rig};

async fn get(rig: &Rig, path: &str) -> Answer {
    rig.send(Method::GET, &format!("/api/v1/log{path}"), Some(&rig.admin_token), None, None).await
}

async fn checkpoint(rig: &Rig) -> SignedCheckpoint {
    SignedCheckpoint::from_bytes(&get(rig, "/checkpoint").await.body).unwrap()
}

/// What a guest asks for, without any token.
async fn consistency(rig: &Rig, seen: &SeenLog, receipt: &Receipt) -> ConsistencyProof {
    let (old, new) = (seen.size(), receipt.checkpoint.unverified().size);
    rig.send(Method::GET, &format!("/kbs/v0/log/consistency?old={old}&new={new}"), None, None, None).await.ok()
}

#[tokio::test]
async fn the_guest_gets_a_receipt_of_its_grant_and_of_each_renewal() {
    let rig = Rig::start().await;
    let key = rig.home.log_verifier_key().unwrap();
    let guest = Guest::new(&rig, &rig.issue(|_| {}).await.token);
    let mut seen = SeenLog::new(key.clone());
    for (round, kind) in ["lease_granted", "lease_renewed", "lease_renewed"].into_iter().enumerate() {
        crate::rig::advance(1);
        let answer: AttestAnswer =
            if round == 0 { guest.attest(&rig).await.ok() } else { guest.renew(&rig).await.ok() };
        let receipt = answer.receipt.unwrap();
        let entry: Value = serde_json::from_slice(receipt.verify(&key).unwrap().entry).unwrap();
        assert_eq!(entry["kind"], kind);
        assert_eq!(entry["body"]["lease"], guest.lease_id().0);
        let proof = consistency(&rig, &seen, &receipt).await;
        let advanced = seen.advance(&receipt.checkpoint, Some(&proof)).unwrap();
        assert_eq!(advanced == Advance::First, round == 0);
        guest.open(&rig, &answer.token).await;
    }
}

#[tokio::test]
async fn a_repeated_attestation_gets_a_receipt_of_the_same_entry() {
    let rig = Rig::start().await;
    let guest = Guest::new(&rig, &rig.issue(|_| {}).await.token);
    let attestation = prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await));
    let first = attest(&rig, &attestation).await.ok::<AttestAnswer>().receipt.unwrap();
    rig.issue(|_| {}).await;
    let again = attest(&rig, &attestation).await.ok::<AttestAnswer>().receipt.unwrap();
    assert_eq!((again.entry, again.index), (first.entry, first.index));
    assert!(again.checkpoint.unverified().size > first.checkpoint.unverified().size);
}

#[tokio::test]
async fn a_client_refuses_the_service_whose_log_was_started_anew() {
    let rig = Rig::start().await;
    let key = rig.home.log_verifier_key().unwrap();
    let guest = Guest::new(&rig, &rig.issue(|_| {}).await.token);
    let mut seen = SeenLog::new(key);
    seen.advance(&guest.start(&rig).await.receipt.unwrap().checkpoint, None).unwrap();

    // The same keys with another history: what a vendor would have to do to take an entry back.
    let other = Rig::start().await;
    for file in ["log.key", "log.pub"] {
        let file = format!("service/{file}");
        std::fs::copy(rig.home.directory().join(&file), other.home.directory().join(&file)).unwrap();
    }
    let mut other = other;
    other.restart().await;
    let shorter = checkpoint(&other).await;
    assert!(matches!(seen.advance(&shorter, None), Err(SeenError::Shrunk { .. })));
    for _ in 0..4 {
        other.issue(|_| {}).await;
    }
    let longer = checkpoint(&other).await;
    let (old, new) = (seen.size(), longer.unverified().size);
    let proof: ConsistencyProof = get(&other, &format!("/consistency?old={old}&new={new}")).await.ok();
    assert!(matches!(seen.advance(&longer, Some(&proof)), Err(SeenError::Unproven { source: Some(_), .. })));
}

#[tokio::test]
async fn every_entry_has_its_receipt_and_the_tiles_hold_them_all() {
    let mut rig = Rig::start().await;
    let guest = Guest::new(&rig, &rig.issue(|_| {}).await.token);
    let token = guest.start(&rig).await.token;
    guest.open(&rig, &token).await;
    rig.restart().await;
    let key = rig.home.log_verifier_key().unwrap();
    assert_eq!(String::from_utf8(get(&rig, "/key").await.body).unwrap(), format!("{key}\n"));
    let head = checkpoint(&rig).await.verify(&key).unwrap();
    let entries = rig.audit().await;
    assert_eq!(head.size.get(), u64::try_from(entries.len()).unwrap());
    for entry in &entries {
        let receipt = get(&rig, &format!("/receipts/{}", entry.sequence)).await;
        let receipt = Receipt::from_json(&receipt.body).unwrap();
        assert_eq!(receipt.verify(&key).unwrap().entry, entry.leaf().unwrap());
        assert_eq!(entry.salt.len(), 32);
    }

    let mut tiles = TileSet::default();
    for path in tile_paths(head.size) {
        let answer = get(&rig, &format!("/{path}")).await;
        assert_eq!(answer.status, 200, "{path}");
        match path.kind() {
            TileKind::Hashes(_) => tiles.insert(&path, &answer.body).unwrap(),
            TileKind::Entries => {
                let leaves = decode_bundle(&answer.body, path.width()).unwrap();
                let expected: Vec<_> = entries.iter().map(|entry| hash_leaf(&entry.leaf().unwrap())).collect();
                assert_eq!(leaves.into_iter().map(hash_leaf).collect::<Vec<_>>(), expected);
            }
        }
    }
    assert_eq!(root(&tiles, head.size).unwrap(), head.root);
}

#[tokio::test]
async fn what_the_log_does_not_have_is_not_found_and_strangers_get_hashes_only() {
    let rig = Rig::start().await;
    let size = checkpoint(&rig).await.unverified().size.get();
    for path in ["/receipts/0", &format!("/receipts/{}", size + 1), &format!("/receipts/{}", u64::MAX)] {
        get(&rig, path).await.problem(404, "unknown");
    }
    for path in ["/tile/0/000", "/tile/1/000.p/1", "/tile/63/000.p/1", "/tile/entries/000", "/tile/x", "/tile/0/0"] {
        get(&rig, path).await.problem(404, "unknown");
    }
    for (old, new) in [(0, size + 1), (2, 1), (u64::MAX, u64::MAX)] {
        get(&rig, &format!("/consistency?old={old}&new={new}")).await.problem(400, "malformed");
    }
    for path in ["/checkpoint", "/key", "/receipts/1", "/tile/entries/000.p/1", "/tile/0/000.p/1"] {
        assert_eq!(get(&rig, path).await.status, 200, "{path}");
        let stranger = rig.send(Method::GET, &format!("/api/v1/log{path}"), None, None, None).await;
        stranger.problem(401, "not-attested");
    }
}
