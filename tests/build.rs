//! Generates the client of containerd's CRI from its description, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const DESCRIPTION: &str = "proto/cri.proto";
    println!("cargo:rerun-if-changed={DESCRIPTION}");
    let description = protox::compile([DESCRIPTION], ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(description)?;
    Ok(())
}
