//! Every field lies where `md_p.h` puts it, and what must not be trusted is refused.

use super::super::superblock::{MAX_DEVICES, SuperblockError};
use super::super::{Features, Minor, Policy, Role, SetName, Superblock, Time, Unsupported};
use super::sample;

/// The bytes that [`sample`] must have, put together from the table of the format alone.
fn by_hand() -> Vec<u8> {
    let mut bytes = vec![0; 256 + 256];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &[0xfc, 0x4e, 0x2b, 0xa9]);
    put(4, &1u32.to_le_bytes());
    put(
        16,
        &[
            0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff,
        ],
    );
    put(32, b"host:array");
    put(64, &1_700_000_000u64.to_le_bytes());
    put(72, &5u32.to_le_bytes());
    put(76, &2u32.to_le_bytes());
    put(80, &2_095_104u64.to_le_bytes());
    put(88, &1024u32.to_le_bytes());
    put(92, &3u32.to_le_bytes());
    put(128, &2048u64.to_le_bytes());
    put(136, &2_095_104u64.to_le_bytes());
    put(144, &8u64.to_le_bytes());
    put(160, &1u32.to_le_bytes());
    put(
        168,
        &[
            0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d,
            0x1e, 0x1f,
        ],
    );
    put(186, &8u16.to_le_bytes());
    put(188, &16u32.to_le_bytes());
    put(192, &1_700_000_100u64.to_le_bytes());
    put(200, &17u64.to_le_bytes());
    put(208, &[0xff; 8]);
    put(220, &128u32.to_le_bytes());
    put(256, &[0, 0, 1, 0, 2, 0]);
    put(262, &[0xff; 250]);
    let sum: u64 = bytes
        .chunks(4)
        .map(|w| {
            u64::from(w[0])
                + (u64::from(w[1]) << 8)
                + (u64::from(w[2]) << 16)
                + (u64::from(w[3]) << 24)
        })
        .sum();
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    bytes[216..220].copy_from_slice(&(folded as u32).to_le_bytes());
    bytes
}

#[test]
fn the_bytes_are_those_of_the_format() {
    assert_eq!(sample().to_bytes(), by_hand());
    assert_eq!(Superblock::parse(&by_hand()), Ok(sample()));
}

#[test]
fn the_fields_of_each_feature_lie_where_the_format_has_them() {
    let mut superblock = sample();
    superblock.policy = Policy::Bitmap { offset: -8 };
    superblock.features = Features::RECOVERY_OFFSET;
    superblock.recovery_offset = 0x0102_0304_0506_0708;
    let bytes = superblock.to_bytes();
    assert_eq!(bytes[8..12], [3, 0, 0, 0]);
    assert_eq!(bytes[96..100], [0xf8, 0xff, 0xff, 0xff]);
    assert_eq!(bytes[152..160], [8, 7, 6, 5, 4, 3, 2, 1]);

    superblock.policy = Policy::Ppl {
        offset: -3,
        size: 2048,
        multiple: true,
    };
    let bytes = superblock.to_bytes();
    assert_eq!(bytes[8..12], [2, 8, 0, 0]);
    assert_eq!(bytes[96..100], [0xfd, 0xff, 0x00, 0x08]);
    let back = Superblock::parse(&bytes).expect("whole");
    assert_eq!(back.policy, superblock.policy);
    assert_eq!(back.feature_map(), Features(0x802));

    superblock.policy = Policy::Ppl {
        offset: 8,
        size: 264,
        multiple: false,
    };
    assert_eq!(superblock.to_bytes()[8..12], [2, 4, 0, 0]);
}

#[test]
fn a_superblock_lies_where_its_minor_version_says() {
    assert_eq!(Minor::V1.offset(1000), Some(0));
    assert_eq!(Minor::V2.offset(1000), Some(8));
    // 1000 - 16 = 984 is a multiple of 8; one sector less makes it 976.
    assert_eq!(Minor::V0.offset(1000), Some(984));
    assert_eq!(Minor::V0.offset(999), Some(976));
    assert_eq!(Minor::V0.offset(1007), Some(984));
    assert_eq!(Minor::V0.offset(15), None);
    assert_eq!(Minor::V2.offset(15), None);
    assert_eq!(Minor::V2.offset(16), Some(8));
    for (at, minor) in [(0, Minor::V1), (8, Minor::V2), (984, Minor::V0)] {
        let mut superblock = sample();
        superblock.super_offset = at;
        assert_eq!(superblock.minor(), minor);
    }
}

#[test]
fn roles_have_their_meaning() {
    let mut superblock = sample();
    assert_eq!(superblock.role(), Role::Slot(1));
    assert_eq!(superblock.role_of(3), Role::Spare);
    assert_eq!(superblock.role_of(4000), Role::Spare);
    superblock.roles[1] = 0xfffe;
    assert_eq!(superblock.role(), Role::Faulty);
    superblock.roles[1] = 0xfffd;
    assert_eq!(superblock.role(), Role::Journal);
    superblock.roles[1] = 0xff00;
    assert_eq!(superblock.role(), Role::Unknown(0xff00));
    assert_eq!(superblock.slots(), [Some(0), None, Some(2)]);
    for number in 0..=u16::MAX {
        assert_eq!(Role::from_number(number).number(), number);
    }
}

#[test]
fn bytes_that_are_cut_off_are_refused() {
    let bytes = sample().to_bytes();
    for len in 0..bytes.len() {
        let refused = matches!(
            Superblock::parse(&bytes[..len]),
            Err(SuperblockError::Short { .. })
        );
        assert!(refused, "{len} bytes");
    }
    let mut longer = bytes.clone();
    longer.resize(4096, 0xa5);
    assert_eq!(Superblock::parse(&longer), Ok(sample()));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = sample().to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped.resize(4096, 0);
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Superblock::parse(&flipped).is_err(), "bit {bit}");
    }
}

