//! The program as hosts and operators meet it: a process of its own, reached over loopback and a
//! UNIX socket only, killed and restarted, fed with what nobody should send.
//!
//! Every test starts its own target on an address and in folders of its own, one at a time, because
//! each of them keeps the machine busy. Every wait has a bound; no test looks at how long something
//! took. Nothing stays behind, however a test ends.

mod arrays;
mod batching;
mod config;
mod connects;
mod counts;
mod host;
mod kept;
mod load;
mod md;
mod members;
mod patience;
mod plan;
mod process;
mod remote;
mod restart;
mod storm;
mod torture;
mod verify;
mod witness;
