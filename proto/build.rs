//! Compiles every `.proto` file below `kvnode/` without `protoc`.

use prost::Message;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=kvnode");
    let mut files = Vec::new();
    find(Path::new("kvnode"), &mut files)?;
    files.sort();
    let all = protox::compile(&files, ["."])?;
    let (mut services, mut messages) = (all.clone(), all);
    services.file.retain(|f| f.package() == "kvnode.v1");
    messages.file.retain(|f| f.package() != "kvnode.v1");

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("kvnode_v1.bin"), services.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .codec_path("crate::codec::Codec")
        .build_transport(false)
        .compile_fds(services)?;
    if !messages.file.is_empty() {
        tonic_prost_build::configure()
            .bytes(".")
            .build_client(false)
            .build_server(false)
            .compile_fds(messages)?;
    }
    Ok(())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
