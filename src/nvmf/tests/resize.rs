//! A device that grows while hosts use it.

use std::cell::RefCell;
use std::rc::Rc;

use zerocopy::FromBytes;

use super::commands::{read, write};
use super::host::Host;
use super::world::{Plan, World};
use crate::bdev::{Bdev, Null};
use crate::nvme::admin::{AdminCommand, GetLogPage, Identify};
use crate::nvme::command::Command;
use crate::nvme::identify::{IdentifyNamespace, NamespaceList};
use crate::nvmf::Target;
use crate::reactor::{Poller, Turn};

const OUT_OF_RANGE: u16 = 0x080;

/// Blocks of namespace 1, as Identify tells them.
fn size(admin: &mut Host, world: &mut World) -> u64 {
    let identify = AdminCommand::Identify(Identify::default()).to_command(1);
    let answer = admin.fetch(world, identify, 4096);
    let told = IdentifyNamespace::read_from_bytes(&answer.data).expect("4096 bytes");
    told.nsze.get()
}

fn changed(admin: &mut Host, world: &mut World) -> Vec<u32> {
    let page = AdminCommand::GetLogPage(GetLogPage::new(0x04, 4096)).to_command(0);
    let answer = admin.fetch(world, page, 4096);
    let list = NamespaceList::read_from_bytes(&answer.data).expect("4096 bytes");
    list.iter().collect()
}

/// Set Features, Asynchronous Event Configuration: Namespace Attribute Notices.
fn notices() -> Command {
    Command {
        cdw10: 0x0b.into(),
        cdw11: 0x100.into(),
        ..Command::new(0x09, 0)
    }
}

/// Makes the device as large as `blocks`, as the control side does it.
fn grow(world: &mut World, device: &Null, blocks: u64) {
    let grown = device.resized(blocks).expect("a size");
    let info = grown.info().clone();
    world.registry.replace(grown).expect("it is there");
    Target::resize(&mut world.target, &info);
}

#[test]
fn hosts_are_told_of_a_namespace_that_grows_and_use_it_on_every_queue() {
    let mut world = World::bare(&Plan::default());
    let device = Null::new("n", 512, 8, None).expect("a device");
    world.export(device.clone());
    let (mut admin, cntlid) = Host::admin(&mut world);
    let mut queues = [1, 2, 3].map(|qid| Host::io(&mut world, cntlid, qid));
    assert_eq!(admin.run(&mut world, notices(), &[]).status().code(), 0);
    let event = admin.submit(Command::new(0x0c, 0), &[]);
    for queue in &mut queues {
        let beyond = queue.fetch(&mut world, read(8, 1), 512);
        assert_eq!(beyond.status().code(), OUT_OF_RANGE);
    }
    assert_eq!(size(&mut admin, &mut world), 8);
    // What is under way ends as if nothing had happened.
    let under_way = queues[0].submit(write(0, 1), &[7; 512]);
    grow(&mut world, &device, 16);
    let written = queues[0].finish(&mut world, under_way);
    assert_eq!(written.status().code(), 0);
    for queue in &mut queues {
        let last = queue.fetch(&mut world, read(15, 1), 512);
        assert_eq!(last.status().code(), 0);
        let beyond = queue.fetch(&mut world, read(16, 1), 512);
        assert_eq!(beyond.status().code(), OUT_OF_RANGE);
    }
    // A notice (2h) that namespaces have changed (00h): see page 04h.
    let told = admin.finish(&mut world, event);
    assert_eq!(told.completion.result64(), 0x0004_0002);
    assert_eq!(changed(&mut admin, &mut world), [1]);
    assert_eq!(size(&mut admin, &mut world), 16);
    // Who comes later sees it as it is.
    let mut late = Host::io(&mut world, cntlid, 4);
    assert_eq!(late.fetch(&mut world, read(15, 1), 512).status().code(), 0);
}

/// A host that is told may use the new blocks on any queue at once: so the slowest reactor comes first.
#[test]
fn a_host_is_told_when_every_reactor_knows() {
    for slow in [0, 1] {
        let mut world = World::bare(&Plan::default());
        let device = Null::new("n", 512, 8, None).expect("a device");
        world.export(device.clone());
        let (mut admin, cntlid) = Host::admin(&mut world);
        let mut queues = [1, 2].map(|qid| Host::io(&mut world, cntlid, qid));
        assert_eq!(admin.run(&mut world, notices(), &[]).status().code(), 0);
        let event = admin.submit(Command::new(0x0c, 0), &[]);
        assert!(admin.is_silent(&mut world));
        let admin = Rc::new(RefCell::new(admin));
        let (host, side) = (admin.clone(), world.side.clone());
        let mut turns = 0;
        world.target.meanwhile.0 = Some(Box::new(move || {
            let mut side = side.borrow_mut();
            let turn = Turn {
                now: side.now,
                ready: &[],
            };
            turns += 1;
            for (index, group) in side.groups.iter_mut().enumerate() {
                if index != slow || turns > 20 {
                    let _ = group.poll(&turn);
                }
            }
            if turns <= 20 {
                let told = host.borrow_mut().poll();
                assert!(told.is_none(), "without reactor {slow}: {told:?}");
            }
        }));
        grow(&mut world, &device, 16);
        let told = admin.borrow_mut().finish(&mut world, event);
        assert_eq!(told.completion.result64(), 0x0004_0002);
        for queue in &mut queues {
            let last = queue.fetch(&mut world, read(15, 1), 512);
            assert_eq!(last.status().code(), 0);
        }
    }
}

#[test]
fn the_size_of_another_device_is_nobody_elses_news() {
    let mut world = World::new();
    let (mut admin, _) = Host::admin(&mut world);
    let device = Null::new("n", 512, 8, None).expect("a device");
    world.registry.add(device.clone()).expect("a new name");
    grow(&mut world, &device, 16);
    assert!(changed(&mut admin, &mut world).is_empty());
}
