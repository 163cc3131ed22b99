//! Discovery log page (70h, Base 5.16.1.23): where the subsystems of a discovery service are.

use std::net::{IpAddr, SocketAddr};

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::nvme::NQN_FIELD_SIZE;
use crate::nvme::nqn::{Nqn, NqnError};
use crate::nvme::text::{ascii_field, ascii_text};

codes! {
    /// Transport type (TRTYPE).
    pub enum TransportType: u8 {
        Rdma = 0x01, "RDMA";
        FibreChannel = 0x02, "Fibre Channel";
        Tcp = 0x03, "TCP";
        IntraHost = 0xfe, "Intra-host";
    }
}

codes! {
    /// Address family (ADRFAM).
    pub enum AddressFamily: u8 {
        Ipv4 = 0x01, "IPv4";
        Ipv6 = 0x02, "IPv6";
        InfiniBand = 0x03, "InfiniBand";
        FibreChannel = 0x04, "Fibre Channel";
        IntraHost = 0xfe, "Intra-host";
    }
}

codes! {
    /// Subsystem type (SUBTYPE).
    pub enum SubsystemType: u8 {
        Referral = 0x01, "Referral to another discovery service";
        Nvm = 0x02, "NVM subsystem";
        CurrentDiscovery = 0x03, "The discovery subsystem that answers";
    }
}

codes! {
    /// Secure channel (TREQ bits 1:0).
    pub enum SecureChannel: u8 {
        NotSpecified = 0b00, "not specified";
        Required = 0b01, "required";
        NotRequired = 0b10, "not required";
    }
}

/// The header of the page, 1024 bytes; the entries follow.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct DiscoveryHeader {
    /// Generation counter: another value, another content.
    pub genctr: U64,
    /// Entries that follow.
    pub numrec: U64,
    /// Record format, 0.
    pub recfmt: U16,
    /// Reserved.
    pub reserved18: [u8; 1006],
}

layout!(DiscoveryHeader, 1024 bytes, { genctr at 0, numrec at 8, recfmt at 16 });

impl DiscoveryHeader {
    /// The header of `entries` entries.
    #[must_use]
    pub fn new(generation: u64, entries: u64) -> Self {
        Self {
            genctr: generation.into(),
            numrec: entries.into(),
            ..Self::new_zeroed()
        }
    }
}

/// One entry: a port of a subsystem.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct DiscoveryEntry {
    /// A [`TransportType`].
    pub trtype: u8,
    /// An [`AddressFamily`].
    pub adrfam: u8,
    /// A [`SubsystemType`].
    pub subtype: u8,
    /// Transport requirements: a [`SecureChannel`] in bits 1:0, bit 2 set where flow control may be disabled.
    pub treq: u8,
    /// Port of the subsystem.
    pub portid: U16,
    /// FFFFh for dynamic controllers.
    pub cntlid: U16,
    /// Largest admin submission queue, entries; at least 32.
    pub asqsz: U16,
    /// Entry flags.
    pub eflags: U16,
    /// Reserved.
    pub reserved12: [u8; 20],
    /// Transport service: the TCP port in decimal, ASCII padded with spaces.
    pub trsvcid: [u8; 32],
    /// Reserved.
    pub reserved64: [u8; 192],
    /// Name of the subsystem, NUL-terminated.
    pub subnqn: [u8; NQN_FIELD_SIZE],
    /// Transport address, ASCII padded with spaces.
    pub traddr: [u8; 256],
    /// Transport specific: for TCP byte 0 is the security type, 0 none, 1 TLS 1.2, 2 TLS 1.3.
    pub tsas: [u8; 256],
}

layout!(DiscoveryEntry, 1024 bytes, {
    trtype at 0, adrfam at 1, subtype at 2, treq at 3, portid at 4, cntlid at 6, asqsz at 8, eflags at 10,
    trsvcid at 32, subnqn at 256, traddr at 512, tsas at 768,
});

impl DiscoveryEntry {
    /// EFLAGS: the same information is returned by the other ports of this discovery service.
    pub const EFLAGS_DUPLICATE: u16 = 1 << 0;
    /// EFLAGS: the discovery service keeps persistent connections.
    pub const EFLAGS_PERSISTENT: u16 = 1 << 1;
    /// TREQ: the controller can disable submission queue flow control.
    pub const TREQ_FLOW_CONTROL_OPTIONAL: u8 = 1 << 2;

