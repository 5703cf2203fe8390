//! `kvnode.v1.Transactions`: declared so that its shape is fixed, and refused.

use super::{Api, Problem};
use crate::error::{NOT_IMPLEMENTED, Report};
use proto::v1::transactions_server::Transactions;
use proto::v1::{ExecuteRequest, ExecuteResponse};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl Transactions for Api {
    async fn execute(&self, _: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let report = Report::new(
            NOT_IMPLEMENTED,
            "transactions are not implemented yet",
            format!("kvnode {} serves operations on single keys only", self.info.version),
            "use kvnode.v1.Kv; TestAndSet and conditions on versions make changes of one key safe",
        );
        Err(Problem::from(report).into())
    }
}
