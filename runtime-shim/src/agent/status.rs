//! `containers`: what the agent says of the containers that hold leases.

use command_line::{Console, Failure};

use super::client::AgentClient;
use super::protocol::ContainerStatus;
use crate::cli::AgentSocketArgs;

/// Shows them.
pub(crate) async fn run(args: AgentSocketArgs, console: &Console) -> Result<(), Failure> {
    let containers = AgentClient::new(args.socket).status().await?;
    console.result(&containers, || {
        let lines: Vec<String> = containers.iter().map(line).collect();
        if lines.is_empty() { "no container holds a lease".to_owned() } else { lines.join("\n") }
    });
    Ok(())
}

fn line(status: &ContainerStatus) -> String {
    let lease = status.lease.as_deref().unwrap_or("none");
    let pid = status.pid.map_or_else(|| "being created".to_owned(), |pid| format!("process {pid}"));
    let (id, image, left) = (&status.container.id, &status.reference, status.seconds_left);
    format!("{id}  {pid}  {image}  lease {lease}, {left} s left without the service")
}
