//! A client that has never seen the interface definitions.

use harness::process::start_ring;
use harness::python::{GRPC, interpreter, run};
use harness::{Res, binary};

/// Python learns messages and services by reflection, writes at one node and reads at the others.
pub(crate) fn learns() -> Res<()> {
    let nodes = start_ring(3)?;
    let endpoints: Vec<String> = nodes.iter().map(harness::process::Node::endpoint).collect();
    let arguments: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let script = binary::workspace().join("tests").join("wire").join("reflection.py");
    print!("{}", run(&interpreter(GRPC)?, &script, &arguments)?);
    Ok(())
}
