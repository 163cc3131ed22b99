//! What is said of members against what mdadm says of the same bytes.
//!
//! The files in `examine` are the output of mdadm 4.6 for the images that [`specimens`] makes, so they check
//! both what we write and what we say. To make them anew:
//!
//! ```sh
//! MD_SPECIMENS=/tmp/specimens cargo test --lib md::tests::report -- --ignored
//! cd /tmp/specimens
//! for i in *.img; do TZ=UTC mdadm --examine $i > ${i%.img}.txt; done
//! for i in *.bits; do mdadm --examine-bitmap $i > $i.txt; done   # mdadm 4.2: 4.6 wants a device
//! ```

use uuid::Uuid;

use super::super::create::{NewArray, NewDevice, NewPolicy, create};
use super::super::member::{write_bad_blocks, write_bitmap, write_superblock};
use super::super::placement::Area;
use super::super::superblock::{IN_SYNC, Minor};
use super::super::{BadBlocks, Features, Member, SetName, Time};

/// Images of members: one device of a new array each, with some changes.
fn specimens() -> Vec<(&'static str, Vec<u8>)> {
    let device = |number: u128| NewDevice {
        sectors: 131_072 + number as u64 * 1000,
        uuid: Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8880 + number),
    };
    let base = || {
        let mut array = NewArray::new(
            Uuid::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            SetName::new("elsewhere:home").expect("fits"),
            Time::from_seconds(1_700_000_000),
            (0..4).map(|number| Some(device(number))).collect(),
        );
        array.spares = vec![device(4)];
        array
    };
    let mut specimens = Vec::new();
    let mut add = |name, array: &NewArray, number: usize, change: fn(&mut Member)| {
        let created = create(array).expect("possible");
        let sectors = device(number as u128).sectors;
        let mut disk = vec![0; sectors as usize * 512];
        created.write(number, &mut disk).expect("room");
        let mut member = Member::read(&mut disk).expect("a member");
        change(&mut member);
        if let Some(Ok(stored)) = &member.bitmap {
            let superblock = &member.superblock;
            write_bitmap(&mut disk, superblock, &stored.header, &stored.bits).expect("room");
        }
        if let Ok(bad) = &member.bad_blocks
            && !bad.is_empty()
        {
            write_bad_blocks(&mut disk, &member.superblock, bad).expect("room");
        }
        write_superblock(&mut disk, &member.superblock).expect("room");
        specimens.push((name, disk));
    };

    add("new", &base(), 0, |_| ());
    add("spare", &base(), 4, |m| {
        m.superblock.events = 1_234_567_890_123
    });

    let mut array = base();
    array.policy = NewPolicy::Bitmap {
        chunk_bytes: Some(1 << 20),
    };
    array.layout = 0;
    add("bitmap", &array, 2, |m| {
        let sb = &mut m.superblock;
        sb.events = 42;
        sb.updated = Time::from_seconds(1_709_164_800);
        sb.resync_offset = IN_SYNC;
        sb.roles[1] = 0xfffe;
        sb.features = Features::RECOVERY_OFFSET.with(Features::RECOVERY_BITMAP);
        sb.recovery_offset = 2048;
        let Some(Ok(stored)) = &mut m.bitmap else {
            panic!("a bitmap");
        };
        stored.header.events = 42;
        stored.header.events_cleared = 40;
        stored.bits.clear_all();
        for bit in [0, 7, 8, 30] {
            stored.bits.set(bit);
        }
    });

    let mut array = base();
    array.policy = NewPolicy::Ppl;
    (array.minor, array.chunk, array.layout) = (Minor::V1, 128, 5);
    add("ppl", &array, 1, |m| {
        // As md has it in an array in use.
        (m.superblock.devflags, m.superblock.resync_offset) = (3, 0);
    });

    let mut array = base();
    array.minor = Minor::V0;
    array.policy = NewPolicy::Bitmap { chunk_bytes: None };
    array.size = Some(65536);
    array.slots[0] = None;
    add("at-end", &array, 3, |_| ());

    let mut array = base();
    array.assume_clean = true;
    array.name = SetName::new("n").expect("fits");
    add("bad-blocks", &array, 1, |m| {
        m.superblock.features = Features::BAD_BLOCKS;
        let mut bad = BadBlocks::for_log(&m.superblock.bad_block_log);
        bad.insert(10_000..10_600).expect("room");
        m.bad_blocks = Ok(bad);
    });
    array.bad_block_log = false;
    array.assume_clean = false;
    add("no-log", &array, 0, |m| {
        m.superblock.roles[2] = 1;
        m.superblock.roles[3] = 0xfffe;
        m.superblock.resync_offset = 4096;
    });
    specimens
}

