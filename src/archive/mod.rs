//! Archives: tar bytes to a tree ([`unpack`]) and back ([`pack`]), and the content of an overlay's upper directory ([`changes`]).
//! [`leak`] finds secrets in a tree and hides them in output.

pub mod changes;
pub mod leak;
pub mod pack;
pub mod unpack;
