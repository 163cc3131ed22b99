//! The target as a whole, without sockets and on virtual time: a host made here from the PDU codec
//! talks to it through a pipe.

#![allow(dead_code)]

mod host;
mod io;
mod kept;
mod pipe;
mod world;
