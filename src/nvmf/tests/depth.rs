//! How deep a device's queue is seen to be.

use std::sync::Arc;
use std::time::Duration;

use super::commands::write;
use super::device::Puppet;
use super::host::Host;
use super::world::{NQN, Plan, World};

#[test]
fn what_hosts_have_under_way_is_the_queue_depth() {
    let mut world = World::bare(&Plan::default());
    let puppet = Puppet::new("p", 1024, |_| {});
    world.export(Arc::new(puppet.clone()));
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut queues = [1, 2].map(|qid| Host::io(&mut world, cntlid, qid));
    let second = Duration::from_secs(1);
    assert_eq!(world.target.queue_depth("p"), None);
    world
        .target
        .set_depth_period("p", second)
        .expect("exported");
    world.pass(2 * second);
    let idle = world.target.queue_depth("p").expect("looked at");
    assert_eq!((idle.depth, idle.busy), (0, Duration::ZERO));
    puppet.hold(true);
    for (queue, count) in queues.iter_mut().zip([3, 2]) {
        for n in 0..count {
            queue.submit(write(n, 1), &[1; 512]);
        }
    }
    world.settle();
    world.pass(10 * second);
    let busy = world.target.queue_depth("p").expect("looked at");
    assert_eq!((busy.depth, busy.period), (5, second));
    let looks = busy.busy.as_secs();
    assert!((9..=11).contains(&looks), "{looks}");
    // A look between the two reactors' notes may have seen one of them only.
    let weighted = busy.weighted.as_secs();
    assert!(
        (5 * looks - 5..=5 * looks).contains(&weighted),
        "{weighted}"
    );
    puppet.hold(false);
    world.pass(2 * second);
    assert_eq!(world.target.queue_depth("p").expect("looked at").depth, 0);
    world
        .target
        .set_depth_period("p", Duration::ZERO)
        .expect("exported");
    assert_eq!(world.target.queue_depth("p"), None);
    world
        .target
        .set_depth_period("p", second)
        .expect("exported");
    let removed = world.target.remove_namespace(&mut world.registry, NQN, 1);
    assert!(removed.is_ok(), "{removed:?}");
    assert_eq!(world.target.queue_depth("p"), None);
    let error = world.target.set_depth_period("p", second).unwrap_err();
    assert!(error.to_string().contains("not exported"), "{error}");
}
