//! Containers through the `docker` command. What is made here is removed with the value that stands for it.

use crate::Res;
use crate::binary::{kvnode, scratch, workspace};
use crate::poll::until;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The network of the three-container example.
pub const SUBNET: &str = "10.2.1.0/24";

/// Why there can be no container test here, if so.
pub fn missing() -> Option<String> {
    let client = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    match client {
        Err(_) => Some("there is no docker command".to_owned()),
        Ok(out) if !out.status.success() => {
            let reason = String::from_utf8_lossy(&out.stderr);
            let first = reason.lines().next().unwrap_or("it gave no reason");
            Some(format!("no container engine answers (is it started, and are you root?): {first}"))
        }
        Ok(_) => None,
    }
}

/// A name that no other run uses.
fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("kvnode-test-{}-{what}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs `docker` and gives its output.
pub fn docker(args: &[&str]) -> Res<String> {
    let out = Command::new("docker").args(args).output().map_err(|e| format!("cannot run docker: {e}"))?;
    if !out.status.success() {
        return Err(format!("docker {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn remove(args: &[&str]) {
    if let Err(e) = docker(args) {
        eprintln!("left behind: {e}");
    }
}

/// The image, made of the static program by the workspace's Dockerfile.
#[derive(Debug)]
pub struct Image {
    name: String,
}

impl Image {
    /// Builds it. The context holds the program alone, so that nothing else is sent to the engine.
    pub fn build() -> Res<Image> {
        let context = scratch("image")?;
        std::fs::copy(kvnode()?, context.join("kvnode"))
            .map_err(|e| format!("cannot copy the program: {e}"))?;
        let image = Image { name: unique("image") };
        let (file, context) = (workspace().join("Dockerfile"), context.to_string_lossy().into_owned());
        let file = file.to_string_lossy();
        docker(&[
            "build",
            "--quiet",
            "--target",
            "prebuilt",
            "--tag",
            &image.name,
            "--file",
            &file,
            &context,
        ])?;
        Ok(image)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(&["rmi", "--force", &self.name]);
    }
}

/// A network of its own for the containers of one test.
#[derive(Debug)]
pub struct Network {
    id: String,
}

impl Network {
    /// Makes the network 10.2.1.0/24.
    pub fn create() -> Res<Network> {
        let id = docker(&["network", "create", "--subnet", SUBNET, &unique("net")])?;
        Ok(Network { id })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&["network", "rm", &self.id]);
    }
}

/// A container that runs a node.
#[derive(Debug)]
pub struct Container {
    id: String,
    endpoint: String,
}

impl Container {
    /// Starts a node as the article does: `LISTEN_ADDRESS`, `JOIN_IP`, and port 8000 mapped.
    pub fn start(image: &Image, network: &Network, ip: Ipv4Addr, join: Ipv4Addr) -> Res<Container> {
        let (ip, listen, join) = (ip.to_string(), format!("LISTEN_ADDRESS={ip}"), format!("JOIN_IP={join}"));
        let settings = ["--network", &network.id, "--ip", &ip, "--env", &listen, "--env", &join];
        Container::run(image, &settings)
    }

    /// Starts a node with these further arguments of `docker run`.
    pub fn run(image: &Image, settings: &[&str]) -> Res<Container> {
        let name = unique("node");
        let fixed = ["run", "--detach", "--read-only", "--cap-drop", "ALL", "--name", &name];
        let port = ["--publish", "127.0.0.1::8000", image.name()];
        let id = docker(&[&fixed[..], settings, &port[..]].concat())?;
        let mut container = Container { id, endpoint: String::new() };
        container.find_endpoint()?;
        Ok(container)
    }

    fn find_endpoint(&mut self) -> Res<()> {
        let mapped = docker(&["port", &self.id, "8000/tcp"])
            .map_err(|e| format!("it does not run: {e}; it said:\n{}", self.log()))?;
        self.endpoint = mapped.lines().next().unwrap_or_default().to_owned();
        Ok(())
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it answers clients, as seen from this machine.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        let out = Command::new("docker").args(["logs", "--tail", "50", &self.id]).output();
        out.map_or_else(
            |e| e.to_string(),
            |o| format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr)),
        )
    }

    /// `docker kill`.
    pub fn kill(&self) -> Res<()> {
        docker(&["kill", &self.id]).map(|_| ())
    }

    /// `docker start` after it ended.
    pub fn restart(&mut self) -> Res<()> {
        docker(&["start", &self.id])?;
        self.find_endpoint()
    }

    /// `docker stop`, and the exit code.
    pub fn stop(&self) -> Res<i32> {
        docker(&["stop", "--time", "10", &self.id])?;
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &self.id])?;
        code.parse().map_err(|_| format!("not an exit code: {code}"))
    }

    /// Waits until the engine's own health check calls it healthy.
    pub fn wait_healthy(&self, limit: Duration) -> Res<()> {
        until("the container is healthy", limit, || {
            match docker(&["inspect", "--format", "{{.State.Health.Status}}", &self.id])?.as_str() {
                "healthy" => Ok(()),
                other => Err(format!("it is {other}; it said:\n{}", self.log())),
            }
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        remove(&["rm", "--force", "--volumes", &self.id]);
    }
}
