//! What a message between cores costs: `rtrb`, which the mesh is made of, against
//! `crossbeam_queue::ArrayQueue`, the mesh on top of it, and a wake from sleep.
//!
//! `cargo bench --bench mesh`. Times are per message, but for `wake`, which is there and back.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;
use stripewise::reactor::{Events, ReactorId, Waker, mailbox, mesh};

/// About what a request to another shard is.
type Message = [u64; 8];

const CAPACITY: usize = 1024;

/// Messages that one turn sends.
const BATCH: usize = 32;

/// Cores for the two ends: the first two there are, or the same one twice.
fn two_cores() -> (CoreId, CoreId) {
    let cores = core_affinity::get_core_ids().expect("the cores of this machine");
    (cores[0], cores[1 % cores.len()])
}

/// Time that `messages` take from a thread on one core to the caller on another. `send` and
/// `receive` say how many messages they moved, of at most as many as they are told.
fn stream(
    messages: u64,
    mut send: impl FnMut(usize) -> usize + Send,
    mut receive: impl FnMut(usize) -> usize,
) -> Duration {
    let (near, far) = two_cores();
    core_affinity::set_for_current(near);
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            core_affinity::set_for_current(far);
            move_all(messages, &mut send);
        });
        move_all(messages, &mut receive);
    });
    begin.elapsed()
}

fn move_all(messages: u64, step: &mut impl FnMut(usize) -> usize) {
    let mut left = messages;
    while left > 0 {
        let moved = step(BATCH.min(left as usize));
        left -= moved as u64;
        if moved == 0 {
            spin_loop();
        }
    }
}

/// A batch in and the same batch out, on one core: the instructions, without the cache misses.
fn alone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("alone");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("rtrb", |b| {
        let (mut producer, mut consumer) = rtrb::RingBuffer::<Message>::new(CAPACITY);
        b.iter(|| {
            for n in 0..BATCH {
                let _ = producer.push([n as u64; 8]);
            }
            for message in consumer.read_chunk(BATCH).expect("a batch") {
                black_box(message);
            }
        });
    });
    group.bench_function("ArrayQueue", |b| {
        let queue = ArrayQueue::<Message>::new(CAPACITY);
        b.iter(|| {
            for n in 0..BATCH {
                let _ = queue.push([n as u64; 8]);
            }
            while let Some(message) = queue.pop() {
                black_box(message);
            }
        });
    });
    let events = Events::new().expect("an event set");
    group.bench_function("mesh", |b| {
        let mut port = mesh::<Message>(&[awake(&events)], CAPACITY).remove(0);
        b.iter(|| {
            for n in 0..BATCH {
                let _ = port.send(ReactorId(0), [n as u64; 8]);
            }
            port.flush();
            port.receive(BATCH, |_, message| {
                black_box(message);
            })
        });
    });
    group.bench_function("mailbox", |b| {
        let (sender, mut mailbox) = mailbox::<Message>(&awake(&events), CAPACITY);
        b.iter(|| {
            for n in 0..BATCH {
                let _ = sender.send([n as u64; 8]);
            }
            while let Some(message) = mailbox.receive() {
                black_box(message);
            }
        });
    });
    group.finish();
}

/// A waker whose sleeper has been called already, as a reactor that is awake.
fn awake(events: &Events) -> Waker {
    let waker = events.waker();
    waker.wake();
    waker
}

/// A stream of batches from one core to another.
fn across(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("across");
    group.throughput(Throughput::Elements(1));
    group.bench_function("rtrb", |b| {
        b.iter_custom(|messages| {
            let (mut producer, mut consumer) = rtrb::RingBuffer::<Message>::new(CAPACITY);
            stream(
                messages,
                move |most| {
                    let room = producer.slots().min(most);
                    for n in 0..room {
                        let _ = producer.push([n as u64; 8]);
                    }
                    room
                },
                |most| {
                    let ready = consumer.slots().min(most);
                    for message in consumer.read_chunk(ready).expect("as many as there are") {
                        black_box(message);
                    }
                    ready
                },
            )
        });
    });
    group.bench_function("ArrayQueue", |b| {
        b.iter_custom(|messages| {
            let queue = Arc::new(ArrayQueue::<Message>::new(CAPACITY));
            let sender = queue.clone();
            stream(
                messages,
                move |most| {
                    (0..most)
                        .take_while(|&n| sender.push([n as u64; 8]).is_ok())
                        .count()
                },
                |most| {
                    (0..most)
                        .take_while(|_| black_box(queue.pop()).is_some())
                        .count()
                },
            )
        });
    });
    let events = [(); 2].map(|()| Events::new().expect("an event set"));
    group.bench_function("mesh", |b| {
        b.iter_custom(|messages| {
            let wakers = [awake(&events[0]), awake(&events[1])];
            let mut ports = mesh::<Message>(&wakers, CAPACITY);
            let mut far = ports.remove(1);
            let mut near = ports.remove(0);
            stream(
                messages,
                move |most| {
                    let sent = (0..most)
                        .take_while(|&n| far.send(ReactorId(0), [n as u64; 8]).is_ok())
                        .count();
                    far.flush();
                    sent
                },
                |most| {
                    near.receive(most, |_, message| {
                        black_box(message);
                    })
                },
            )
        });
    });
    group.finish();
}

/// Two threads on two cores that do nothing but sleep and wake each other: what a reactor's quiet
/// time is to be weighed against.
fn wake(criterion: &mut Criterion) {
    criterion.bench_function("wake", |b| {
        b.iter_custom(|rounds| {
            let (near, far) = two_cores();
            core_affinity::set_for_current(near);
            let here = Events::new().expect("an event set");
            let (answer, mut answers) = mailbox::<()>(&here.waker(), 1);
            let (told, tell) = std::sync::mpsc::channel();
            thread::scope(|scope| {
                scope.spawn(move || {
                    core_affinity::set_for_current(far);
                    let there = Events::new().expect("an event set");
                    let (ask, mut asked) = mailbox::<()>(&there.waker(), 1);
                    told.send(ask).expect("the asking side");
                    let mut ready = Vec::new();
                    for _ in 0..rounds {
                        while asked.receive().is_none() {
                            there.wait(None, &mut ready).expect("events");
                        }
                        answer.send(()).expect("room for one");
                    }
                });
                let ask = tell.recv().expect("the answering side");
                let mut ready = Vec::new();
                let begin = Instant::now();
                for _ in 0..rounds {
                    ask.send(()).expect("room for one");
                    while answers.receive().is_none() {
                        here.wait(None, &mut ready).expect("events");
                    }
                }
                begin.elapsed()
            })
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = alone, across, wake
}
criterion_main!(benches);
