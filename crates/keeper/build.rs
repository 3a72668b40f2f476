//! Numbers the code of a keeper, the link's included, so that it knows whether another image has a different one.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let written = code().and_then(|code| fs::write(out.join("code"), code.to_string()));
    if let Err(error) = written {
        println!("cargo::error=cannot number the keeper's code: {error}");
    }
}

/// FNV-1a of all files. A folder in a folder cannot be read as a file, and is an error.
fn code() -> io::Result<u64> {
    let mut code = 0xcbf2_9ce4_8422_2325;
    for folder in ["src", "../link/src"] {
        println!("cargo::rerun-if-changed={folder}");
        for file in files(Path::new(folder))? {
            let step = |code: u64, byte| (code ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            code = fs::read(file)?.into_iter().fold(code, step);
        }
    }
    Ok(code)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