    /// A TCP port of a subsystem with dynamic controllers and no security.
    #[must_use]
    pub fn tcp(
        subtype: SubsystemType,
        subsystem: &Nqn,
        address: SocketAddr,
        port_id: u16,
        admin_queue: u16,
    ) -> Self {
        let family = match address.ip() {
            IpAddr::V4(_) => AddressFamily::Ipv4,
            IpAddr::V6(_) => AddressFamily::Ipv6,
        };
        Self {
            trtype: TransportType::Tcp.code(),
            adrfam: family.code(),
            subtype: subtype.code(),
            treq: SecureChannel::NotRequired.code() | Self::TREQ_FLOW_CONTROL_OPTIONAL,
            portid: port_id.into(),
            cntlid: 0xffff.into(),
            asqsz: admin_queue.into(),
            trsvcid: ascii_field(&address.port().to_string()),
            subnqn: subsystem.to_field(),
            traddr: ascii_field(&address.ip().to_string()),
            ..Self::new_zeroed()
        }
    }

    /// The name of the subsystem.
    ///
    /// # Errors
    /// Where the field is not a qualified name.
    pub fn subsystem(&self) -> Result<Nqn, NqnError> {
        Nqn::from_field(&self.subnqn)
    }

    /// The transport address as text.
    #[must_use]
    pub fn address_text(&self) -> String {
        ascii_text(&self.traddr)
    }

    /// The transport service as text.
    #[must_use]
    pub fn service_text(&self) -> String {
        ascii_text(&self.trsvcid)
    }

    /// Where to connect; `None` for another transport, or where address or port can't be read.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        if TransportType::from_code(self.trtype) != Some(TransportType::Tcp) {
            return None;
        }
        Some(SocketAddr::new(
            self.address_text().parse().ok()?,
            self.service_text().parse().ok()?,
        ))
    }
}

/// The header and the whole entries of a page, without a copy; `None` where there is not even a header.
/// The header's count may be larger than the entries received: the page is then to be read on.
#[must_use]
pub fn discovery_entries(page: &[u8]) -> Option<(&DiscoveryHeader, &[DiscoveryEntry])> {
    let (header, rest) = DiscoveryHeader::ref_from_prefix(page).ok()?;
    let count = usize::try_from(header.numrec.get()).unwrap_or(usize::MAX);
    let count = count.min(rest.len() / size_of::<DiscoveryEntry>());
    let (entries, _) = <[DiscoveryEntry]>::ref_from_prefix_with_elems(rest, count).ok()?;
    Some((header, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str) -> DiscoveryEntry {
        let name: Nqn = "nqn.2026-11.io.stripewise:demo".parse().expect("a name");
        DiscoveryEntry::tcp(
            SubsystemType::Nvm,
            &name,
            address.parse().expect("an address"),
            1,
            128,
        )
    }

    #[test]
    fn a_tcp_entry_has_the_bytes_of_the_specification() {
        let entry = entry("127.0.0.1:4420");
        let bytes = entry.as_bytes();
        assert_eq!(
            bytes[..12],
            [3, 1, 2, 0b110, 1, 0, 0xff, 0xff, 128, 0, 0, 0]
        );
        assert_eq!(&bytes[32..40], b"4420    ");
        assert_eq!(&bytes[256..260], b"nqn.");
        assert_eq!(&bytes[512..522], b"127.0.0.1 ");
        assert_eq!(bytes[768], 0);
        assert_eq!(entry.tcp_address(), "127.0.0.1:4420".parse().ok());
        assert_eq!(
            entry.subsystem().expect("a name").as_str(),
            "nqn.2026-11.io.stripewise:demo"
        );
    }

    #[test]
    fn addresses_of_either_family_and_padding_are_read() {
        let v6 = entry("[fd00::1]:8009");
        assert_eq!(v6.adrfam, 2);
        assert_eq!(v6.tcp_address(), "[fd00::1]:8009".parse().ok());
        let mut nul = entry("10.0.0.1:1");
        nul.trsvcid = [0; 32];
        nul.trsvcid[..4].copy_from_slice(b"4421");
        assert_eq!(nul.tcp_address(), "10.0.0.1:4421".parse().ok());
        let rdma = DiscoveryEntry { trtype: 1, ..nul };
        assert_eq!(rdma.tcp_address(), None);
        nul.trsvcid[0] = b'x';
        assert_eq!(nul.tcp_address(), None);
    }

    #[test]
    fn a_page_gives_the_entries_that_are_there() {
        let mut page = DiscoveryHeader::new(9, 2).as_bytes().to_vec();
        page.extend_from_slice(entry("127.0.0.1:4420").as_bytes());
        page.extend_from_slice(entry("127.0.0.1:4421").as_bytes());
        let (header, entries) = discovery_entries(&page).expect("a page");
        assert_eq!((header.genctr.get(), entries.len()), (9, 2));
        let (_, entries) = discovery_entries(&page[..2048 + 1000]).expect("a part of a page");
        assert_eq!(entries.len(), 1);
        assert!(discovery_entries(&page[..1000]).is_none());
        let liar = DiscoveryHeader::new(1, u64::MAX);
        let (_, entries) = discovery_entries(liar.as_bytes()).expect("a header");
        assert!(entries.is_empty());
    }
}
