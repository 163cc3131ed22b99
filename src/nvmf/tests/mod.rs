//! The target as a whole, without sockets and on virtual time: a host made here from the PDU codec
//! talks to it through a pipe. Expected statuses are the numbers of the specification: status code
//! type in the high byte, status code in the low one.

mod admin;
mod ana;
mod authentication;
mod commands;
mod connect;
mod control;
mod data_checks;
mod depth;
mod device;
mod discovery;
mod errors;
mod event_log;
mod fused;
mod handshake;
mod host;
mod io;
mod kept;
mod lifetime;
mod limits;
mod party;
mod pipe;
mod pressure;
mod reservation_files;
mod reservation_model;
mod reservations;
mod resize;
mod rounds;
mod takeover;
mod visibility;
mod world;
