//! A unary gRPC server that gives back what it gets, on tonic's own server with its defaults.

use std::net::SocketAddr;
use tonic::{Request, Response, Status};

/// The generated service.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::as_conversions, clippy::wildcard_enum_match_arm)]
pub mod wire {
    tonic::include_proto!("kvnode.benches");
}

use wire::EchoMessage;
use wire::echo_server::{Echo, EchoServer};

struct Plain;

#[tonic::async_trait]
impl Echo for Plain {
    async fn echo(&self, request: Request<EchoMessage>) -> Result<Response<EchoMessage>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

/// Serves until the process ends.
pub async fn serve(at: SocketAddr) -> Result<(), tonic::transport::Error> {
    tonic::transport::Server::builder().add_service(EchoServer::new(Plain)).serve(at).await
}
