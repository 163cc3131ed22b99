//! The links, the budget and the board themselves, driven by loom through every interleaving of
//! two or three owners. `loom_r1_…` and so on are the interleavings of `docs/batching.md`; each is
//! seen to fail by `scripts/mutations`, which puts md's defect into our code.
//!
//! A run stands for its bytes: its body is the number of its first stripe, so that what is written
//! twice, or never, is seen by counting.

use loom::sync::Arc;
use loom::thread;

use super::board::Board;
use super::crossing::Links;
use super::*;

/// Three links of three owners, for runs that follow one another. Their names are not in the order
/// of the stripes: owners take turns.
const A: LinkId = LinkId { shard: 1, index: 0 };
const B: LinkId = LinkId { shard: 2, index: 0 };
const C: LinkId = LinkId { shard: 0, index: 0 };

/// More stripes than any of these batches has.
const LIMIT: u32 = 64;

fn links() -> Arc<Links<u32>> {
    Arc::new(Links::new(&[1, 1, 1], 1, 1))
}

/// A run of one stripe.
fn run(first: u64) -> Offer<u32> {
    Offer {
        epoch: 1,
        first,
        stripes: 1,
        op: BatchOp::Write,
        needs: Needs::default(),
        more: false,
        body: first as u32,
    }
}

fn with(first: u64, needs: Needs) -> Offer<u32> {
    Offer {
        needs,
        ..run(first)
    }
}

/// A and B offered, as the stripes 0 and 1.
fn offered() -> Arc<Links<u32>> {
    let links = links();
    links.offer(A, run(0));
    links.offer(B, run(1));
    links
}

/// A and B offered, and B joined to A.
fn joined() -> Arc<Links<u32>> {
    let links = offered();
    links.join(A, B, LIMIT, Mine::Earlier).unwrap();
    links
}

/// What the owner of a link that is closed writes: the bodies, its own first. They follow one
/// another without a gap (I14).
fn written(closed: &Closed<u32>) -> Vec<u32> {
    let bodies: Vec<u32> = match closed {
        Closed::Alone(body) => vec![*body],
        Closed::Head {
            body, followers, ..
        } => {
            let theirs = followers.iter().map(|follower| {
                assert_eq!(u64::from(follower.body), follower.first);
                follower.body
            });
            std::iter::once(*body).chain(theirs).collect()
        }
        Closed::Away => vec![],
    };
    assert!(bodies.windows(2).all(|w| w[0] + 1 == w[1]), "{bodies:?}");
    bodies
}

/// The owners of the followers take them home.
fn home(links: &Links<u32>, head: LinkId, closed: Closed<u32>) {
    if let Closed::Head { followers, .. } = closed {
        for follower in followers {
            assert!(links.release(follower.link, head.shard, follower.generation));
        }
    }
}

/// md's race of June 2026: the owner of a stripe finds that it is nobody's follower and charges
/// it, while a neighbour makes it one. I4, the strong half.
#[test]
fn loom_r1_a_follower_is_never_charged() {
    loom::model(|| {
        let links = offered();
        let owner = thread::spawn({
            let links = links.clone();
            move || links.charge(B)
        });
        links.join(A, B, LIMIT, Mine::Earlier).unwrap();
        let charge = owner.join().unwrap();
        assert_ne!(charge, Charge::Full, "nobody else asked");
        let look = links.link(B).look();
        assert_eq!(look.follower_of, Some(A));
        assert!(!look.charged, "{charge:?}");
    });
}

/// The same, from the charge to the end of the batch: I4, the weak half. A charge that was lost
/// on the way would be missing for ever.
#[test]
fn loom_r1_weak_the_budget_is_the_number_of_charged_links() {
    loom::model(|| {
        let links = offered();
        let owner = thread::spawn({
            let links = links.clone();
            move || links.charge(B)
        });
        links.join(A, B, LIMIT, Mine::Earlier).unwrap();
        let closed = links.close(A);
        links.finish(A);
        owner.join().unwrap();
        home(&links, A, closed);
        let charged = links.link(B).look().charged;
        assert_eq!(
            links.preread_active(usize::from(B.shard)),
            u32::from(charged)
        );
    });
}

