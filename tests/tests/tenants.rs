//! Tenants of one vendor: what they share (layers, a listener, perhaps a database server), what they do not, and how one ends.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;

use end_to_end::image::{manifest, open};
use end_to_end::peer::run;
use end_to_end::postgres::Cluster;
use end_to_end::registry::Registry;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::vendor::Vendor;
use image_store::Manifest;
use serde_json::Value;

/// The image's workload ends with this code.
const RAN: i32 = 7;
/// What the shim ends with where a signature or a key is another vendor's, and where the service is away.
const NOT_OURS: i32 = 124;
const AWAY: i32 = 126;

fn run_with(scene: &Scene, image: &str, license: &str) -> i32 {
    let code = scene.vendor.guest(["run", image, "--license", license]).code;
    scene.vendor.assert_nothing_left();
    code
}

fn layout(scene: &Scene, tag: &str) -> String {
    format!("oci:{}:{tag}", scene.scratch.path().join("sealed").display())
}

/// All bytes of the files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes_below(&path) } else { path.metadata().unwrap().len() }).sum()
}

#[tokio::test]
async fn tenants_have_the_same_layers_once_and_each_its_own_keys() {
    let scene = Scene::set().await;
    let vendor = &scene.vendor;
    let data = scene.scratch.path().join("registry");
    let registry = Registry::start(&data);
    let library = registry.reference("library:1");
    vendor.pack(&scene.plain.reference("mixed"), &library, PRODUCT);
    let tenants = vendor.serve_tenants();
    let digests = |manifest: &Manifest| manifest.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
    let packed = manifest(&open(&library).await).await;
    let mut licenses = Vec::new();
    for name in ["tenant-a", "tenant-b"] {
        vendor.create_tenant(&tenants, name, &[]);
        let (before, lines) = (bytes_below(&data.join("data")), registry.log().lines().count());
        let image = registry.reference(&format!("library:{name}"));
        let given = vendor.give(name, PRODUCT, &library, &image);
        assert_eq!((&given["copied_bytes"], given["layers"].as_u64().unwrap() > 0), (&Value::from(0), true));
        let grown = bytes_below(&data.join("data")) - before;
        assert!(grown < 100 << 10, "{grown} bytes moved");
        let log = registry.log();
        let layers: Vec<_> = packed.layers.iter().map(|layer| layer.digest.to_string()).collect();
        let read = log
            .lines()
            .skip(lines)
            .filter(|line| line.contains("GET") && layers.iter().any(|layer| line.contains(layer)));
        assert_eq!(read.count(), 0, "no layer was read");

        let given = manifest(&open(&image).await).await;
        assert_eq!(digests(&given), digests(&packed));
        let annotations = given.layers.iter().flat_map(|layer| layer.annotations.values()).cloned();
        let own = format!("{name}.localhost:");
        assert!(
            annotations.map(|packet| text_of(&packet)).any(|packet| packet.contains(&own)),
            "sealed to its service"
        );
        vendor.tenant(name, ["verify", &image]).succeeded();
        vendor.sealift(["verify", &image]).failed(4, "is signed by none of the given keys");
        licenses.push((image, vendor.tenant_license(name, PRODUCT).1));
    }
    let [(image_a, license_a), (image_b, license_b)] = licenses.as_slice() else { panic!("two tenants") };
    for (image, license, code) in [
        (image_a, license_a, RAN),
        (image_b, license_b, RAN),
        (image_a, license_b, NOT_OURS),
        (image_b, license_a, NOT_OURS),
        (&library, license_a, NOT_OURS),
        (image_a, &scene.license, NOT_OURS),
    ] {
        assert_eq!(run_with(&scene, image, license), code, "{image} with {license}");
    }
    let sent = vendor.sealift(["--output", "json", "audit", "list"]).succeeded().stdout;
    assert_eq!(sent.matches("\"keys_exported\"").count(), 2);
}

/// A packet's JSON, where it is one.
fn text_of(packet: &str) -> String {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(packet).unwrap_or_default();
    String::from_utf8_lossy(&decoded).into_owned()
}

