//! Records: an app that is cut off anywhere goes on from them as if nothing had happened.

mod cuts;
mod damage;
mod limits;
mod memory;
mod rng;
mod trace;
mod versions;
