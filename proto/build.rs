//! Compiles the .proto files without protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["kvnode/peer/v1/peer.proto"], ["."])?;
    println!("cargo::rerun-if-changed=kvnode");
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