#[test]
#[ignore = "writes the images for mdadm to the folder MD_SPECIMENS"]
fn write_specimens() {
    let folder = std::env::var_os("MD_SPECIMENS").expect("MD_SPECIMENS is a folder");
    let folder = std::path::PathBuf::from(folder);
    std::fs::create_dir_all(&folder).expect("can be made");
    for (name, image) in specimens() {
        let mut disk = image.clone();
        let member = Member::read(&mut disk).expect("a member");
        let bitmap = member.placement().expect("possible").area(Area::Bitmap);
        if let Some(sectors) = bitmap {
            let start = sectors.start as usize * 512;
            let bits = &image[start..start + 4096];
            std::fs::write(folder.join(format!("{name}.bits")), bits).expect("room");
        }
        std::fs::write(folder.join(format!("{name}.img")), image).expect("room");
    }
}

#[test]
fn members_are_described_as_mdadm_does() {
    let wanted = [
        ("new", include_str!("examine/new.txt")),
        ("spare", include_str!("examine/spare.txt")),
        ("bitmap", include_str!("examine/bitmap.txt")),
        ("ppl", include_str!("examine/ppl.txt")),
        ("at-end", include_str!("examine/at-end.txt")),
        ("bad-blocks", include_str!("examine/bad-blocks.txt")),
        ("no-log", include_str!("examine/no-log.txt")),
    ];
    let bits = [
        ("bitmap", include_str!("examine/bitmap.bits.txt")),
        ("at-end", include_str!("examine/at-end.bits.txt")),
    ];
    for ((name, mut image), (other, text)) in specimens().into_iter().zip(wanted) {
        assert_eq!(name, other);
        let member = Member::read(&mut image).expect("a member");
        assert_eq!(member.examine(&format!("{name}.img")), text);
        let said = member.examine_bitmap(&format!("{name}.bits"));
        let wanted = bits.iter().find(|(other, _)| *other == name);
        assert_eq!(said.as_deref(), wanted.map(|(_, text)| *text));
    }
}

#[test]
fn members_are_described_for_programs() {
    let images = specimens();
    let json = |wanted: &str| {
        let image = images.iter().find(|(name, _)| *name == wanted);
        let mut image = image.expect("one of this name").1.clone();
        Member::read(&mut image).expect("a member").to_json()
    };
    let bitmap = json("bitmap");
    assert_eq!(bitmap["version"], "1.2");
    assert_eq!(bitmap["array_uuid"], "01234567-89ab-cdef-0011-223344556677");
    assert_eq!(bitmap["policy"]["kind"], "bitmap");
    assert_eq!(bitmap["role"], 2);
    assert_eq!(bitmap["recovery_offset"], 2048);
    assert_eq!(bitmap["array_state"], "A.AA");
    assert_eq!(bitmap["bitmap"]["dirty"], 4);
    assert_eq!(bitmap["bitmap"]["stale"], false);
    assert_eq!(bitmap["supported"], true);
    let ppl = json("ppl");
    assert_eq!(ppl["policy"]["size"], 2048);
    assert_eq!(ppl["ppl"]["entries"], 0);
    assert_eq!(ppl["state"], "active");
    let bad = json("bad-blocks");
    assert_eq!(
        bad["bad_blocks"]["ranges"],
        serde_json::json!([[10_000, 600]])
    );
    assert_eq!(json("spare")["role"], "spare");
    assert_eq!(json("no-log")["resync_offset"], 4096);
}
