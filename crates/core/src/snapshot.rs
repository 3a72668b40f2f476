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

#[doc(hidden)]
pub use body::Version;
pub use image::{Layout, pid_word};
pub use records::{Full, Records, Store};
pub use refused::Refused;

use crate::app::App;
use crate::id::{BrokerId, Generation};
use crate::spec::BrokerSpec;

/// The app as of the last committed step of an image. `specs` gives the specification that came with a generation of
/// a broker, `listens` the addresses that a broker has bound, in the order in which they were told
/// in [`crate::Input::Opened`] and [`crate::Input::Bound`]. A few more may be among them: those that are bound and not told
/// yet, or closed and told to be; [`App::status`] shows which are meant.
///
/// # Errors
/// If the image, or what is given with it, is not what was recorded: nothing of it is used then.
pub fn restore(
    image: &[u8],
    specs: impl FnMut(BrokerId, Generation) -> Option<BrokerSpec>,
    listens: impl FnMut(BrokerId) -> Vec<String>,
) -> Result<App, Refused> {
    restore_in(Version::OWN, image, specs, listens)
}

/// The same as a reader of another version does it; for tests.
#[doc(hidden)]
pub fn restore_in(
    reader: Version,
    image: &[u8],
    mut specs: impl FnMut(BrokerId, Generation) -> Option<BrokerSpec>,
    mut listens: impl FnMut(BrokerId) -> Vec<String>,
) -> Result<App, Refused> {
    restore::build(&image::read(image, reader)?, &mut restore::Given::new(&mut specs, &mut listens))
}

/// Makes every checksum in an image fit what is there, so that what stands behind them is put to the test; for tests.
#[doc(hidden)]
pub fn sum_again(image: &mut [u8]) {
    image::sum_again(image);
}

/// The versions in which the records of an image are written, as a reader of the latest one sees them; for tests.
#[doc(hidden)]
pub fn versions(image: &[u8]) -> Result<Vec<Version>, Refused> {
    Ok(image::read(image, Version::STRANGE)?.versions.into_iter().collect())
}

/// All records of an app as they should be, one after the other; for tests.
#[doc(hidden)]
#[must_use]
pub fn written(app: &App) -> Vec<u8> {
    let mut bytes = fields::encode_app(app, image::Tail::default(), Version::OWN).as_bytes().to_vec();
    for body in fields::names(app).into_iter().filter_map(|name| name.encode(app, Version::OWN)) {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

/// The same as it lies in an image, whose records [`restore`] accepts only if the app that it makes of them would be
/// written so; for tests.
#[doc(hidden)]
pub fn committed(image: &[u8]) -> Result<Vec<u8>, Refused> {
    let contents = image::read(image, Version::OWN)?;
    let mut bytes = contents.body.to_vec();
    if let Some(tail) = bytes.get_mut(image::Tail::PLACE) {
        tail.fill(0);
    }
    for (_, body) in contents.records.values() {
        bytes.extend_from_slice(body);
    }
    Ok(bytes)
}
