//! Devices that are kept open, and the end of poll groups.

use std::time::{Duration, Instant};

use super::world::{NQN, Plan, World};
use crate::bdev::{Bdev, Null};
use crate::nvmf::NamespaceOptions;
use crate::reactor::{Poller, Progress, Turn};

/// The devices that are open on every group.
fn open(world: &mut World) -> Vec<String> {
    let stats = world.target.stats();
    assert_eq!(stats.len(), 2, "both groups answer");
    let names = |n: usize| -> Vec<String> {
        let devices = stats[n].devices.iter();
        devices.map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(0), names(1));
    names(0)
}

#[test]
fn a_kept_device_stays_open_whether_exported_or_not() {
    let mut world = World::bare(&Plan::default());
    let bdev = Null::new("n0", 512, 8, None).expect("a device");
    world.registry.add(bdev.clone()).expect("a new name");
    assert!(open(&mut world).is_empty());
    let kept = world.target.keep_open(&mut world.registry, bdev.clone());
    kept.expect("it opens");
    assert_eq!(open(&mut world), ["n0"]);
    for _ in 0..2 {
        let options = NamespaceOptions {
            bdev_name: bdev.info().name.clone(),
            ..NamespaceOptions::default()
        };
        let added = world
            .target
            .add_namespace(&mut world.registry, NQN, options);
        let nsid = added.expect("a namespace");
        assert_eq!(open(&mut world), ["n0"]);
        let removed = world
            .target
            .remove_namespace(&mut world.registry, NQN, nsid);
        removed.expect("it goes");
        assert_eq!(open(&mut world), ["n0"]);
        assert_eq!(world.registry.claim_of("n0"), None);
    }
    let closed = world.target.let_close(&mut world.registry, "n0");
    closed.expect("it closes");
    assert!(open(&mut world).is_empty());
    let closed = world.target.let_close(&mut world.registry, "n0");
    closed.expect("what is not open is not closed");
}

#[test]
fn groups_finish_once_the_target_lets_them() {
    let mut world = World::new();
    let _host = world.dial();
    assert!(world.target.stop(Instant::now() + Duration::from_secs(20)));
    let finished = |world: &World| -> Vec<bool> {
        let mut side = world.side.borrow_mut();
        let turn = Turn {
            now: side.now,
            ready: &[],
        };
        let groups = side.groups.iter_mut();
        groups
            .map(|group| group.poll(&turn) == Progress::Finished)
            .collect()
    };
    // Hosts are gone, but devices may have something to do yet.
    assert!(!finished(&world).contains(&true));
    assert!(world.target.finish());
    assert!(!finished(&world).contains(&false));
}
