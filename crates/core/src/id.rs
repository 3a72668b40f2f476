//! Names of things. A worker is known by its id for ever; pids are data, never keys.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One worker process of an app, unique in the app's life; never used again.
    WorkerId(u64)
}
number! {
    /// One broker of an app: its position in the order of declaration.
    BrokerId(u32)
}
number! {
    /// A place 0..N-1 of a broker. It has one serving worker and, during a recycle, that worker's successor.
    Slot(u32)
}
number! {
    /// The number of a broker's specification; strictly rising.
    Generation(u32)
}
number! {
    /// A process number as the OS shows it to people. Core carries it and never acts on it.
    Pid(u32)
}
number! {
    /// What the shell keeps for a specification (command line, environment); core only hands it back.
    LaunchId(u32)
}
number! {
    /// A command's own number, chosen by who sent it: the same number again is the same command.
    RequestId(u128)
}
