//! An external ioengine for fio over Stripewise's NVMe/TCP initiator: an unmodified fio drives any NVMe/TCP target,
//! polled, with no kernel driver in between.
//!
//! From the bottom up: `fio` is fio's interface as its headers have it; [`target`] is how a job says whom to talk to;
//! [`link`] is the connection to one namespace; [`job`] is all that one job of fio has in flight, and knows nothing of fio;
//! [`options`] and [`engine`] are what fio calls.

pub mod engine;
mod fio;
pub mod job;
pub mod link;
pub mod options;
pub mod target;
