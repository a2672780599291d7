//! Generates the service's types from its description, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const DESCRIPTION: &str = "proto/keyprovider.proto";
    println!("cargo:rerun-if-changed={DESCRIPTION}");
    let description = protox::compile([DESCRIPTION], ["proto"])?;
    tonic_prost_build::configure().build_client(false).compile_fds(description)?;
    Ok(())
}
