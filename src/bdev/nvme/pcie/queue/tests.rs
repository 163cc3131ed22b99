//! Queue pairs against the scripted controller, and against a model of what is in flight.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::scripted::Scripted;
use super::super::shadow::ShadowPages;
use super::*;
use crate::memory::Pool;
use crate::nvme::opcode::IoOpcode;

/// A queue pair of `entries` entries that a controller knows, which holds all commands.
fn pair(entries: u16) -> (Arc<Scripted>, QueuePair) {
    let device = Scripted::new(64, 9);
    let memory = |bytes: usize| {
        let bytes = bytes.next_multiple_of(4096);
        DeviceMemory::new(Pool::new(&device.arena, bytes, 1).unwrap().take().unwrap())
    };
    let (submission, completion) = ring_bytes(entries);
    let queue = QueuePair::new(
        1,
        entries,
        Doorbells::of(1, 0),
        memory(submission),
        memory(completion),
    );
    let (submission, completion) = queue.addresses(&device.windows).unwrap();
    device.know(1, entries, submission, completion);
    device.start_dma();
    device.state().hold = true;
    (device, queue)
}

fn flush() -> Command {
    Command::new(IoOpcode::Flush.code(), 1).with_prps(0, 0)
}

fn reap(queue: &mut QueuePair, device: &Scripted) -> Result<Vec<u16>, QueueFault> {
    let mut done = Vec::new();
    queue.reap(device, &mut done)?;
    Ok(done.iter().map(|reaped| reaped.index).collect())
}

#[test]
fn one_doorbell_for_all_commands_and_one_for_half_a_ring_of_completions() {
    let (device, mut queue) = pair(8);
    queue.ring(&*device);
    for _ in 0..3 {
        queue.push(flush());
    }
    assert!(
        device.state().held.is_empty(),
        "nothing before the doorbell"
    );
    queue.ring(&*device);
    queue.ring(&*device);
    assert_eq!(device.state().doorbells, [(0x1008, 3)]);
    assert!(reap(&mut queue, &device).unwrap().is_empty());
    for _ in 0..3 {
        device.release(0);
    }
    assert_eq!(reap(&mut queue, &device).unwrap().len(), 3);
    assert!(reap(&mut queue, &device).unwrap().is_empty());
    assert_eq!(device.state().doorbells, [(0x1008, 3)]);
    queue.push(flush());
    queue.ring(&*device);
    device.release(0);
    assert_eq!(reap(&mut queue, &device).unwrap().len(), 1);
    assert_eq!(device.state().doorbells[1..], [(0x1008, 4), (0x100c, 4)]);
}

#[test]
fn completions_have_their_places_before_commands_are_sent() {
    let (device, mut queue) = pair(8);
    for _ in 0..3 {
        queue.push(flush());
    }
    queue.ring(&*device);
    for _ in 0..3 {
        device.release(0);
    }
    reap(&mut queue, &device).unwrap();
    // Three places that the device does not know to be free, and seven commands: of eight places one stays empty.
    for _ in 0..7 {
        queue.push(flush());
    }
    device.state().doorbells.clear();
    queue.ring(&*device);
    assert_eq!(device.state().doorbells, [(0x100c, 3), (0x1008, 2)]);
    for _ in 0..7 {
        device.release(0);
    }
    assert_eq!(reap(&mut queue, &device).unwrap().len(), 7);
}

#[test]
fn doorbells_in_memory_are_rung_only_for_a_device_that_does_not_look() {
    let (device, mut queue) = pair(8);
    let pages = ShadowPages::new(&device.arena, &device.windows).unwrap();
    queue.shadow_with(pages.of(1).unwrap());
    let mut tails = Vec::new();
    for _ in 0..3 {
        queue.push(flush());
        queue.ring(&*device);
        tails.push(device.state().doorbells.len());
    }
    // It has seen nothing yet (0), so the first one wakes it, and no other.
    assert_eq!(tails, [1, 1, 1]);
    assert_eq!(device.state().doorbells, [(0x1008, 1)]);
    // Emptied rings begin at 0 again, on both sides.
    queue.reset();
    queue.push(flush());
    queue.ring(&*device);
    assert_eq!(device.state().doorbells.len(), 2);
}

#[test]
fn a_full_queue_holds_one_less_than_its_entries() {
    let (device, mut queue) = pair(4);
    let mut pushed = 0;
    while queue.has_room() {
        queue.push(flush());
        pushed += 1;
    }
    assert_eq!((pushed, queue.in_flight(), queue.capacity()), (3, 3, 3));
    queue.ring(&*device);
    assert!(!queue.has_room(), "taken, but not completed");
    device.release(1);
    reap(&mut queue, &device).unwrap();
    assert!(queue.has_room());
}

#[test]
fn a_device_that_takes_nothing_more_keeps_the_ring_full() {
    // It completes a command, but says that it has taken no entry since.
    let (device, mut queue) = pair(4);
    for _ in 0..3 {
        queue.push(flush());
    }
    queue.ring(&*device);
    let cid = device.state().held[0].1.cid.get();
    let mut completion = Completion::new(cid, Status::SUCCESS).with_sqhd(0);
    completion.sqid = 1.into();
    device.post(1, completion);
    assert_eq!(reap(&mut queue, &device).unwrap().len(), 1);
    assert!(!queue.has_room(), "the entry may still be read");
}

