//! The image's config: read where layers are told apart by it, rewritten where it says too much or a layer is added.

use command_line::{ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{Descriptor, Digest, Manifest, Store, media_type};
use serde_json::{Map, Value, json};

use super::CONFIG_MAX;

/// What the config is to say otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigChange {
    /// Leave out how the image was made: history, labels, author, comments, and who built it with what.
    pub(crate) scrub: bool,
    /// The `diff_id`s of layers that go on top, the lowest first.
    pub(crate) top: Vec<Digest>,
}

/// What tells of the vendor and of the build, and of nothing that runs (OCI image-spec, config; Docker's members beside it).
const TELLING: [&str; 10] = [
    "author",
    "comment",
    "container",
    "container_config",
    "created",
    "docker_version",
    "history",
    "id",
    "moby.buildkit.buildinfo.v1",
    "parent",
];

/// Brings the config to the destination, changed where it is to be; gives its descriptor there.
pub(super) async fn carry(
    source: &Store,
    destination: &Store,
    manifest: &Manifest,
    change: &ConfigChange,
) -> Result<Descriptor, Failure> {
    let mut descriptor = manifest.config.clone();
    if descriptor.media_type == media_type::DOCKER_CONFIG {
        media_type::OCI_CONFIG.clone_into(&mut descriptor.media_type);
    }
    if !change.scrub && change.top.is_empty() {
        let copied = destination.copy_blob(source, &manifest.config).await;
        return copied.map(|_| descriptor).map_err(|error| store_failure("cannot copy the image's config", &error));
    }
    let mut config = read(source, manifest).await?;
    if change.scrub {
        scrub(&mut config);
    }
    for diff_id in &change.top {
        add_layer(&mut config, diff_id)?;
    }
    let bytes =
        serde_json::to_vec(&config).or_fail(ExitCode::Other, || "cannot write the image's config".to_owned())?;
    let written = destination.put_blob(&descriptor.media_type, bytes.into()).await;
    written.map_err(|error| store_failure("cannot write the image's config", &error))
}

/// The digests of the layers' plain tars, from the base.
pub(super) async fn diff_ids(store: &Store, manifest: &Manifest) -> Result<Vec<Digest>, Failure> {
    let config = read(store, manifest).await?;
    let diff_ids = config.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")).cloned().unwrap_or_default();
    let diff_ids: Vec<Digest> = serde_json::from_value(diff_ids)
        .or_fail(ExitCode::BadInput, || "the image's config does not say what its layers are".to_owned())?;
    if diff_ids.len() == manifest.layers.len() {
        return Ok(diff_ids);
    }
    let (named, layers) = (diff_ids.len(), manifest.layers.len());
    Err(Failure::bad_input(format!("the image's config names {named} layers, its manifest {layers}")))
}

async fn read(store: &Store, manifest: &Manifest) -> Result<Map<String, Value>, Failure> {
    let bytes = store
        .small_blob(&manifest.config, CONFIG_MAX)
        .await
        .map_err(|error| store_failure("cannot read the image's config", &error))?;
    serde_json::from_slice(&bytes).or_fail(ExitCode::BadInput, || "the image's config is no JSON object".to_owned())
}

/// Whether a config says what an earlier one said, of the same layers and perhaps of more on top of them.
pub(super) async fn is_continued(earlier: (&Store, &Manifest), later: (&Store, &Manifest)) -> Result<bool, Failure> {
    let (earlier, later) = (read(earlier.0, earlier.1).await?, read(later.0, later.1).await?);
    Ok(continues(earlier, later))
}

fn continues(mut earlier: Map<String, Value>, mut later: Map<String, Value>) -> bool {
    let is_start = |(start, whole): (Vec<Value>, Vec<Value>)| whole.starts_with(&start);
    is_start((take_diff_ids(&mut earlier), take_diff_ids(&mut later)))
        && is_start((take_history(&mut earlier), take_history(&mut later)))
        && earlier == later
}

fn take_diff_ids(config: &mut Map<String, Value>) -> Vec<Value> {
    let diff_ids = config.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids")).and_then(Value::as_array_mut);
    diff_ids.map(std::mem::take).unwrap_or_default()
}

fn take_history(config: &mut Map<String, Value>) -> Vec<Value> {
    config.get_mut("history").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default()
}

fn scrub(config: &mut Map<String, Value>) {
    for member in TELLING {
        config.remove(member);
    }
    if let Some(Value::Object(container)) = config.get_mut("config") {
        container.remove("Labels");
        // What a build on top of it would do, and the image it was made from.
        container.remove("OnBuild");
        container.remove("Image");
    }
}

fn add_layer(config: &mut Map<String, Value>, diff_id: &Digest) -> Result<(), Failure> {
    let diff_ids = config.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids")).and_then(Value::as_array_mut);
    let diff_ids = diff_ids.ok_or_else(|| Failure::bad_input("the image's config does not say what its layers are"))?;
    diff_ids.push(json!(diff_id.to_string()));
    // A history that is there has an entry for each layer.
    if let Some(Value::Array(history)) = config.get_mut("history") {
        history.push(json!({"created_by": "sealift pack"}));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Map<String, Value> {
        let config = json!({
            "architecture": "amd64", "os": "linux", "author": "a", "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/app"], "Env": ["A=1"], "Labels": {"secret": "x"}, "Image": "base"},
            "history": [{"created_by": "RUN make SECRET=1"}], "rootfs": {"type": "layers", "diff_ids": []},
        });
        config.as_object().unwrap().clone()
    }

    #[test]
    fn a_scrubbed_config_says_how_to_run_and_not_how_it_was_made() {
        let mut config = config();
        scrub(&mut config);
        let wanted = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/app"], "Env": ["A=1"]},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        assert_eq!(Value::Object(config), wanted);
    }

    #[test]
    fn a_layer_on_top_stands_in_diff_ids_and_history() {
        let mut config = config();
        let digest = Digest::of(b"layer");
        add_layer(&mut config, &digest).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest.to_string()]));
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
        config.remove("history");
        add_layer(&mut config, &digest).unwrap();
        assert!(!config.contains_key("history"));
        config.remove("rootfs");
        assert!(add_layer(&mut config, &digest).is_err());
    }

    #[test]
    fn a_config_is_continued_by_layers_on_top_and_by_nothing_else() {
        let mut earlier = config();
        add_layer(&mut earlier, &Digest::of(b"code")).unwrap();
        let mut later = earlier.clone();
        add_layer(&mut later, &Digest::of(b"component")).unwrap();
        assert!(continues(earlier.clone(), later.clone()) && continues(earlier.clone(), earlier.clone()));
        assert!(!continues(later.clone(), earlier.clone()), "a layer is gone");
        let changes: [fn(&mut Map<String, Value>); 4] = [
            |config| config["config"]["Cmd"] = json!(["/bin/sh"]),
            |config| config["config"]["Env"] = json!(["A=1", "LD_PRELOAD=/x"]),
            |config| config["rootfs"]["diff_ids"][0] = json!("sha256:other"),
            |config| config["history"][0] = json!({}),
        ];
        for change in changes {
            let mut changed = later.clone();
            change(&mut changed);
            assert!(!continues(earlier.clone(), changed));
        }
    }
}
