//! Compiles the wire protocol of `proto/` without protoc.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let include = "../../proto";
    println!("cargo:rerun-if-changed={include}");
    let mut compiler = protox::Compiler::new([include])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file("hauberk/v1/hauberk.proto")?;

    // The tests build random messages from the descriptors, so that a new field is covered without a word about it.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("hauberk.v1.binpb"), compiler.encode_file_descriptor_set())?;

    prost_build::Config::new().bytes(["."]).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