#[tokio::test]
async fn keys_go_to_a_tenant_by_an_administrators_word_and_only_where_it_is() {
    let scene = Scene::set().await;
    let vendor = &scene.vendor;
    let tenants = vendor.serve_tenants();
    vendor.create_tenant(&tenants, "tenant-a", &[]);
    let path = |name: &str| scene.scratch.path().join(name).display().to_string();
    let target = layout(&scene, "tenant-a");
    let rewrap = ["rewrap", &scene.sealed, &target, "--product", PRODUCT, "--tenant", "tenant-a"];
    // The tenant has no such product.
    vendor.sealift(rewrap).failed(3, "there is no product");
    vendor.tenant("tenant-a", ["product", "create", PRODUCT]).succeeded();
    for (role, home) in [("publisher", None), ("publisher", Some("tenant-a"))] {
        let file = path(&format!("{role}-{}.token", home.unwrap_or("vendor")));
        let create = ["token", "create", "--name", "build", "--role", role, "--file", &file];
        match home {
            None => {
                vendor.sealift(create).succeeded();
                let mut command = vendor.command(rewrap);
                run(command.env("SEALIFT_TOKEN_FILE", &file)).failed(5, "only admin may hand them out");
            }
            Some(name) => {
                vendor.tenant(name, create).succeeded();
                vendor.sealift([&rewrap[..], &["--to-token", &file]].concat()).succeeded();
            }
        }
    }
    let home = vendor.tenant_home("tenant-a").display().to_string();
    let again = layout(&scene, "again");
    vendor.sealift(["rewrap", &scene.sealed, &again, "--product", PRODUCT, "--to", &home]).succeeded();
    for (more, code, why) in [
        (&["--tenant", "tenant-z"][..], 3, "there is no tenant `tenant-z`"),
        (&["--to", &path("nowhere")], 3, "cannot read the settings"),
        (&["--to-token", &path("token")], 2, "name that by `--to` or `--tenant`"),
        (&["--tenant", "tenant-a", "--to", &home], 2, "cannot be used with"),
        (&["--tenant", "tenant-a", "--recipient", "jwe:key"], 2, "cannot be used with"),
    ] {
        vendor.sealift([&["rewrap", &scene.sealed, &again, "--product", PRODUCT], more].concat()).failed(code, why);
    }
}

