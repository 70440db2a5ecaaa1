//! Archives: tar bytes to a tree ([`unpack`]) and back ([`pack`]).

pub mod pack;
pub mod unpack;
