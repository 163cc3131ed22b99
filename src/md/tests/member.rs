//! Members on devices of either block size: what is written is found again, what can't be right is refused.

use super::super::disk::{Disk, DiskError, FileDisk, read_span, write_span};
use super::super::member::{
    self, AreaError, MemberError, write_bad_blocks, write_bitmap, write_bitmap_page,
    write_empty_ppl, write_superblock, zero_superblock,
};
use super::super::placement::PlacementError;
use super::super::superblock::{Minor, SuperblockError};
use super::super::{
    BadBlockLog, BadBlocks, Bitmap, BitmapError, BitmapHeader, Features, Freshness, Member, Policy,
    PplHeader, Superblock,
};
use super::{Blocks, sample};

const SECTORS: u64 = 8192;

/// A member of 4 MiB, of which 2 MiB are data.
fn small(minor: Minor) -> Superblock {
    let mut superblock = sample();
    superblock.super_offset = minor.offset(SECTORS).expect("large enough");
    (superblock.data_offset, superblock.bad_block_log.offset) = match minor {
        Minor::V0 => (0, -8),
        _ => (4096, 16),
    };
    (superblock.size, superblock.data_size) = (4096, 4096);
    superblock
}

/// A member with this superblock alone, on each kind of device.
fn on_devices(superblock: &Superblock) -> [Box<dyn Disk>; 2] {
    let mut disks: [Box<dyn Disk>; 2] = [
        Box::new(vec![0u8; SECTORS as usize * 512]),
        Box::new(Blocks::new(SECTORS)),
    ];
    for disk in &mut disks {
        write_superblock(disk.as_mut(), superblock).expect("room");
    }
    disks
}

#[test]
fn a_superblock_is_found_at_each_of_its_places() {
    for minor in Minor::ALL {
        for mut disk in on_devices(&small(minor)) {
            let member = Member::read(disk.as_mut()).expect("a member");
            assert_eq!(member.superblock, small(minor));
            assert_eq!((member.bitmap, member.ppl), (None, None));
            assert_eq!(member.bad_blocks.map(|b| b.is_empty()), Ok(true));
        }
    }
}

#[test]
fn a_superblock_in_the_wrong_place_is_passed_by() {
    for minor in Minor::ALL {
        let mut disk = vec![0u8; SECTORS as usize * 512];
        let mut elsewhere = small(minor);
        elsewhere.super_offset = 4000;
        elsewhere.data_offset = 4096;
        let at = minor.offset(SECTORS).expect("large enough") * 512;
        write_span(&mut disk, at, &elsewhere.to_bytes()).expect("room");
        assert_eq!(Member::read(&mut disk), Err(MemberError::None));
        // Nor does it hide the right one.
        let other = if minor == Minor::V2 {
            Minor::V1
        } else {
            Minor::V2
        };
        write_superblock(&mut disk, &small(other)).expect("room");
        let member = Member::read(&mut disk).expect("a member");
        assert_eq!(member.superblock.minor(), other);
    }
}

#[test]
fn a_damaged_superblock_does_not_bring_up_an_older_one() {
    let mut disk = vec![0u8; SECTORS as usize * 512];
    write_superblock(&mut disk, &small(Minor::V0)).expect("room");
    write_superblock(&mut disk, &small(Minor::V2)).expect("room");
    disk[4096 + 200] ^= 1;
    assert!(matches!(
        Member::read(&mut disk),
        Err(MemberError::Superblock(SuperblockError::Checksum { .. }))
    ));
}

#[test]
fn a_device_that_was_made_smaller_is_refused() {
    for (minor, sectors) in [(Minor::V1, 8191), (Minor::V2, 8191)] {
        let mut disk = vec![0u8; SECTORS as usize * 512];
        write_superblock(&mut disk, &small(minor)).expect("room");
        disk.truncate(sectors * 512);
        assert!(matches!(
            Member::read(&mut disk),
            Err(MemberError::Placement(PlacementError::Outside { .. }))
        ));
    }
    assert_eq!(
        Member::read(&mut vec![0u8; 23 * 512]),
        Err(MemberError::None)
    );
    let mut long = small(Minor::V0);
    long.data_size = long.super_offset + 1;
    let mut disk = vec![0u8; SECTORS as usize * 512];
    write_superblock(&mut disk, &long).expect("room");
    assert!(Member::read(&mut disk).is_err());
}

#[test]
fn a_bitmap_is_found_where_it_was_written() {
    for (minor, offset) in [
        (Minor::V2, 8),
        (Minor::V2, 3),
        (Minor::V2, -8),
        (Minor::V0, -24),
        (Minor::V0, 2),
    ] {
        let mut superblock = small(minor);
        superblock.policy = Policy::Bitmap { offset };
        let header = BitmapHeader::new(&superblock, 4096, 0);
        let mut bits = Bitmap::new(superblock.size, 4096).expect("possible");
        bits.set(0);
        bits.set(511);
        for mut disk in on_devices(&superblock) {
            let disk = disk.as_mut();
            write_bitmap(disk, &superblock, &header, &bits).expect("room");
            let member = Member::read(disk).expect("a member");
            assert_eq!(member.superblock, superblock);
            let place = format!("Internal Bitmap : {offset} sectors");
            assert!(member.examine("disk").contains(&place));
            let stored = member.bitmap.expect("said").expect("whole");
            assert_eq!((&stored.header, &stored.bits), (&header, &bits));
            assert_eq!(stored.freshness, Freshness::Current);
            assert_eq!(stored.believed(), bits);

            let mut later = bits.clone();
            later.set(100);
            write_bitmap_page(disk, &superblock, &header, &later, 0).expect("room");
            superblock.events += 1;
            write_superblock(disk, &superblock).expect("room");
            let stored = Member::read(disk).expect("a member").bitmap;
            let stored = stored.expect("said").expect("whole");
            assert_eq!(stored.bits, later);
            assert_eq!(stored.freshness, Freshness::Stale);
            assert_eq!(stored.believed().count(), 512);
            superblock.events -= 1;
        }
    }
}

