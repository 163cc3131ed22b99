//! NVMe namespaces as devices, one folder for each way to their controllers.

mod identity;
pub mod pcie;
pub mod tcp;

pub use identity::Identity;
