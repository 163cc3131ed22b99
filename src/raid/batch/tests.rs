use super::board::Board;
use super::*;

const A: LinkId = LinkId { shard: 0, index: 0 };
const B: LinkId = LinkId { shard: 1, index: 0 };
const C: LinkId = LinkId { shard: 0, index: 1 };

fn run(first: u64, stripes: u32) -> Offer<u64> {
    Offer {
        epoch: 1,
        first,
        stripes,
        op: BatchOp::Write,
        needs: Needs::default(),
        more: false,
        body: first,
    }
}

#[test]
fn a_batch_holds_the_runs_in_the_order_of_their_stripes() {
    let links = Links::new(&[2, 1], 1, 1);
    links.offer(A, run(0, 4));
    links.offer(B, run(4, 2));
    links.offer(C, run(6, 1));
    let joined = |end| Ok(Joined { end, more: false });
    assert_eq!(links.join(A, B, 7, Mine::Later), joined(6));
    assert_eq!(links.join(A, C, 7, Mine::Later), joined(7));
    let Closed::Head { followers, .. } = links.close(A) else {
        panic!("two have joined");
    };
    let runs = followers.iter().map(|f| (f.link, f.first, f.stripes));
    assert_eq!(runs.collect::<Vec<_>>(), [(B, 4, 2), (C, 6, 1)]);
}

/// I14, and what else keeps two runs apart. Neither has changed by it: each is written alone.
#[test]
fn runs_that_do_not_fit_stay_as_they_were() {
    let epoch = Offer {
        epoch: 2,
        ..run(2, 2)
    };
    let zero = Offer {
        op: BatchOp::Zero { deallocate: true },
        ..run(2, 2)
    };
    for (later, limit, why) in [
        (run(3, 2), 8, Refusal::Apart),
        (run(1, 2), 8, Refusal::Apart),
        (run(2, 2), 3, Refusal::Room),
        (epoch, 8, Refusal::Epoch),
        (zero, 8, Refusal::Op),
    ] {
        let links = Links::new(&[2, 1], 1, 1);
        links.offer(A, run(0, 2));
        let first = later.first;
        links.offer(B, later);
        for mine in [Mine::Earlier, Mine::Later] {
            assert_eq!(links.join(A, B, limit, mine), Err(why));
        }
        assert!(matches!(links.close(A), Closed::Alone(0)));
        assert!(matches!(links.close(B), Closed::Alone(body) if body == first));
    }
}

#[test]
fn what_is_not_open_or_is_a_head_itself_is_not_joined() {
    let links = Links::new(&[2, 1], 1, 1);
    let join = |earlier, later| links.join(earlier, later, 8, Mine::Earlier);
    assert_eq!(join(A, B), Err(Refusal::Closed), "nothing is offered");
    links.offer(A, run(0, 1));
    assert_eq!(join(A, B), Err(Refusal::Closed));
    assert_eq!(join(B, A), Err(Refusal::Closed));
    assert_eq!(join(A, A), Err(Refusal::Apart));
    links.offer(B, run(1, 1));
    links.offer(C, run(2, 1));
    join(B, C).unwrap();
    assert_eq!(join(A, B), Err(Refusal::Head));
    assert_eq!(join(A, C), Err(Refusal::Closed), "it is B's");
}

#[test]
fn as_many_links_are_charged_as_the_budget_has() {
    let links: Links<u64> = Links::new(&[2, 1], 1, 1);
    assert_eq!(links.charge(A), Charge::Held);
    assert_eq!(links.charge(A), Charge::Held, "it has it already");
    assert_eq!(links.charge(C), Charge::Full);
    assert_eq!(links.charge(B), Charge::Held, "another shard's budget");
    links.discharge(C);
    assert_eq!(links.charge(C), Charge::Full, "it held none");
    links.discharge(A);
    assert_eq!(links.charge(C), Charge::Held);
    assert_eq!(links.preread_active(0), 1);
}

#[test]
fn the_board_keeps_what_was_posted_last() {
    let board = Board::new(1);
    assert_eq!(board.seek(4, Side::Before), None);
    board.post(4, Side::Before, A);
    board.post(4, Side::After, B);
    assert_eq!(board.seek(4, Side::Before), Some(A));
    assert_eq!(board.seek(4, Side::After), Some(B));
    board.post(4, Side::Before, C);
    board.withdraw(4, Side::Before, A);
    assert_eq!(board.seek(4, Side::Before), Some(C), "A's word was gone");
    board.withdraw(4, Side::Before, C);
    assert_eq!(board.seek(4, Side::Before), None);
    board.post(8, Side::After, A);
    assert_eq!(board.seek(4, Side::After), None, "another edge's word");
}
