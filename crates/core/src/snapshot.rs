//! Records of an app's whole state: another process that reads them goes on where this one ended.
//!
//! [`Records`] writes, after each step, what the step has changed, so that at any moment, also in the middle of a
//! write, the bytes hold the state after the last committed step. [`restore`] makes the app of them. Two things are
//! not in the records and are given to it: the specifications, each named by the broker and the generation it came
//! with, and the addresses that were bound. Where the bytes are kept is the caller's: see [`Store`].
//!
//! `body` and `fields` say what a record is, `image` where it lies, `records` writes, `read` and `restore` read.

mod body;
mod fields;
mod image;
mod read;
mod records;
mod refused;
mod restore;

pub use image::{Layout, pid_word};
pub use records::{Full, Records, Store};
pub use refused::Refused;

use crate::app::App;
use crate::id::{BrokerId, Generation};
use crate::spec::BrokerSpec;
use body::{Body, Kind};

/// The app as of the last committed step of an image. `specs` gives the specification that came with a generation of
/// a broker, `listens` the addresses that a broker has bound, as they were told in [`crate::Input::Opened`].
///
/// # Errors
/// If the image, or what is given with it, is not what was recorded: nothing of it is used then.
pub fn restore(
    image: &[u8],
    mut specs: impl FnMut(BrokerId, Generation) -> Option<BrokerSpec>,
    mut listens: impl FnMut(BrokerId) -> Vec<String>,
) -> Result<App, Refused> {
    restore::build(&image::read(image)?, &mut restore::Given::new(&mut specs, &mut listens))
}

/// All records of an app as they should be, one after the other; for tests.
#[doc(hidden)]
#[must_use]
pub fn written(app: &App) -> Vec<u8> {
    let mut body = Body::new(Kind::App, 0);
    fields::encode_app(app, &mut body);
    let mut bytes = body.finish().as_bytes().to_vec();
    for body in fields::names(app).into_iter().filter_map(|name| name.encode(app)) {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

/// Whether an image holds, as of its last committed step, exactly the records of this app as they should be; for tests.
#[doc(hidden)]
pub fn holds(image: &[u8], app: &App) -> Result<bool, Refused> {
    Ok(restore::is_what_was_read(app, &image::read(image)?))
}
