//! An array over four controllers, of which some are pulled out under load.

use std::collections::HashMap;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stripewise::bdev::nvme::pcie::{Controller, Options};
use stripewise::memory::{Arena, Pool, Segments, SegmentsMut};
use stripewise::raid::{Volume, VolumeConfig};
use stripewise::reactor::{CoreMask, IdlePolicy, Poller, Progress, Reactors, Turn};

use super::conformance::Dice;
use super::machine::{Drive, Machine, PATIENCE, only};
use super::{Bdev, Channel, Completion, Data, Op, Request, Status};

/// Bytes of a chunk, and of the part of the array that is written.
const CHUNK: u32 = 64 * 1024;
const USED: u64 = 2 << 20;

/// Blocks of 4 KiB of that part, the unit of the load.
const PLACES: u64 = USED / 4096;

/// Requests at a time.
const DEPTH: u64 = 32;

/// A host that writes and reads at random and knows what each place must hold.
struct Load {
    volume: Arc<Volume>,
    channel: Option<Box<dyn Channel>>,
    pool: Pool,
    dice: Dice,
    /// The number of the last write of each place.
    places: Vec<u64>,
    /// By token: the place, and the number that is written or must be read.
    running: HashMap<u64, (u64, u64)>,
    next: u64,
    ended: Sender<u64>,
    stop: Arc<Mutex<bool>>,
    done: Vec<Completion>,
}

impl Load {
    fn submit(&mut self) {
        let token = self.next;
        let place = self.dice.below(PLACES);
        if self.running.values().any(|&(other, _)| other == place) {
            return;
        }
        self.next += 1;
        let mut buffer = self.pool.take().expect("one for each request");
        let (op, data) = if self.dice.below(2) == 0 {
            self.places[place as usize] = token;
            for word in buffer.chunks_mut(8) {
                word.copy_from_slice(&token.to_le_bytes());
            }
            let data = Data::Write(Segments::from_iter([buffer.freeze()]));
            (Op::Write { fua: false }, data)
        } else {
            (Op::Read, Data::Read(SegmentsMut::from_iter([buffer])))
        };
        self.running
            .insert(token, (place, self.places[place as usize]));
        let (lba, blocks) = (place * 8, 8);
        let request = Request {
            token,
            op,
            lba,
            blocks,
            data,
        };
        let channel = self.channel.as_mut().expect("opened in the first turn");
        channel.submit(request).expect("few requests");
    }

    fn check(&mut self, completion: &Completion) {
        assert_eq!(completion.status, Status::Ok);
        let (place, number) = self
            .running
            .remove(&completion.token)
            .expect("completes once");
        if let Data::Read(read) = &completion.data {
            for word in read.iter().flat_map(|buffer| buffer.chunks(8)) {
                assert_eq!(word, number.to_le_bytes(), "place {place}");
            }
        }
    }
}

impl Poller for Load {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        if self.channel.is_none() {
            self.channel = Some(self.volume.open().unwrap());
        }
        let stop = *self.stop.lock().unwrap();
        if !stop && (self.running.len() as u64) < DEPTH {
            self.submit();
        }
        let channel = self.channel.as_mut().expect("opened above");
        channel.kick();
        let mut done = std::mem::take(&mut self.done);
        channel.poll(turn.now, &mut done);
        for completion in done.drain(..) {
            self.check(&completion);
        }
        self.done = done;
        let _ = self.ended.send(self.next);
        match stop && self.running.is_empty() {
            true => Progress::Finished,
            false => Progress::Busy,
        }
    }
}

#[test]
fn an_array_survives_controllers_that_are_pulled_out_and_is_rebuilt_onto_another() {
    let mut machine = Machine::start(&vec![Drive::default(); 5]);
    let controllers: Vec<Controller> = (0..5)
        .map(|index| {
            let options = Options {
                queues: 2,
                ..Options::new(&format!("Nvme{index}"))
            };
            machine.attach(index, options)
        })
        .collect();
    let first = core_affinity::get_core_ids().expect("cores")[0].id;
    let cores: CoreMask = format!("[{first}]").parse().unwrap();
    let setup = Reactors::prepare(&cores, IdlePolicy::Busy).unwrap();
    let members = controllers[..4].iter().map(|c| Some(only(c))).collect();
    let config = VolumeConfig {
        stripes: 256,
        ..VolumeConfig::new("v", CHUNK)
    };
    let arena: &Arena = &machine.arena;
    let volume = Volume::new(config, members, None, setup.wakers(), arena).unwrap();
    let stop = Arc::new(Mutex::new(false));
    let (ended, turns) = mpsc::channel();
    let reactors = setup
        .start(|_| {
            let (volume, ended, stop) = (volume.clone(), ended.clone(), stop.clone());
            let pool = Pool::new(arena, 4096, DEPTH as usize).unwrap();
            move || Load {
                volume,
                channel: None,
                pool,
                dice: Dice::new(7),
                places: vec![0; PLACES as usize],
                running: HashMap::new(),
                next: 1,
                ended,
                stop,
                done: Vec::new(),
            }
        })
        .unwrap();
    drop(ended);
    // So much load, of which each place gets a part.
    let mut seen = 0;
    let mut load = |count: u64| {
        let until = seen + count;
        while seen < until {
            seen = turns.recv_timeout(PATIENCE).expect("the load goes on");
        }
    };
    let in_sync = || {
        let slots = volume.status().slots;
        slots.iter().filter(|slot| slot.in_sync).count()
    };
    let wait_for = |what: &str, count| {
        let start = Instant::now();
        while in_sync() != count {
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}", volume.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    };

    load(4 * PLACES);
    assert_eq!(in_sync(), 4);
    machine.unplug(2);
    load(2 * PLACES);
    wait_for("a member is missed", 3);
    let ticket = volume.add_member(only(&controllers[4]), None).unwrap();
    ticket.wait(PATIENCE).unwrap();
    load(PLACES);
    wait_for("the new one is rebuilt", 4);
    // Now all that is on it counts.
    machine.unplug(0);
    load(4 * PLACES);
    wait_for("another member is missed", 3);
    *stop.lock().unwrap() = true;
    reactors.join().unwrap();
    let failed: Vec<bool> = controllers.iter().map(|c| c.failure().is_some()).collect();
    assert_eq!(failed, [true, false, true, false, false]);
}
