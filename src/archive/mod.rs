//! Archives: tar bytes to a tree ([`unpack`]) and back ([`pack`]), and the content of an overlay's upper directory ([`changes`]).

pub mod changes;
pub mod pack;
pub mod unpack;