#[test]
fn a_bitmap_that_is_not_there_leaves_the_rest() {
    let mut superblock = small(Minor::V2);
    superblock.policy = Policy::Bitmap { offset: 8 };
    for mut disk in on_devices(&superblock) {
        let member = Member::read(disk.as_mut()).expect("a member");
        assert_eq!(
            member.bitmap,
            Some(Err(AreaError::Bitmap(BitmapError::Magic(0))))
        );
    }
}

#[test]
fn bad_blocks_count_only_if_the_superblock_says_so() {
    let mut superblock = small(Minor::V2);
    let mut bad = BadBlocks::for_log(&superblock.bad_block_log);
    bad.insert(5000..5008).expect("room");
    for mut disk in on_devices(&superblock) {
        let disk = disk.as_mut();
        write_bad_blocks(disk, &superblock, &bad).expect("room");
        let member = Member::read(disk).expect("a member");
        assert_eq!(member.bad_blocks.map(|b| b.is_empty()), Ok(true));
        superblock.features = Features::BAD_BLOCKS;
        write_superblock(disk, &superblock).expect("room");
        let member = Member::read(disk).expect("a member");
        assert_eq!(member.bad_blocks, Ok(bad.clone()));
        let without = Superblock {
            bad_block_log: BadBlockLog::default(),
            ..superblock.clone()
        };
        write_superblock(disk, &without).expect("room");
        assert!(Member::read(disk).expect("a member").bad_blocks.is_err());
        assert!(write_bad_blocks(disk, &without, &bad).is_err());
        superblock.features = Features(0);
    }
}

#[test]
fn an_empty_log_is_found_where_it_was_written() {
    let mut superblock = small(Minor::V2);
    superblock.bad_block_log = BadBlockLog::default();
    superblock.policy = Policy::Ppl {
        offset: 8,
        size: 2048,
        multiple: false,
    };
    for mut disk in on_devices(&superblock) {
        let disk = disk.as_mut();
        let member = Member::read(disk).expect("a member");
        assert_eq!(member.ppl, Some(Ok(None)));
        write_span(disk, 16 * 512, &[0xa5; 2048 * 512]).expect("room");
        write_empty_ppl(disk, &superblock).expect("room");
        let found = Member::read(disk).expect("a member").ppl;
        let found = found.expect("said").expect("readable").expect("whole");
        assert_eq!(found.at, 0);
        assert_eq!(found.header, PplHeader::empty(&superblock.set_uuid));
        let rest = read_span(disk, 24 * 512, 2040 * 512).expect("readable");
        assert!(rest.iter().all(|&b| b == 0));
        assert_eq!(
            read_span(disk, 2064 * 512, 512).expect("readable"),
            [0; 512]
        );
    }
}

#[test]
fn what_can_not_be_read_is_said() {
    let mut superblock = small(Minor::V2);
    superblock.policy = Policy::Bitmap { offset: 8 };
    superblock.features = Features::BAD_BLOCKS;
    let mut disk = Blocks::new(SECTORS);
    write_superblock(&mut disk, &superblock).expect("room");
    disk.broken = vec![2, 3];
    let member = Member::read(&mut disk).expect("a member");
    assert!(matches!(member.bitmap, Some(Err(AreaError::Disk(_)))));
    assert!(matches!(member.bad_blocks, Err(AreaError::Disk(_))));
    disk.broken = vec![1];
    assert!(matches!(
        member::find_superblock(&mut disk),
        Err(MemberError::Disk(DiskError::Failed { .. }))
    ));
}

#[test]
fn a_zeroed_device_is_no_member() {
    let mut disk = vec![0u8; SECTORS as usize * 512];
    for minor in Minor::ALL {
        write_superblock(&mut disk, &small(minor)).expect("room");
    }
    disk[200] ^= 1;
    disk[9000] = 0xa5;
    assert_eq!(zero_superblock(&mut disk), Ok(3));
    assert_eq!(Member::read(&mut disk), Err(MemberError::None));
    assert_eq!(zero_superblock(&mut disk), Ok(0));
    assert_eq!(disk[9000], 0xa5);
}

#[test]
fn a_file_is_a_device() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(SECTORS * 512).expect("room");
    let mut disk = FileDisk::open(file.path(), true).expect("opens");
    write_superblock(&mut disk, &small(Minor::V2)).expect("room");
    let mut disk = FileDisk::open(file.path(), false).expect("opens");
    let member = Member::read(&mut disk).expect("a member");
    assert_eq!(member.superblock, small(Minor::V2));
    assert_eq!(member.device_sectors, SECTORS);
    assert!(disk.write(0, &[0; 512]).is_err());
    assert!(matches!(
        disk.read(SECTORS * 512, &mut [0; 512]),
        Err(DiskError::Range { .. })
    ));
    assert!(read_span(&mut disk, u64::MAX, 512).is_err());
}
