//! `examples/kubernetes`: what the chart renders to, held against Kubernetes' schemas and against the programs; and its pods,
//! run from the images of the Containerfile as the chart has them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use end_to_end::chart::{Documents, Helm, container, containers, folder, texts};
use end_to_end::peer::{program, run};
use end_to_end::vendor::Vendor;
use serde_json::{Value, json};

fn helm() -> Helm {
    Helm::open(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// Both halves, as somebody has them who sets nothing that need not be set.
fn plain() -> Value {
    json!({"node": {"enabled": true, "engine": {"version": "1.7.24"}}})
}

/// Both halves, with everything that may be set.
fn rich() -> Value {
    json!({
        "service": {
            "image": {"repository": "registry.example/sealift", "tag": "1"},
            "replicas": 5,
            "strategy": "Recreate",
            "port": 9443,
            "home": {"secret": "own-home", "adoptAdminToken": true},
            "database": {"url": "postgres://u@db.example/n?application_name=x", "secret": "own-database", "authority": "own-ca"},
            "stateClaim": "own-claim",
            "offline": true,
            "settings": "[service.limits]\nburst = 5",
            "arguments": ["--allow-simulated"],
            "expose": {"type": "LoadBalancer", "annotations": {"a.example/b": "c"}},
            "networkPolicy": {
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                "database": [{"podSelector": {"matchLabels": {"app": "db"}}}],
                "databasePort": 6432,
                "egress": [{"ports": [{"protocol": "TCP", "port": 8080}]}],
            },
            "nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}],
        },
        "node": {
            "enabled": true,
            "engine": {"name": "crio", "version": "1.33"},
            "selector": {"example/tee": "snp"},
            "tolerations": [{"operator": "Exists"}],
            "ociRuntime": "/usr/bin/crun",
            "program": "/usr/local/bin/sealift-shim",
            "licenseSecret": "own-licences",
            "licenses": ["a.license", "b.license"],
            "images": ["docker://registry.example/shop:1"],
            "registrySecret": "own-registry",
            "registryAuthority": "own-registry-ca",
        },
    })
}

/// One replica, nothing around it.
fn lone() -> Value {
    json!({"service": {"replicas": 1, "podDisruptionBudget": true, "networkPolicy": {"enabled": false}}})
}

fn all(helm: &Helm) -> Vec<Documents> {
    let node_only = json!({"service": {"enabled": false}, "node": {"enabled": true, "engine": {"version": "2.3.0"}}});
    [json!({}), plain(), rich(), lone(), node_only].iter().map(|values| helm.render(values)).collect()
}

#[test]
fn what_the_chart_renders_to_is_what_kubernetes_knows() {
    let helm = helm();
    let kinds: Vec<Vec<String>> =
        all(&helm).iter().map(|documents| documents.kinds().into_iter().map(ToOwned::to_owned).collect()).collect();
    let service = ["NetworkPolicy", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget"];
    let node = ["DaemonSet", "RuntimeClass"];
    assert_eq!(kinds[0], service);
    assert_eq!(kinds[1], [&node[..], &service].concat());
    assert_eq!(kinds[2], [&node[..], &service].concat());
    assert_eq!(kinds[3], ["ConfigMap", "Deployment", "Service"]);
    assert_eq!(kinds[4], node);
    assert_eq!(helm.check(&[folder().join("pod.yaml"), folder().join("kata-pod.yaml")]).kinds(), ["Pod", "Pod"]);
}

#[test]
fn a_misspelt_field_or_value_is_found() {
    let helm = helm();
    let copy = tempfile::tempdir().unwrap();
    let chart = copy.path().join("chart");
    run(Command::new("cp").arg("-r").arg(folder().join("chart")).arg(&chart)).succeeded();
    let file = chart.join("templates/service.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem")).unwrap();
    helm.try_render(&chart, &json!({})).failed(1, "readOnlyRootFileSystem");
    let chart = folder().join("chart");
    for (values, words) in [
        (json!({"service": {"replica": 3}}), "replica"),
        (json!({"service": {"replicas": 0}}), "replicas"),
        (json!({"service": {"url": "http://license.example"}}), "url"),
        (json!({"service": {"database": {"url": "postgres://u:secret@db.example/n"}}}), "database/url"),
        (json!({"node": {"enabled": true}}), "node.engine.version"),
        (json!({"node": {"stopTimeout": 301}}), "stopTimeout"),
    ] {
        helm.try_render(&chart, &values).failed(1, words);
    }
}

/// Nothing of the vendor's half needs a right. Of the customer's, the installer is root on three folders of the node, and the
/// agent alone is privileged.
#[test]
fn containers_have_the_rights_that_the_readme_names_and_no_others() {
    let helm = helm();
    let mut documents = all(&helm);
    documents.push(helm.check(&[folder().join("pod.yaml"), folder().join("kata-pod.yaml")]));
    for documents in documents {
        for pod in documents.pods() {
            assert_eq!(pod["automountServiceAccountToken"], false);
            for container in containers(pod) {
                let (name, own) = (container["name"].as_str().unwrap(), &container["securityContext"]);
                assert_eq!(own["privileged"] == true, name == "agent", "{name}");
                if name != "agent" {
                    assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
                    assert_eq!(own["capabilities"], json!({"drop": ["ALL"]}), "{name}");
                }
                if pod["runtimeClassName"] != "kata-qemu-snp" {
                    assert_eq!(own["readOnlyRootFilesystem"], true, "{name}");
                    let non_root = &pod["securityContext"]["runAsNonRoot"];
                    assert_eq!(*non_root == true, !["agent", "install"].contains(&name), "{name}");
                }
            }
            let is_node = containers(pod).iter().any(|container| container["name"] == "agent");
            assert_eq!(pod["hostPID"] == true, is_node);
            assert!(pod.get("hostNetwork").is_none() && pod.get("hostIPC").is_none());
            let volumes = pod["volumes"].as_array().into_iter().flatten();
            assert!(volumes.into_iter().all(|volume| volume.get("hostPath").is_none() || is_node));
        }
        if let Some(deployment) = documents.find("Deployment") {
            let context = &deployment["spec"]["template"]["spec"]["securityContext"];
            assert_eq!((context["runAsUser"].as_u64(), context["fsGroup"].as_u64()), (Some(65532), Some(65532)));
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        }
        if let Some(node) = documents.find("DaemonSet") {
            let mounts = container(&node["spec"]["template"]["spec"], "install")["volumeMounts"].as_array().unwrap();
            assert_eq!(mounts.len(), 3);
        }
    }
}

#[test]
fn probes_service_and_network_policy_lead_to_where_the_service_listens() {
    let helm = helm();
    for (values, port) in [(json!({}), 8443), (rich(), 9443)] {
        let documents = helm.render(&values);
        let pod = &documents.get("Deployment")["spec"]["template"]["spec"];
        let service = container(pod, "service");
        assert_eq!(service["ports"], json!([{"name": "https", "containerPort": port}]));
        for (probe, path) in
            [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
        {
            assert_eq!(service[probe]["httpGet"], json!({"path": path, "port": "https", "scheme": "HTTPS"}), "{probe}");
        }
        assert_eq!(documents.get("Service")["spec"]["ports"][0]["targetPort"], "https");
        assert_eq!(documents.get("Service")["spec"]["ports"][0]["port"], port);
        let policy = &documents.get("NetworkPolicy")["spec"];
        assert_eq!(policy["ingress"][0]["ports"], json!([{"protocol": "TCP", "port": "https"}]));
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        let labels = &documents.get("Deployment")["spec"]["template"]["metadata"]["labels"];
        for selector in [&policy["podSelector"]["matchLabels"], &documents.get("Service")["spec"]["selector"]] {
            assert_eq!(selector, labels);
        }
        // Where the service goes: names, the database, and unless it is offline what endorses chips.
        let outside: Vec<u64> =
            policy["egress"].as_array().unwrap().iter().filter_map(|rule| rule["ports"][0]["port"].as_u64()).collect();
        assert_eq!(outside, if port == 8443 { vec![53, 5432, 443] } else { vec![53, 6432, 8080] });
        let settings = documents.get("ConfigMap")["data"]["sealift.toml"].as_str().unwrap();
        assert!(settings.contains(&format!("listen = \"0.0.0.0:{port}\"")), "{settings}");
    }
}

#[test]
fn drains_and_rollouts_leave_a_replica_where_there_are_several() {
    let helm = helm();
    for (values, replicas) in [(json!({}), 2), (rich(), 5)] {
        let documents = helm.render(&values);
        let (deployment, budget) =
            (&documents.get("Deployment")["spec"], &documents.get("PodDisruptionBudget")["spec"]);
        assert_eq!(deployment["replicas"], replicas);
        assert_eq!(budget["maxUnavailable"], 1);
        assert_eq!(budget["selector"]["matchLabels"], deployment["template"]["metadata"]["labels"]);
        let pod = &deployment["template"]["spec"];
        let sleep = container(pod, "service")["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        // Ten seconds are what the service gives its requests.
        assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > sleep + 10);
    }
    // A budget for one replica would keep its node from ever being drained, or do nothing.
    assert!(helm.render(&lone()).find("PodDisruptionBudget").is_none());
}

/// Secrets are files: of the vendor's home those that the service reads, and not what only the vendor needs.
#[test]
fn secrets_come_by_files_of_secrets_alone() {
    let helm = helm();
    for documents in all(&helm) {
        for pod in documents.pods() {
            for container in containers(pod) {
                assert!(container.get("envFrom").is_none());
                for variable in container["env"].as_array().into_iter().flatten() {
                    assert!(variable["value"].is_string() && variable.get("valueFrom").is_none(), "{variable}");
                    let value = variable["value"].as_str().unwrap();
                    assert!(value.starts_with('/') && !value.contains("://"), "{variable}");
                }
                for word in texts(&container["args"]) {
                    assert!(!word.contains("password") && !word.contains("token"), "{word}");
                }
            }
            for volume in pod["volumes"].as_array().into_iter().flatten().filter_map(|volume| volume.get("secret")) {
                assert_eq!(volume["defaultMode"].as_u64().unwrap() & 0o337, 0, "{volume}");
            }
        }
        assert!(documents.find("Secret").is_none());
        let Some(deployment) = documents.find("Deployment") else { continue };
        let pod = &deployment["spec"]["template"]["spec"];
        let mounts = container(pod, "service")["volumeMounts"].as_array().unwrap();
        let of_the_home = mounts.iter().filter(|mount| mount["name"] == "home");
        let files: Vec<&str> = of_the_home.filter_map(|mount| mount["subPath"].as_str()).collect();
        let home = tempfile::tempdir().unwrap();
        run(Command::new(program("sealift")).arg("init").arg(home.path())).succeeded();
        let made: Vec<String> = std::fs::read_dir(home.path().join("service"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("sealift.db") && name != "ca.key")
            .collect();
        let mut needed: Vec<&str> = made.iter().map(String::as_str).collect();
        let mut given: Vec<&str> = files.iter().copied().filter(|name| *name != "admin.token").collect();
        needed.sort_unstable();
        given.sort_unstable();
        assert_eq!(given, needed);
        // And the walk-through puts these into the Secret.
        let text = std::fs::read_to_string(folder().join("README.md")).unwrap();
        let (_, rest) = text.split_once("service/{").unwrap();
        let mut told: Vec<&str> = rest.split_once('}').unwrap().0.split(',').collect();
        told.sort_unstable();
        assert_eq!(told, needed);
    }
}

/// What is sealed by a key that stays elsewhere needs the way to it, and no file of the home.
#[test]
fn a_master_key_elsewhere_is_reached_by_a_file_of_its_own() {
    let helm = helm();
    let values = json!({"service": {
        "masterKey": "openbao://sealift", "custodySecret": "own-custody",
        "settings": "[service.custody.openbao]\naddress = \"https://bao.example:8200\"\ntoken = \"/etc/sealift/custody/token\"",
    }});
    let documents = helm.render(&values);
    let settings = documents.get("ConfigMap")["data"]["sealift.toml"].as_str().unwrap();
    let read: toml::Table = settings.parse().unwrap();
    assert_eq!(read["service"]["master_key"].as_str(), Some("openbao://sealift"));
    assert_eq!(read["service"]["custody"]["openbao"]["token"].as_str(), Some("/etc/sealift/custody/token"));
    let pod = &documents.get("Deployment")["spec"]["template"]["spec"];
    let mounts = container(pod, "service")["volumeMounts"].as_array().unwrap();
    let at = |path: &str| mounts.iter().any(|mount| mount["mountPath"] == path);
    assert!(at("/etc/sealift/custody") && !at("/var/lib/sealift/service/master.key"));
    helm.try_render(&folder().join("chart"), &json!({"service": {"masterKey": "file:master.key"}}))
        .failed(1, "masterKey");
}

#[test]
fn the_runtime_class_is_what_install_tells_the_engines() {
    let helm = helm();
    for (values, table) in [
        (plain(), "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.HANDLER]"),
        (
            json!({"node": {"enabled": true, "engine": {"version": "2.3.0"}}}),
            "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.HANDLER]",
        ),
        (rich(), "[crio.runtime.runtimes.HANDLER]"),
    ] {
        let documents = helm.render(&values);
        let class = documents.get("RuntimeClass");
        let node = &documents.get("DaemonSet")["spec"]["template"]["spec"];
        let mut args = texts(&container(node, "install")["args"]);
        let write = args.iter().position(|word| *word == "--write").unwrap();
        args[write] = "--dry-run";
        // The node's files are not this machine's.
        let root = tempfile::tempdir().unwrap();
        let root = format!("--root={}", root.path().display());
        args.iter_mut().filter(|word| **word == "--root=/host").for_each(|word| *word = &root);
        let said = run(Command::new(program("sealift-shim")).args(&args)).succeeded();
        let handler = class["handler"].as_str().unwrap();
        assert!(said.stdout.contains(&table.replace("HANDLER", handler)), "{}", said.stdout);
        assert_eq!(class["scheduling"]["nodeSelector"], node["nodeSelector"]);
        // The engine is told of the socket that the agent listens at, and that the probe asks.
        let told = |words: &Value, switch: &str| {
            let found = texts(words).into_iter().find_map(|word| Some(word.strip_prefix(switch)?.to_owned()));
            found.unwrap_or_else(|| panic!("no {switch} in {words}"))
        };
        let agent = container(node, "agent");
        let socket = told(&agent["args"], "--socket=");
        assert_eq!(told(&container(node, "install")["args"], "--agent="), socket);
        assert_eq!(told(&agent["readinessProbe"]["exec"]["command"], "--agent="), socket);
        assert!(said.stdout.contains(&socket));
    }
    let pod = helm.check(&[folder().join("pod.yaml")]);
    assert_eq!(
        pod.get("Pod")["spec"]["runtimeClassName"],
        helm.render(&plain()).get("RuntimeClass")["metadata"]["name"]
    );
}

/// `--help` after the words of a container: the parser has read them all by then, or has refused one.
#[test]
fn the_programs_understand_the_words_that_the_chart_gives_them() {
    let helm = helm();
    let mut understood = BTreeMap::new();
    for documents in all(&helm) {
        for pod in documents.pods() {
            for container in containers(pod) {
                let name = container["name"].as_str().unwrap();
                let program = program(if name == "service" { "sealift" } else { "sealift-shim" });
                for words in [texts(&container["args"]), texts(&container["readinessProbe"]["exec"]["command"])] {
                    let words = words.into_iter().filter(|word| *word != "/sealift-shim");
                    let words: Vec<&str> = words.collect();
                    run(Command::new(&program).args(&words).arg("--help")).succeeded();
                    // Help alone would hide what is missing or at odds; this is refused for want of files, not of words.
                    if let Some(first) = words.first().filter(|first| !["install", "containers"].contains(*first)) {
                        let said = run(Command::new(&program).args(&words).env("SEALIFT_HOME", "/nonexistent"));
                        assert!(![0, 2].contains(&said.code), "{words:?}: {}", said.stderr);
                        understood.insert((*first).to_owned(), said.code);
                    }
                }
            }
        }
    }
    assert_eq!(understood.keys().collect::<Vec<_>>(), ["agent", "serve"]);
}

/// The walk-through's own commands make initialisation data that the vendor's tool takes, and the annotation that carries them.
#[test]
fn the_initialisation_data_of_the_walk_through_can_be_approved() {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Vendor::start(scratch.path(), &["shop"]);
    let (_, license) = vendor.license("shop", &[]);
    std::fs::rename(license, scratch.path().join("customer.license")).unwrap();
    std::fs::write(scratch.path().join("policy.rego"), "package agent_policy\n").unwrap();
    let text = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let (_, rest) = text.split_once("cat >initdata.toml <<END\n").unwrap();
    let (document, _) = rest.split_once("\nEND\n").unwrap();
    let (_, rest) = text.split_once("\ninitdata=").unwrap();
    let encode = rest.lines().next().unwrap();
    let script = format!(
        "sealed=docker://registry.example/shop@sha256:{}\ncat >initdata.toml <<END\n{document}\nEND\n\
         initdata={encode}\nprintf %s \"$initdata\" | base64 -d | gzip -d | cmp - initdata.toml",
        "0".repeat(64)
    );
    run(Command::new("bash").args(["-euc", &script]).current_dir(scratch.path())).succeeded();
    let file = scratch.path().join("initdata.toml");
    let add = ["reference", "add", "--product", "shop", "--init-data", file.to_str().unwrap()];
    vendor.sealift(add).succeeded();
    // What its guests read in it: the service, and whose certificate it has.
    let data: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    let inner = |name: &str| data["data"][name].as_str().unwrap().parse::<toml::Table>().unwrap();
    let authority = std::fs::read_to_string(vendor.home().join("service/ca.pem")).unwrap();
    for (table, name) in [(&inner("aa.toml")["token_configs"]["kbs"], "cert"), (&inner("cdh.toml")["kbc"], "kbs_cert")]
    {
        assert_eq!(table[name].as_str().unwrap().trim(), authority.trim());
        assert_eq!(table["url"].as_str(), Some("https://license.example:8443"));
    }
}

// Called after the engines that they need, as `tests/run --without` leaves them out.
#[path = "kubernetes/buildah.rs"]
mod buildah;

/// Where a pod's folder of the node is.
fn node_folder(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}