#[test]
fn a_poll_takes_a_bounded_number() {
    let (device, mut queue) = pair(256);
    device.state().hold = false;
    for _ in 0..255 {
        queue.push(flush());
    }
    queue.ring(&*device);
    assert_eq!(reap(&mut queue, &device).unwrap().len(), BATCH);
    assert_eq!(queue.in_flight(), 255 - BATCH);
}

#[test]
fn a_second_completion_of_a_command_is_found_out() {
    let (device, mut queue) = pair(8);
    queue.push(flush());
    queue.ring(&*device);
    let cid = device.state().held[0].1.cid.get();
    device.release(0);
    assert_eq!(reap(&mut queue, &device).unwrap().len(), 1);
    // Its index is in use again, so only the count of uses tells them apart.
    let again = queue.push(flush());
    queue.ring(&*device);
    assert_eq!(again, cid & (MAX_ENTRIES - 1));
    let mut completion = Completion::new(cid, Status::SUCCESS).with_sqhd(2);
    completion.sqid = 1.into();
    device.post(1, completion);
    let fault = QueueFault::Unknown { queue: 1, cid };
    assert_eq!(reap(&mut queue, &device), Err(fault));
    assert_eq!(queue.in_flight(), 1);
    // Nothing is believed any more, until the rings are made anew.
    device.release(0);
    assert_eq!(reap(&mut queue, &device), Err(fault));
    queue.reset();
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn lies_are_found_out() {
    for (cid, sqid, head, what) in [
        (0x0003, 1, 1, "command 0x0003, which is not in flight"),
        (0xffff, 1, 1, "command 0xffff, which is not in flight"),
        (0x0400, 1, 1, "command 0x0400, which is not in flight"),
        (0x0000, 2, 1, "completion for queue 2"),
        (0x0000, 1, 8, "head 8, which is not in the ring"),
        (0x0000, 1, 2, "head 2, which is not in the ring"),
    ] {
        let (device, mut queue) = pair(8);
        queue.push(flush());
        queue.ring(&*device);
        assert_eq!(device.state().held[0].1.cid.get(), 0);
        let mut completion = Completion::new(cid, Status::SUCCESS).with_sqhd(head);
        completion.sqid = sqid.into();
        device.post(1, completion);
        let fault = reap(&mut queue, &device).unwrap_err().to_string();
        assert!(fault.contains(what), "{fault}");
        assert_eq!(queue.in_flight(), 1);
    }
}

#[test]
fn what_was_in_flight_before_a_reset_is_not_known_after_it() {
    let (device, mut queue) = pair(8);
    queue.push(flush());
    queue.ring(&*device);
    let cid = device.state().held.remove(0).1.cid.get();
    queue.reset();
    let (submission, completion) = queue.addresses(&device.windows).unwrap();
    device.know(1, 8, submission, completion);
    queue.push(flush());
    queue.ring(&*device);
    let mut completion = Completion::new(cid, Status::SUCCESS).with_sqhd(1);
    completion.sqid = 1.into();
    device.post(1, completion);
    assert!(reap(&mut queue, &device).is_err());
}

proptest! {
    /// Commands come back exactly once, in whatever order they are completed, over many turns of
    /// the rings, with the status and result that they were given; and never more are in flight
    /// than the ring takes.
    #[test]
    fn every_command_completes_once(
        entries in 2u16..12,
        steps in prop::collection::vec((0u8..4, any::<u16>()), 1..300),
    ) {
        let (device, mut queue) = pair(entries);
        // Index of each command in flight: what its namespace identifier was, and, once the device
        // has completed it, that it was.
        let mut model: HashMap<u16, (u32, bool)> = HashMap::new();
        let mut tokens = 1;
        for (step, pick) in steps {
            match step {
                0 | 1 => {
                    prop_assert_eq!(queue.in_flight(), model.len());
                    if queue.has_room() {
                        prop_assert!(model.len() < usize::from(entries) - 1);
                        tokens += 1;
                        let mut command = flush();
                        command.nsid = tokens.into();
                        let expected = queue.next_index();
                        let index = queue.push(command);
                        prop_assert_eq!(index, expected);
                        prop_assert!(model.insert(index, (tokens, false)).is_none());
                    } else {
                        // Every entry is either in flight or not known to be taken.
                        prop_assert!(!model.is_empty());
                    }
                    if step == 1 {
                        queue.ring(&*device);
                    }
                }
                2 => {
                    let held = device.state().held.len();
                    if held > 0 {
                        let (_, command) = device.state().held.remove(usize::from(pick) % held);
                        let cid = command.cid.get();
                        let (token, completed) = model.get_mut(&(cid & 1023)).expect("in flight");
                        prop_assert_eq!(*token, command.nsid.get());
                        prop_assert!(!std::mem::replace(completed, true));
                        let mut completion = Completion::new(cid, Status::INTERNAL_ERROR)
                            .with_result(*token)
                            .with_sqhd(device.taken(1));
                        completion.sqid = 1.into();
                        device.post(1, completion);
                    }
                }
                _ => {
                    let mut done = Vec::new();
                    queue.reap(&*device, &mut done).unwrap();
                    for reaped in done {
                        let was = model.remove(&reaped.index);
                        prop_assert_eq!(was, Some((reaped.result, true)));
                        prop_assert_eq!(reaped.status, Status::INTERNAL_ERROR);
                    }
                    prop_assert!(!model.values().any(|&(_, completed)| completed));
                }
            }
        }
    }
}
