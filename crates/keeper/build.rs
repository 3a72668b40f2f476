//! Numbers the code of this crate, so that a keeper knows whether another image has a different one.

use std::fs;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=src");
    let entries = fs::read_dir("src").into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    // FNV-1a.
    let mut code = 0xcbf2_9ce4_8422_2325_u64;
    for byte in files.iter().filter_map(|file| fs::read(file).ok()).flatten() {
        code = (code ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    println!("cargo::rustc-env=KEEPER_CODE={code}");
}
