//! How a tenant ends: its master keys destroyed where they are and nobody else's, whatever interrupts or refuses it.

use std::fs;
use std::path::Path;

use end_to_end::openbao::OpenBao;
use end_to_end::peer::run;
use end_to_end::softhsm::Token;
use end_to_end::vendor::Vendor;
use serde_json::{Value, json};

#[test]
fn a_master_key_in_a_token_is_destroyed_there() {
    let scratch = tempfile::tempdir().unwrap();
    let token = Token::make(&scratch.path().join("token"));
    token.make_key("tenant-a", "01", &["--sensitive"]);
    token.make_key("tenant-b", "02", &["--sensitive"]);
    let mut vendor = Vendor::prepare(scratch.path());
    vendor.add_environment(token.environment());
    let key = |name: &str| format!("pkcs11:token=shop;object={name}");
    for name in ["tenant-a", "tenant-b"] {
        vendor.sealift(["tenant", "create", name, "--master-key", &key(name)]).succeeded();
    }
    let taken = key("tenant-a");
    vendor
        .sealift(["tenant", "create", "tenant-c", "--master-key", &taken])
        .failed(3, "is that of the tenant `tenant-a`");
    vendor
        .sealift(["tenant", "create", "tenant-c", "--master-key", "pkcs11:token=shop;id=%01"])
        .failed(3, "is that of the tenant `tenant-a`");
    vendor.sealift(["tenant", "delete", "tenant-a", "--yes"]).succeeded();
    let keys = token.keys().succeeded().stdout;
    assert!(!keys.contains("tenant-a") && keys.contains("tenant-b"), "{keys}");
    assert_eq!(vendor.deleted_tenants()[0]["master_keys"][0]["state"], "destroyed");
}

#[test]
fn a_master_key_that_another_home_has_is_neither_taken_nor_destroyed() {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Vendor::prepare(scratch.path());
    let tenants = vendor.serve_tenants();
    for name in ["tenant-a", "tenant-b"] {
        vendor.create_tenant(&tenants, name, &[]);
    }
    let file = vendor.tenant_home("tenant-a").join("service/master.key");
    let taken = format!("file:{}", file.display());
    vendor.tenant("tenant-b", ["key", "rotate", "--to", &taken]).failed(3, "is in the home of another service");
    vendor
        .sealift(["tenant", "create", "tenant-c", "--master-key", &taken])
        .failed(3, "is that of the tenant `tenant-a`");
    let link = scratch.path().join("link");
    fs::hard_link(&file, &link).unwrap();
    let linked = format!("file:{}", link.display());
    vendor.tenant("tenant-b", ["key", "rotate", "--wait", "--to", &linked]).succeeded();
    let key = fs::read(&file).unwrap();
    let delete = ["tenant", "delete", "tenant-b", "--yes"];
    vendor.sealift(delete).failed(3, "is also that of the tenant `tenant-a`");
    assert_eq!(fs::read(&file).unwrap(), key);
}

#[test]
fn a_deletion_that_the_keys_store_refuses_goes_on_when_it_is_repeated() {
    let scratch = tempfile::tempdir().unwrap();
    let mut bao = OpenBao::start(Path::new(env!("CARGO_TARGET_TMPDIR")), &scratch.path().join("bao"));
    for name in ["tenant-a", "tenant-b"] {
        bao.make_key(name, &[]);
    }
    let mut vendor = Vendor::prepare(scratch.path());
    vendor.add_environment(bao.environment(&bao.token()));
    let tenants = vendor.serve_tenants();
    for name in ["tenant-a", "tenant-b"] {
        vendor.create_tenant(&tenants, name, &["--master-key", &format!("openbao://{name}")]);
    }
    let delete = ["tenant", "delete", "tenant-a", "--yes"];
    let said = vendor.sealift(delete).failed(5, "the master key `openbao://transit/tenant-a` was not destroyed");
    assert!(said.stderr.contains("`delete` on `keys/KEY`"), "{}", said.stderr);
    assert_eq!(vendor.tenant_state("tenant-a").as_deref(), Some("being deleted"));
    vendor.tenant("tenant-a", ["serve", "--offline"]).failed(3, "is being deleted");
    vendor.sealift(["tenant", "show", "tenant-a"]).failed(3, "is being deleted");
    vendor.sealift(["tenant", "create", "tenant-a"]).failed(3, "is being deleted");
    bao.bao(&["read", "transit/keys/tenant-a"]).succeeded();

    bao.stop();
    vendor.sealift(delete).failed(6, "does not answer");
    bao.start_again();
    let policy = scratch.path().join("delete.hcl");
    let rights = "path \"transit/keys/tenant-a\" { capabilities = [\"read\", \"delete\"] }\n\
                  path \"transit/keys/tenant-a/config\" { capabilities = [\"update\"] }\n";
    fs::write(&policy, rights).unwrap();
    bao.bao(&["policy", "write", "delete", &policy.display().to_string()]).succeeded();
    let make = ["token", "create", "-policy=delete", "-no-default-policy", "-field=token"];
    let token = bao.bao(&make).succeeded().stdout.trim().to_owned();
    run(vendor.command(delete).env("BAO_TOKEN", token)).succeeded();
    assert_ne!(bao.bao(&["read", "transit/keys/tenant-a"]).code, 0);
    bao.bao(&["read", "transit/keys/tenant-b"]).succeeded();
    assert_eq!(vendor.deleted_tenants()[0]["tenant"], "tenant-a");
    assert_eq!(vendor.tenant_state("tenant-b").as_deref(), Some("served"));
}