#[tokio::test]
async fn a_deleted_tenant_opens_by_no_copy_and_the_others_go_on() {
    let scene = Scene::set().await;
    let vendor = &scene.vendor;
    let tenants = vendor.serve_tenants();
    let mut licenses = Vec::new();
    for name in ["tenant-a", "tenant-b"] {
        vendor.create_tenant(&tenants, name, &[]);
        vendor.give(name, PRODUCT, &scene.sealed, &layout(&scene, name));
        licenses.push(vendor.tenant_license(name, PRODUCT).1);
    }
    let (a, b) = (layout(&scene, "tenant-a"), layout(&scene, "tenant-b"));
    assert_eq!(run_with(&scene, &a, &licenses[0]), RAN);
    // One copy from before its master key was changed, and one from after.
    let copies = ["before.db", "after.db"].map(|name| scene.scratch.path().join(name).display().to_string());
    vendor.tenant("tenant-a", ["backup", &copies[0]]).succeeded();
    vendor.tenant("tenant-a", ["key", "rotate", "--wait"]).succeeded();
    vendor.tenant("tenant-a", ["backup", &copies[1]]).succeeded();
    let keys = [vendor.tenant_home("tenant-b"), vendor.home().to_owned()].map(|home| home.join("service/master.key"));

    vendor.sealift(["tenant", "delete", "tenant-a"]).failed(2, "--yes");
    let said = vendor.sealift(["--output", "json", "tenant", "delete", "tenant-a", "--yes"]).succeeded();
    let record: Value = serde_json::from_str(&said.stdout).unwrap();
    let named: Vec<_> =
        record["master_keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(named, ["file:master.key", "file:master-2.key"]);
    assert!(record["checkpoint"].as_str().unwrap().starts_with("tenant-a.localhost/sealift-audit\n"));
    assert_eq!(vendor.deleted_tenants(), [record]);
    assert_eq!(vendor.tenant_state("tenant-a"), None);
    assert!(!vendor.tenant_home("tenant-a").exists());
    vendor.sealift(["tenant", "delete", "tenant-a", "--yes"]).failed(3, "there is no tenant `tenant-a`");
    assert_eq!(run_with(&scene, &a, &licenses[0]), AWAY);
    assert_eq!(run_with(&scene, &b, &licenses[1]), RAN);

    // What it had is worth nothing to a home that is made anew, nor to those who have the keys that are left.
    for copy in &copies {
        let home = format!("{copy}.home");
        let sealift = |args: &[&str]| {
            run(std::process::Command::new(end_to_end::peer::program("sealift")).args(["--home", &home]).args(args))
        };
        sealift(&["init", "--listen", "127.0.0.1:0", "--url", "https://again.localhost"]).succeeded();
        sealift(&["restore", copy]).succeeded();
        let own = Path::new(&home).join("service/master.key");
        for key in [fs::read(&own).unwrap(), fs::read(&keys[0]).unwrap(), fs::read(&keys[1]).unwrap()] {
            for name in ["master.key", "master-2.key"] {
                fs::write(own.with_file_name(name), &key).unwrap();
                set_private(&own.with_file_name(name));
            }
            sealift(&["serve", "--offline"]).failed(4, "sealed under another master key");
        }
    }
    vendor.create_tenant(&tenants, "tenant-a", &[]);
    let products = vendor.tenant("tenant-a", ["--output", "json", "product", "list"]).succeeded().stdout;
    assert_eq!(serde_json::from_str::<Value>(&products).unwrap(), Value::Array(Vec::new()), "it begins anew");
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn tenants_in_one_database_have_a_schema_each_and_it_goes_with_its_tenant() {
    let mut cluster = Cluster::start();
    let scene = Scene::set().await;
    let vendor = &scene.vendor;
    let tenants = vendor.serve_tenants();
    let mut licenses = Vec::new();
    for name in ["tenant-a", "tenant-b"] {
        vendor.create_tenant(&tenants, name, &["--database", &cluster.url()]);
        vendor.give(name, PRODUCT, &scene.sealed, &layout(&scene, name));
        licenses.push(vendor.tenant_license(name, PRODUCT).1);
        assert_eq!(run_with(&scene, &layout(&scene, name), &licenses[licenses.len() - 1]), RAN);
    }
    let url = cluster.url();
    let create = ["tenant", "create", "tenant-c", "--database", &url, "--schema"];
    vendor
        .sealift([&create[..], &["tenant_tenant_a"]].concat())
        .failed(3, "there are tables in the schema `tenant_tenant_a`");
    vendor.sealift([&create[..], &["public"]].concat()).failed(2, "a schema is named by");
    let shown = vendor.sealift(["tenant", "show", "tenant-a"]).succeeded().stdout;
    assert!(shown.contains("database: PostgreSQL, schema tenant_tenant_a"), "{shown}");

    cluster.kill();
    vendor.sealift(["tenant", "delete", "tenant-a", "--yes"]).failed(6, "the database does not say which master keys");
    assert!(vendor.tenant_home("tenant-a").join("service/master.key").exists(), "nothing was destroyed in the dark");
    cluster.serve();
    vendor.sealift(["tenant", "delete", "tenant-a", "--yes"]).succeeded();
    // Its name is free, and what is made under it is empty.
    vendor.create_tenant(&tenants, "tenant-a", &["--database", &url]);
    let products = vendor.tenant("tenant-a", ["--output", "json", "product", "list"]).succeeded().stdout;
    assert_eq!(serde_json::from_str::<Value>(&products).unwrap(), Value::Array(Vec::new()));
    assert_eq!(run_with(&scene, &layout(&scene, "tenant-b"), &licenses[1]), RAN);
}

#[tokio::test]
async fn a_tenant_that_cannot_be_opened_does_not_keep_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Vendor::prepare(scratch.path());
    for name in ["tenant-a", "tenant-b"] {
        vendor.sealift(["tenant", "create", name]).succeeded();
    }
    fs::remove_file(vendor.tenant_home("tenant-a").join("service/master.key")).unwrap();
    // What was delegated to a relay ends with its authority, which only `serve --relay` keeps.
    vendor.sealift(["tenant", "create", "tenant-c"]).succeeded();
    fs::write(vendor.tenant_home("tenant-c").join("relay"), "licence").unwrap();
    let tenants = vendor.serve_tenants();
    let log = fs::read_to_string(scratch.path().join("tenants.log")).unwrap();
    let relay = format!(
        "the tenant `tenant-c` is not served: `{}` is the home of a relay",
        vendor.tenant_home("tenant-c").display()
    );
    let said = ["the tenant `tenant-a` is not served: ", "serving the tenant `tenant-b`", &relay];
    assert!(said.iter().all(|said| log.contains(said)), "{log}");
    // The tenants' own URLs have another port than the one that this test serves them at.
    let address: std::net::SocketAddr = tenants.listen().parse().unwrap();
    let asked = async |name: &str| {
        let client = vendor.tenant_client(name, address);
        client.get(format!("https://{name}.localhost:{}/readyz", address.port())).send().await
    };
    assert!(asked("tenant-a").await.unwrap_err().is_connect());
    assert_eq!(asked("tenant-b").await.unwrap().status(), 200);
}

#[test]
fn what_is_no_tenant_is_refused_before_anything_is_made() {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Vendor::prepare(scratch.path());
    vendor.sealift(["tenant", "create", "tenant-a"]).succeeded();
    for (args, code, why) in [
        (&["create", "tenant-a"][..], 3, "exists already"),
        (&["create", "Tenant_A"], 2, "a tenant's name has 1 to 32 of"),
        (&["create", "b", "--url", "https://127.0.0.1:8444"], 2, "has no host name"),
        (&["create", "b", "--url", "http://b.example"], 2, "is not https"),
        (&["create", "b", "--url", "https://tenant-a.localhost"], 3, "is that of the tenant `tenant-a`"),
        (&["create", "b", "--schema", "tenant_b"], 2, "--database"),
        (&["show", "tenant-z"], 3, "there is no tenant `tenant-z`"),
        (&["delete", "tenant-z", "--yes"], 3, "there is no tenant `tenant-z`"),
        (&["show", "../service"], 2, "a tenant's name has 1 to 32 of"),
    ] {
        vendor.sealift([&["tenant"], args].concat()).failed(code, why);
    }
    vendor.sealift(["tenant", "create", "c", "--listen", "127.0.0.1:8555"]).succeeded();
    vendor.sealift(["serve", "--tenants", "--offline"]).failed(2, "the tenants listen at different addresses");
    let nowhere = scratch.path().join("nowhere").display().to_string();
    let sealift = || std::process::Command::new(end_to_end::peer::program("sealift"));
    run(sealift().args(["--home", &nowhere, "tenant", "list"])).failed(3, "cannot read the settings");
    run(sealift().args(["--home", &nowhere, "serve", "--tenants"])).failed(3, "cannot read the settings");
}
