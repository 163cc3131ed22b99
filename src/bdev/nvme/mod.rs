//! NVMe controllers as members, one folder for each way to them.

pub mod pcie;
