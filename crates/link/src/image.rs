//! An image of this program, and one that is started with a link of its own.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::{LINK, Link};

/// This image of the program, with our own name and arguments.
pub fn command(image: &impl AsRawFd) -> Command {
    let mut command = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()));
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    command
}

/// Starts a process that finds the other end of this link under [`LINK`]. What another thread starts meanwhile inherits
/// that end too.
///
/// # Errors
/// Those of [`Link::pair`] and [`Command::spawn`].
pub fn start_linked(command: &mut Command) -> io::Result<(Child, Link)> {
    let (link, other) = Link::pair()?;
    fcntl_setfd(&other, FdFlags::empty())?;
    let child = command.env(LINK, other.0.as_raw_fd().to_string()).spawn()?;
    Ok((child, link))
}
