//! RAID volumes as clients make, see and change them.

mod assembly;
mod metadata;
mod site;
mod spares;
mod volumes;
