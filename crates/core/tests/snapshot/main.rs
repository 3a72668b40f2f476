//! Records: an app that is cut off anywhere goes on from them as if nothing had happened.

mod cuts;
mod damage;
mod memory;
mod rng;
mod trace;