/// Writes `field` at `at` and makes the checksum right again.
fn forged(at: usize, field: &[u8]) -> Result<Superblock, SuperblockError> {
    let mut bytes = by_hand();
    bytes[at..at + field.len()].copy_from_slice(field);
    bytes[216..220].fill(0);
    let sum: u64 = bytes
        .chunks(4)
        .map(|w| u64::from(u32::from_le_bytes([w[0], w[1], w[2], w[3]])))
        .sum();
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    bytes[216..220].copy_from_slice(&(folded as u32).to_le_bytes());
    Superblock::parse(&bytes)
}

#[test]
fn what_the_kernel_does_not_load_is_refused() {
    assert!(forged(8, &[0, 0, 0, 0]).is_ok());
    assert_eq!(forged(0, &[0; 4]), Err(SuperblockError::Magic(0)));
    assert_eq!(forged(4, &[2]), Err(SuperblockError::Version(2)));
    assert_eq!(forged(12, &[1]), Err(SuperblockError::Padding));
    assert_eq!(forged(255, &[1]), Err(SuperblockError::Padding));
    assert_eq!(forged(228, &[1]), Err(SuperblockError::Padding));
    let too_many = MAX_DEVICES as u32 + 1;
    assert_eq!(
        forged(220, &too_many.to_le_bytes()),
        Err(SuperblockError::TooManyDevices(too_many))
    );
    assert_eq!(
        forged(136, &9u64.to_le_bytes()),
        Err(SuperblockError::DataSize(9))
    );
    assert_eq!(
        forged(128, &8u64.to_le_bytes()),
        Err(SuperblockError::DataOffset {
            data_offset: 8,
            end: 9
        })
    );
    assert!(forged(128, &9u64.to_le_bytes()).is_ok());
    for contradiction in [0xc00u32, 0x401, 0x801, 0x600, 0x1000] {
        assert!(matches!(
            forged(8, &contradiction.to_le_bytes()),
            Err(SuperblockError::Contradiction(_))
        ));
    }
}

#[test]
fn what_we_can_not_run_is_named() {
    let refused = |change: fn(&mut Superblock)| {
        let mut superblock = sample();
        change(&mut superblock);
        superblock.support().expect_err("refused")
    };
    assert_eq!(sample().support(), Ok(()));
    assert_eq!(
        refused(|s| s.features = Features(0x2000)),
        Unsupported::Features(0x2000)
    );
    assert_eq!(refused(|s| s.level = 6), Unsupported::Level(6));
    assert_eq!(refused(|s| s.layout = 6), Unsupported::Layout(6));
    assert_eq!(
        refused(|s| s.features = Features::RESHAPE),
        Unsupported::Reshape
    );
    assert_eq!(
        refused(|s| s.features = Features::JOURNAL),
        Unsupported::Journal
    );
    assert_eq!(refused(|s| s.roles[1] = 0xfffd), Unsupported::Journal);
    assert_eq!(
        refused(|s| s.features = Features::CLUSTERED),
        Unsupported::Clustered
    );
    assert_eq!(refused(|s| s.chunk = 4), Unsupported::Chunk(4));
    assert_eq!(refused(|s| s.chunk = 24), Unsupported::Chunk(24));
    assert_eq!(refused(|s| s.chunk = 4096), Unsupported::Chunk(4096));
    assert_eq!(refused(|s| s.raid_disks = 2), Unsupported::Members(2));
    assert_eq!(refused(|s| s.raid_disks = 65), Unsupported::Members(65));
    assert!(matches!(
        refused(|s| s.size = s.data_size + 1),
        Unsupported::Size { .. }
    ));
    assert_eq!(
        refused(|s| s.logical_block_size = 8192),
        Unsupported::LogicalBlock(8192)
    );
    assert_eq!(
        refused(|s| s.bad_block_log.shift = 3),
        Unsupported::BadBlockShift(3)
    );
}

#[test]
fn times_have_seconds_and_microseconds() {
    let time = Time(1_700_000_000 | 250_000 << 40);
    assert_eq!((time.seconds(), time.micros()), (1_700_000_000, 250_000));
    // From `date -u -d @N`.
    for (seconds, date) in [
        (0, "Thu Jan  1 00:00:00 1970"),
        (951_782_399, "Mon Feb 28 23:59:59 2000"),
        (951_868_800, "Wed Mar  1 00:00:00 2000"),
        (1_700_000_000, "Tue Nov 14 22:13:20 2023"),
        (1_709_164_800, "Thu Feb 29 00:00:00 2024"),
        (4_107_542_400, "Mon Mar  1 00:00:00 2100"),
        (1_099_511_627_775, "Mon Feb 20 00:36:15 36812"),
    ] {
        assert_eq!(Time::from_seconds(seconds).to_string(), date);
    }
}

#[test]
fn names_are_kept_as_they_are() {
    assert!(SetName::new(&"n".repeat(33)).is_err());
    assert!(SetName::new("a\0b").is_err());
    let full = SetName::new(&"n".repeat(32)).expect("fits");
    assert_eq!(full.to_string(), "n".repeat(32));
    let mut bytes = [0; 32];
    bytes[..3].copy_from_slice(b"h:\xff");
    assert_eq!(SetName::from_bytes(bytes).to_bytes(), bytes);
    assert_eq!(SetName::from_bytes(bytes).without_host(), "\u{fffd}");
    assert_eq!(SetName::new("plain").expect("fits").without_host(), "plain");
}
