//! Controllers of this machine through VFIO. `scripts/guest/vfio` runs this in a guest whose
//! controllers may be overwritten.

use std::thread;
use std::time::{Duration, Instant};

use stripewise::bdev::nvme::pcie::vfio::Container;
use stripewise::bdev::nvme::pcie::{Controller, Options};
use stripewise::memory::{Arena, Pool, SegmentsMut};
use stripewise::reactor::{CoreMask, IdlePolicy, Poller, Progress, Reactors, Turn};

use super::conformance::{User, conforms};
use super::machine::{PATIENCE, only};
use super::{Channel, Completion, Data, Op, Request, Status};

/// Names the controllers, bound to vfio-pci, whose contents may be lost: PCI addresses.
const VARIABLE: &str = "STRIPEWISE_TEST_NVME";

/// Reads one block after the other.
struct Reader {
    channel: Box<dyn Channel>,
    pool: Pool,
    left: u64,
    done: Vec<Completion>,
}

impl Poller for Reader {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        if self.channel.in_flight() == 0 {
            if self.left == 0 {
                return Progress::Finished;
            }
            self.left -= 1;
            let mut buffer = self.pool.take().unwrap();
            buffer.truncate(4096);
            let request = Request {
                token: self.left,
                op: Op::Read,
                lba: self.left * 8,
                blocks: 8,
                data: Data::Read(SegmentsMut::from_iter([buffer])),
            };
            self.channel.submit(request).unwrap();
        }
        self.channel.kick();
        let worked = self.channel.poll(turn.now, &mut self.done);
        assert!(self.done.drain(..).all(|c| c.status == Status::Ok));
        match worked {
            true => Progress::Busy,
            false => Progress::Idle,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.channel.deadline()
    }
}

#[test]
#[ignore = "overwrites the controllers named in STRIPEWISE_TEST_NVME, which are bound to vfio-pci"]
fn controllers_of_this_machine_conform() {
    let addresses = std::env::var(VARIABLE).expect(VARIABLE);
    let arena = Arena::new(64 << 20).unwrap();
    let container = Container::new(std::slice::from_ref(&arena)).unwrap();
    let pool = Pool::new(&arena, 64 * 1024, 272).unwrap();
    let attach = |address: &str| {
        let access = container.open(address, &arena).unwrap();
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
    }

    // By interrupts: a reactor that sleeps whenever it can.
    for address in addresses.split_whitespace() {
        let access = container.open(address, &arena).unwrap();
        let options = Options {
            linger: Duration::ZERO,
            ..Options::new("Nvme0")
        };
        let controller = Controller::attach(access, options).unwrap();
        let (bdev, pool) = (only(&controller), pool.clone());
        let idle = IdlePolicy::Adaptive {
            quiet: Duration::ZERO,
        };
        let mask = CoreMask::of(CoreMask::available().unwrap().cores().take(1)).unwrap();
        let reactors = Reactors::spawn(&mask, idle, |_| {
            let (bdev, pool) = (bdev.clone(), pool.clone());
            move || Reader {
                channel: bdev.open().unwrap(),
                pool,
                left: 300,
                done: Vec::new(),
            }
        });
        let reactors = reactors.unwrap();
        let start = Instant::now();
        while reactors.next_exit().is_none() {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(1));
        }
        let sleeps = reactors.stats()[0].sleeps;
        println!(
            "{address}: 300 reads, {sleeps} sleeps, {:?}",
            start.elapsed()
        );
        assert!(sleeps > 0);
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