/// I4: never more charges than there are, and one that a join gives back is there for the next.
#[test]
fn loom_the_budget_is_never_exceeded_and_nothing_of_it_is_lost() {
    loom::model(|| {
        const OTHER: LinkId = LinkId { shard: 2, index: 1 };
        let links = Arc::new(Links::new(&[1, 1, 2], 1, 1));
        links.offer(A, run(0));
        links.offer(B, run(1));
        assert_eq!(links.charge(B), Charge::Held);
        assert_eq!(links.charge(B), Charge::Held, "once is enough");
        assert_eq!(links.preread_active(2), 1);
        let neighbour = thread::spawn({
            let links = links.clone();
            move || links.join(A, B, LIMIT, Mine::Earlier).unwrap()
        });
        let charge = links.charge(OTHER);
        neighbour.join().unwrap();
        assert_ne!(charge, Charge::Follower);
        let held = u32::from(charge == Charge::Held);
        assert_eq!(links.preread_active(2), held);
        assert_eq!(links.charge(OTHER), Charge::Held);
        links.discharge(OTHER);
        links.discharge(OTHER);
        assert_eq!(links.preread_active(2), 0);
    });
}

/// Membership is atomic (I1): the owner of the later run, closing it while it is joined, either
/// keeps it or gives it away whole. And I7: each body is written once.
#[test]
fn loom_r2_a_run_is_written_once_and_by_one_owner() {
    loom::model(|| {
        let links = offered();
        let later = thread::spawn({
            let links = links.clone();
            move || {
                let closed = links.close(B);
                if !matches!(closed, Closed::Away) {
                    links.finish(B);
                }
                closed
            }
        });
        let joined = links.join(A, B, LIMIT, Mine::Earlier);
        let ours = links.close(A);
        links.finish(A);
        let theirs = later.join().unwrap();
        assert_eq!(joined.is_ok(), matches!(ours, Closed::Head { .. }));
        assert_eq!(joined.is_ok(), matches!(theirs, Closed::Away));
        let mut all = written(&ours);
        all.extend(written(&theirs));
        assert_eq!(all, [0, 1]);
    });
}

/// I2: a follower is none of its owner's business from the join until it comes home, however often
/// it is handled, and whatever its head does meanwhile.
#[test]
fn loom_r3_a_follower_that_is_handled_again_stays_away() {
    loom::model(|| {
        let links = joined();
        let owner = thread::spawn({
            let links = links.clone();
            move || {
                for _ in 0..2 {
                    assert!(matches!(links.close(B), Closed::Away));
                }
            }
        });
        let closed = links.close(A);
        links.finish(A);
        owner.join().unwrap();
        assert!(matches!(links.close(B), Closed::Away));
        assert_eq!(written(&closed), [0, 1]);
        home(&links, A, closed);
        assert!(links.at_rest(B));
    });
}

/// I3: nobody ever sees a follower that is being handled.
#[test]
fn loom_r4_a_follower_is_never_seen_handled() {
    loom::model(|| {
        let links = joined();
        let owner = thread::spawn({
            let links = links.clone();
            move || assert!(matches!(links.close(B), Closed::Away))
        });
        for _ in 0..2 {
            let look = links.link(B).look();
            assert!(look.follower_of.is_none() || !look.handled, "{look:?}");
        }
        owner.join().unwrap();
    });
}

/// I12: neither a head, nor a run that is written alone, nor one that is charged may be used for
/// another stripe.
#[test]
fn loom_r5_a_link_is_not_at_rest_until_it_is_written() {
    loom::model(|| {
        let links = offered();
        assert!(!links.at_rest(A), "it is open");
        let later = thread::spawn({
            let links = links.clone();
            move || links.join(A, B, LIMIT, Mine::Later).is_ok()
        });
        let closed = links.close(A);
        assert!(!links.at_rest(A), "{closed:?}");
        links.finish(A);
        assert!(links.at_rest(A));
        assert_eq!(links.charge(A), Charge::Held);
        assert!(!links.at_rest(A), "it holds a charge");
        links.discharge(A);
        assert!(links.at_rest(A));
        later.join().unwrap();
        assert!(!links.at_rest(B), "open, or away");
    });
}

