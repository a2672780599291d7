//! What a kubelet does with a container engine, over its CRI socket: pods on the node's network, one container each.

use std::path::Path;
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use self::proto::image_service_client::ImageServiceClient;
use self::proto::runtime_service_client::RuntimeServiceClient;
use self::proto::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PullImageRequest, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest, VersionRequest,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection to an engine.
#[derive(Clone, Debug)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// A pod with its container.
#[derive(Debug)]
pub struct Pod {
    sandbox: String,
    config: PodSandboxConfig,
    /// The container's id.
    pub container: String,
}

impl Cri {
    /// Connects as soon as the engine answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn connect(socket: &Path) -> Self {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).expect("address").timeout(PATIENCE);
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(channel) = endpoint.connect().await {
                let mut runtime = RuntimeServiceClient::new(channel.clone());
                if runtime.version(VersionRequest { version: String::new() }).await.is_ok() {
                    return Self { runtime, images: ImageServiceClient::new(channel) };
                }
            }
            assert!(Instant::now() < until, "no CRI answers at {}", socket.display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Pulls an image; gives its id.
    ///
    /// # Errors
    /// As the engine says.
    pub async fn pull(&mut self, image: &str) -> Result<String, Status> {
        let request = PullImageRequest { image: Some(spec(image)), sandbox_config: None };
        Ok(self.images.pull_image(request).await?.into_inner().image_ref)
    }

    /// Runs a pod's sandbox and creates its container, which logs to `logs` as the engine sees it. A handler is a runtime
    /// class; the engine's own is the empty one.
    ///
    /// # Errors
    /// As the engine says.
    pub async fn create(
        &mut self,
        name: &str,
        image: &str,
        args: &[&str],
        logs: &str,
        handler: &str,
    ) -> Result<Pod, Status> {
        let namespaces = || Some(NamespaceOption { network: NamespaceMode::Node.into() });
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: logs.to_owned(),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext { namespace_options: namespaces() }),
            }),
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        let sandbox = self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(spec(image)),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext { namespace_options: namespaces() }),
            }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(container),
            sandbox_config: Some(config.clone()),
        };
        let created = self.runtime.create_container(request).await;
        let mut pod = Pod { sandbox, config, container: String::new() };
        match created {
            Ok(answer) => {
                pod.container = answer.into_inner().container_id;
                Ok(pod)
            }
            Err(status) => {
                self.remove(pod).await?;
                Err(status)
            }
        }
    }

    /// Starts the pod's container.
    ///
    /// # Errors
    /// As the engine says.
    pub async fn start(&mut self, pod: &Pod) -> Result<(), Status> {
        let request = StartContainerRequest { container_id: pod.container.clone() };
        self.runtime.start_container(request).await.map(drop)
    }

    /// Runs a command in the pod's container; gives exit code and stdout.
    ///
    /// # Errors
    /// As the engine says.
    pub async fn exec(&mut self, pod: &Pod, command: &[&str]) -> Result<(i32, String), Status> {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSyncRequest { container_id: pod.container.clone(), cmd, timeout: 20 };
        let answer = self.runtime.exec_sync(Request::new(request)).await?.into_inner();
        Ok((answer.exit_code, String::from_utf8_lossy(&answer.stdout).into_owned()))
    }

    /// Stops the pod's container as a kubelet does: SIGTERM, and SIGKILL after ten seconds.
    ///
    /// # Errors
    /// As the engine says.
    pub async fn stop(&mut self, pod: &Pod) -> Result<(), Status> {
        let request = StopContainerRequest { container_id: pod.container.clone(), timeout: 10 };
        self.runtime.stop_container(request).await.map(drop)
    }

    /// The container's state.
    ///
    /// # Errors
    /// As the engine says.
    pub async fn status(&mut self, pod: &Pod) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest { container_id: pod.container.clone() };
        Ok(self.runtime.container_status(request).await?.into_inner().status.unwrap_or_default())
    }

    /// Waits until the container has ended; gives its exit code.
    ///
    /// # Errors
    /// As the engine says.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn wait(&mut self, pod: &Pod) -> Result<i32, Status> {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status(pod).await?;
            if status.state() == ContainerState::ContainerExited {
                return Ok(status.exit_code);
            }
            assert!(Instant::now() < until, "the container does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Removes the container and its sandbox.
    ///
    /// # Errors
    /// As the engine says.
    pub async fn remove(&mut self, pod: Pod) -> Result<(), Status> {
        let Pod { sandbox, container, .. } = pod;
        if !container.is_empty() {
            self.runtime.remove_container(RemoveContainerRequest { container_id: container }).await?;
        }
        self.runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() }).await?;
        self.runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox }).await.map(drop)
    }
}

impl Pod {
    /// Where the engine writes the container's log, as it sees it.
    pub fn log(&self) -> String {
        let name = self.config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        format!("{}/{name}.log", self.config.log_directory)
    }
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned() }
}

#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
mod proto {
    tonic::include_proto!("runtime.v1");
}