#[test]
fn a_key_that_the_operator_destroyed_is_written_down_as_that() {
    let scratch = tempfile::tempdir().unwrap();
    let mut vendor = Vendor::prepare(scratch.path());
    vendor.add_environment(vec![("TENANT_KEY".to_owned(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned())]);
    vendor.sealift(["tenant", "create", "tenant-a", "--master-key", "env://TENANT_KEY"]).succeeded();
    vendor
        .sealift(["tenant", "delete", "tenant-a", "--yes"])
        .failed(3, "the master key `env://TENANT_KEY` was not destroyed");
    vendor.sealift(["tenant", "delete", "tenant-a", "--yes", "--key-destroyed"]).succeeded();
    assert_eq!(vendor.deleted_tenants()[0]["master_keys"][0]["state"], "destroyed-by-operator");
}

#[test]
fn two_deletions_do_not_get_into_each_others_way() {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Vendor::prepare(scratch.path());
    vendor.sealift(["tenant", "create", "tenant-a"]).succeeded();
    let delete = ["tenant", "delete", "tenant-a", "--yes"];
    let other = fs::File::open(vendor.home()).unwrap();
    other.lock().unwrap();
    vendor.sealift(delete).failed(6, "another `sealift tenant delete` is at work here");
    assert_eq!(vendor.tenant_state("tenant-a").as_deref(), Some("not served"));
    drop(other);
    vendor.sealift(delete).succeeded();
    assert_eq!(vendor.deleted_tenants().len(), 1);
}

#[test]
fn a_deletion_that_was_killed_at_any_step_goes_on_from_there() {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Vendor::prepare(scratch.path());
    let key = |state: &str| json!([{"name": "file:master.key", "state": state}]);
    let steps = [
        ("asked", Value::Null, false, &[][..]),
        ("known", key("intact"), false, &[]),
        ("told its store", key("destroying"), false, &[]),
        ("key gone, not noted", key("destroying"), false, &["service/master.key"]),
        ("key destroyed", key("destroyed"), false, &["service/master.key"]),
        ("tables dropped", key("destroyed"), true, &["service/master.key"]),
        ("half removed", key("destroyed"), true, &["service/master.key", "sealift.toml", "service/ca.pem"]),
    ];
    for (number, (step, keys, tables_dropped, gone)) in steps.into_iter().enumerate() {
        vendor.sealift(["tenant", "create", "tenant-a"]).succeeded();
        let home = vendor.tenant_home("tenant-a");
        for file in gone {
            fs::remove_file(home.join(file)).unwrap();
        }
        let journal = json!({
            "tenant": "tenant-a", "url": "https://tenant-a.localhost:8444/",
            "asked_at": format!("2026-01-01T00:00:0{number}Z"),
            "master_keys": keys, "tables_dropped": tables_dropped,
        });
        let place = home.with_file_name("tenant-a.deletion.json");
        fs::write(&place, journal.to_string()).unwrap();
        assert_eq!(vendor.tenant_state("tenant-a").as_deref(), Some("being deleted"), "{step}");
        vendor.sealift(["tenant", "delete", "tenant-a", "--yes"]).succeeded();
        assert!(!home.exists() && !place.exists(), "{step}");
        let record = vendor.deleted_tenants().pop().unwrap();
        assert_eq!((&record["asked_at"], &record["master_keys"]), (&journal["asked_at"], &key("destroyed")), "{step}");
    }
    assert_eq!(vendor.deleted_tenants().len(), 7);
    // Killed while its record was being written, and after that.
    let records = vendor.home().join("deleted-tenants.jsonl");
    let text = fs::read_to_string(&records).unwrap();
    for written in [text.trim_end().split_at(text.len() - 20).0.to_owned(), text.clone()] {
        fs::write(&records, &written).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        fs::write(vendor.tenant_home("tenant-a").with_file_name("tenant-a.deletion.json"), last.to_string()).unwrap();
        vendor.sealift(["tenant", "delete", "tenant-a", "--yes"]).succeeded();
        assert_eq!(vendor.deleted_tenants().len(), 7, "{written}");
    }
}
