//! NVMe namespaces as devices, one folder for each way to their controllers.

pub mod pcie;
pub mod tcp;
