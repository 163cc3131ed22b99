//! Controllers of this machine through VFIO. `scripts/guest/vfio` runs this in a guest whose
//! controllers may be overwritten.

use std::thread;
use std::time::Duration;

use stripewise::bdev::nvme::pcie::vfio::{Container, IovaMode};
use stripewise::bdev::nvme::pcie::{Controller, Options};
#[cfg(feature = "dpdk")]
use stripewise::memory::dpdk;
use stripewise::memory::{Arena, Pool};

use super::Status;
use super::conformance::{User, conforms};
use super::interrupts::wake_reactors;
use super::machine::only;

/// Names the controllers, bound to vfio-pci, whose contents may be lost: PCI addresses.
const VARIABLE: &str = "STRIPEWISE_TEST_NVME";

/// Bytes of memory.
const BYTES: usize = 64 << 20;

#[test]
#[ignore = "overwrites the controllers named in STRIPEWISE_TEST_NVME, which are bound to vfio-pci"]
fn controllers_of_this_machine_conform() {
    conform(&Arena::new(BYTES).unwrap(), IovaMode::Va);
}

#[cfg(feature = "dpdk")]
#[test]
#[ignore = "overwrites the controllers named in STRIPEWISE_TEST_NVME, which are bound to vfio-pci"]
fn controllers_of_this_machine_conform_on_memory_of_dpdk() {
    let environment = dpdk::Environment::start(dpdk::Pages::Huge).unwrap();
    conform(&environment.arena(BYTES).unwrap(), IovaMode::Va);
}

#[test]
#[ignore = "overwrites the controllers named in STRIPEWISE_TEST_NVME, which are bound to vfio-pci without an IOMMU"]
fn controllers_of_this_machine_conform_without_an_iommu() {
    conform(&Arena::new(BYTES).unwrap(), IovaMode::Pa);
}

fn conform(arena: &Arena, mode: IovaMode) {
    let addresses = std::env::var(VARIABLE).expect(VARIABLE);
    let container = Container::new(std::slice::from_ref(arena), mode).unwrap();
    let pool = Pool::new(arena, 64 * 1024, 272).unwrap();
    let attach = |address: &str| {
        let access = container.open(address, arena).unwrap();
        Controller::attach(access, Options::new("Nvme0")).unwrap()
    };
    for address in addresses.split_whitespace() {
        let controller = attach(address);
        println!("{address}: {:?}", controller.identity());
        println!("{:?} kelvin", controller.health().unwrap().temperature);
        conforms(only(&controller), &pool);
        controller.reset().unwrap();
        conforms(only(&controller), &pool);
        controller.detach();

        let access = container.open(address, arena).unwrap();
        let options = Options {
            linger: Duration::ZERO,
            nap: Duration::from_secs(1),
            ..Options::new("Nvme0")
        };
        let controller = Controller::attach(access, options).unwrap();
        wake_reactors(&controller, &pool);
        controller.detach();
    }

    // All at once, after each has been given back and taken again.
    let controllers: Vec<Controller> = addresses.split_whitespace().map(attach).collect();
    thread::scope(|scope| {
        for controller in &controllers {
            let (bdev, pool) = (only(controller), pool.clone());
            scope.spawn(move || {
                let mut user = User::new(&*bdev, &pool);
                for lba in 0..500 {
                    let bytes = [lba as u8; 4096];
                    assert_eq!(user.write(lba, &bytes), Status::Ok);
                    assert_eq!(user.read(lba, 8).unwrap(), bytes);
                }
            });
        }
    });
}
