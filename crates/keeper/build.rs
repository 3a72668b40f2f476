//! Numbers the code of a keeper, so that it knows whether another image has a different one.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["src", "../link/src"] {
        println!("cargo::rerun-if-changed={folder}");
        files.extend(fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    files.sort();
    // FNV-1a.
    let mut code = 0xcbf2_9ce4_8422_2325_u64;
    for byte in files.iter().filter_map(|file| fs::read(file).ok()).flatten() {
        code = (code ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("code");
    if let Err(error) = fs::write(&out, code.to_string()) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}