/// A batch of A and B that C joins while it closes: each needs what any of those that are in needs.
fn needs_are_a_union(of: [Needs; 3], look: fn(Needs) -> u64) {
    loom::model(move || {
        let links = links();
        links.offer(A, with(0, of[0]));
        links.offer(B, with(1, of[1]));
        links.offer(C, with(2, of[2]));
        links.join(A, B, LIMIT, Mine::Earlier).unwrap();
        let last = thread::spawn({
            let links = links.clone();
            move || links.join(A, C, LIMIT, Mine::Later).is_ok()
        });
        let Closed::Head {
            needs, followers, ..
        } = links.close(A)
        else {
            panic!("B has joined");
        };
        last.join().unwrap();
        let most = of[..=followers.len()].iter().map(|n| look(*n)).max();
        assert_eq!(Some(look(needs)), most);
    });
}

/// I11: a batch may be written when the latest of its write-intent records is durable.
#[test]
fn loom_r8_a_batch_needs_the_latest_intent_of_its_runs() {
    let intent = |intent| Needs { fua: false, intent };
    needs_are_a_union([3, 5, 4].map(intent), |needs| needs.intent);
    needs_are_a_union([3, 4, 5].map(intent), |needs| needs.intent);
    needs_are_a_union([5, 3, 4].map(intent), |needs| needs.intent);
}

/// I19: what one host wants forced to the medium is forced, whoever writes it.
#[test]
fn loom_r16_a_batch_is_forced_if_any_of_its_runs_is() {
    let fua = |fua| Needs { fua, intent: 0 };
    needs_are_a_union([false, true, false].map(fua), |needs| needs.fua.into());
    needs_are_a_union([false, false, true].map(fua), |needs| needs.fua.into());
    needs_are_a_union([true, false, false].map(fua), |needs| needs.fua.into());
}

/// I16: a closed batch never grows. Who comes a moment too late is as it was, and may be a head
/// itself.
#[test]
fn loom_r13_a_join_that_meets_a_close_is_in_or_out() {
    loom::model(|| {
        let links = offered();
        links.offer(C, run(2));
        let later = thread::spawn({
            let links = links.clone();
            move || match links.join(A, B, LIMIT, Mine::Later) {
                Ok(joined) => {
                    assert_eq!(joined.end, 2);
                    vec![]
                }
                Err(why) => {
                    assert_eq!(why, Refusal::Closed);
                    links.join(B, C, LIMIT, Mine::Earlier).unwrap();
                    written(&links.close(B))
                }
            }
        });
        let ours = written(&links.close(A));
        let theirs = later.join().unwrap();
        match ours.len() {
            1 => assert_eq!(theirs, [1, 2]),
            _ => assert_eq!((ours, theirs), (vec![0, 1], vec![])),
        }
    });
}

/// I18: two owners that join the same two runs, each from its side, do not wait for one another.
/// One of them does it.
#[test]
fn loom_r14_two_owners_join_the_same_pair() {
    loom::model(|| {
        let links = offered();
        let later = thread::spawn({
            let links = links.clone();
            move || links.join(A, B, LIMIT, Mine::Later)
        });
        let first = links.join(A, B, LIMIT, Mine::Earlier);
        let second = later.join().unwrap();
        assert_ne!(first.is_ok(), second.is_ok());
        assert_eq!(first.and(second), Err(Refusal::Closed));
        assert_eq!(written(&links.close(A)), [0, 1]);
    });
}

/// I18 for a chain: the run in the middle is joined from both sides, and all three owners close
/// theirs. Two of the runs are written together, whichever, and each is written once.
#[test]
fn loom_r14_a_chain_is_joined_from_both_ends() {
    loom::model(|| {
        let links = offered();
        links.offer(C, run(2));
        let front = thread::spawn({
            let links = links.clone();
            move || {
                let joined = links.join(A, B, LIMIT, Mine::Earlier);
                (joined.is_ok(), written(&links.close(A)))
            }
        });
        let back = thread::spawn({
            let links = links.clone();
            move || {
                let joined = links.join(B, C, LIMIT, Mine::Later);
                (joined.is_ok(), written(&links.close(C)))
            }
        });
        let (front, a) = front.join().unwrap();
        let (back, c) = back.join().unwrap();
        let b = written(&links.close(B));
        assert!(front != back, "B is one's or the other's");
        let mut all = [a, b, c].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
    });
}

