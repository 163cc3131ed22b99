//! What Identify returns (Base 5.17.2, NVM 4.1.5): one file for the controller, the namespace, and the lists.

mod controller;
mod list;
mod namespace;

pub use controller::{ControllerType, IdentifyController, IdentifyNvmController};
pub use list::{
    CommandSets, ControllerList, DescriptorError, DescriptorList, NamespaceDescriptor,
    NamespaceList, descriptors,
};
pub use namespace::{IdentifyNamespace, IdentifyNvmNamespace, IndependentNamespace, LbaFormat};

/// Size in bytes of every structure that Identify returns.
pub const IDENTIFY_SIZE: usize = 4096;

codes! {
    /// Controller or Namespace Structure: what Identify asks for.
    pub enum Cns: u8 {
        Namespace = 0x00, "Identify Namespace";
        Controller = 0x01, "Identify Controller";
        ActiveNamespaces = 0x02, "Active Namespace ID list";
        NamespaceDescriptors = 0x03, "Namespace Identification Descriptor list";
        CommandSetNamespace = 0x05, "I/O Command Set specific Identify Namespace";
        CommandSetController = 0x06, "I/O Command Set specific Identify Controller";
        CommandSetActiveNamespaces = 0x07, "I/O Command Set specific Active Namespace ID list";
        IndependentNamespace = 0x08, "I/O Command Set Independent Identify Namespace";
        AllocatedNamespaces = 0x10, "Allocated Namespace ID list";
        AllocatedNamespace = 0x11, "Identify Namespace for an allocated Namespace ID";
        NamespaceControllers = 0x12, "Controller list of a namespace";
        Controllers = 0x13, "Controller list of the NVM subsystem";
        CommandSets = 0x1c, "Identify I/O Command Set";
    }
}

codes! {
    /// Command Set Identifier.
    pub enum CommandSet: u8 {
        Nvm = 0x00, "NVM Command Set";
        KeyValue = 0x01, "Key Value Command Set";
        Zoned = 0x02, "Zoned Namespace Command Set";
    }
}
