//! The plain gRPC server: `echo ADDR:PORT`.

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let at = std::env::args().nth(1).ok_or("usage: echo ADDR:PORT")?.parse()?;
    Ok(benches::echo::serve(at).await?)
}