/// Runs that do different things stay apart, and as they were: zeros that give their space back
/// are not zeros that must keep it.
#[test]
fn loom_r15_what_does_different_things_is_not_one_batch() {
    let freed = BatchOp::Zero { deallocate: true };
    let kept = BatchOp::Zero { deallocate: false };
    for (a, b) in [(freed, kept), (kept, freed), (BatchOp::Write, kept)] {
        loom::model(move || {
            let links = links();
            links.offer(A, Offer { op: a, ..run(0) });
            links.offer(B, Offer { op: b, ..run(1) });
            let joined = links.join(A, B, LIMIT, Mine::Later);
            assert_eq!(joined, Err(Refusal::Op));
            assert!(matches!(links.close(A), Closed::Alone(0)));
            assert!(matches!(links.close(B), Closed::Alone(1)));
        });
    }
}

/// The board is a hint: between the look at it and the join, the link that it names may have
/// become another stripe's. What is joined follows nevertheless.
#[test]
fn loom_r17_a_stale_hint_joins_nothing_that_does_not_follow() {
    loom::model(|| {
        let links = offered();
        links.post(1, Side::Before, A);
        let later = thread::spawn({
            let links = links.clone();
            move || {
                if let Some(head) = links.seek(1, Side::Before) {
                    assert_eq!(head, A);
                    let _ = links.join(head, B, LIMIT, Mine::Later);
                }
            }
        });
        links.withdraw(1, Side::Before, A);
        let before = written(&links.close(A));
        links.finish(A);
        links.offer(A, run(100));
        later.join().unwrap();
        let after = written(&links.close(A));
        assert_eq!((before[0], after), (0, vec![100]));
    });
}

/// A run comes home once, and only from where it is: a second message, from an earlier life of the
/// link, is seen to be one.
#[test]
fn loom_r17_a_run_comes_home_from_its_head_only() {
    loom::model(|| {
        let links = joined();
        let first = links.close(A);
        links.finish(A);
        let Closed::Head { followers, .. } = &first else {
            panic!("B has joined");
        };
        let generation = followers[0].generation;
        assert!(!links.release(B, C.shard, generation), "it is not C's");
        home(&links, A, first);
        assert!(!links.release(B, A.shard, generation), "it is at home");
        links.offer(A, run(7));
        links.offer(B, run(8));
        let neighbour = thread::spawn({
            let links = links.clone();
            move || links.join(A, B, LIMIT, Mine::Earlier).unwrap()
        });
        assert!(!links.release(B, A.shard, generation), "that was before");
        neighbour.join().unwrap();
        assert_eq!(written(&links.close(A)), [7, 8]);
    });
}

/// Two edges that share a place on the board: whoever looks finds its own edge's link, or nothing;
/// and nobody takes away what another has posted.
#[test]
fn loom_the_board_tells_edges_apart_that_share_a_word() {
    loom::model(|| {
        let board = Arc::new(Board::new(1));
        let poster = thread::spawn({
            let board = board.clone();
            move || {
                board.post(4, Side::Before, A);
                board.withdraw(4, Side::Before, A);
            }
        });
        let seeker = thread::spawn({
            let board = board.clone();
            move || board.seek(4, Side::Before)
        });
        board.post(8, Side::Before, B);
        let found = seeker.join().unwrap();
        poster.join().unwrap();
        assert!(found.is_none_or(|link| link == A), "{found:?}");
        assert_eq!(board.seek(4, Side::Before), None);
        assert_eq!(board.seek(4, Side::After), None);
        // It may have been posted over and taken away: then a batch is missed, no more.
        let left = board.seek(8, Side::Before);
        assert!(left.is_none_or(|link| link == B), "{left:?}");
    });
}

/// Whoever finds a link on the board finds it as it was when it was posted, or later.
#[test]
fn loom_what_was_offered_before_it_was_posted_is_open_or_has_been() {
    loom::model(|| {
        let links = links();
        links.offer(B, run(1));
        let earlier = thread::spawn({
            let links = links.clone();
            move || {
                links.offer(A, run(0));
                links.post(1, Side::Before, A);
            }
        });
        let found = links.seek(1, Side::Before);
        let joined = found.map(|head| links.join(head, B, LIMIT, Mine::Later));
        earlier.join().unwrap();
        assert!(joined.is_none_or(|joined| joined.is_ok()), "{joined:?}");
    });
}
