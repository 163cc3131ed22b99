//! Defects, as switches: `--cfg mutations` builds them in, and `STRIPEWISE_MUTATION` turns one on.
//! `scripts/mutations` shows that each is caught by the test that is named after it. In any other
//! build [`on`] is `false` at compile time.

/// A defect: of Linux md's stripe batching, carried over to our code (R; the numbers are those of
/// the interleavings in `docs/batching.md`), or an order of durability that is not kept (D).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    /// The role is looked at, the lock let go, and the charge taken afterwards.
    R1,
    /// The same, and the break throws the charge away without giving it back.
    R1Weak,
    /// A follower is listed with its head before it knows of it itself.
    R2,
    /// A follower that is handled twice takes itself for alone the second time.
    #[cfg_attr(not(mutations), expect(dead_code, reason = "its switch is not built"))]
    R3,
    /// Whoever handles a stripe takes its body first, and then looks whether it may.
    R4,
    /// A head may be used for another stripe.
    R5,
    /// A write to a stripe that is away makes it ready although it can't be.
    R6,
    /// What came for a stripe while it was away is overwritten when it comes home.
    R7,
    /// A batch needs only what its head needs before it may write.
    R8,
    /// A batch of an array that failed ends for the head's stripes only.
    R9,
    /// Followers are given the head's outcome.
    R10,
    /// A request to rebuild a stripe is dropped while that is away.
    R11,
    /// An open batch waits for a neighbour without a limit.
    R12,
    /// A join does not look again whether the head is still open.
    R13,
    /// A join locks its own link first.
    R14,
    /// Zeros that give space back and zeros that don't are one batch.
    R15,
    /// A batch is forced to the medium only if its head is.
    R16,
    /// A join believes the board, and does not look again which stripe it is.
    R17,
    /// A stripe begins a round although its row is being worked on as one.
    R18,
    /// A row is said to be done as one although a member has failed.
    R19,
    /// A stripe begins a round although a block of it is being patched.
    R20,
    /// A block is said to be patched although a member has failed.
    R21,
    /// Parity to which the change of a block was not added is taken for what it was.
    R22,
    /// A region may be written to before its bits are on the members.
    D1,
    /// Bits are cleared, then the header says who may not rely on the bitmap any more.
    D2,
    /// A write is acknowledged before the members say that one of them lacks it.
    D3,
    /// Bits are cleared while what was written there may be in a member's cache.
    D4,
    /// The array is said to be clean while what was written may be in a member's cache.
    D5,
    /// A process is said to have come as far as it has written, in a member's cache or not.
    D6,
    /// What one member says is relied on, when the others do not say it yet.
    D7,
    /// The next event is begun while a member does not have the last one.
    D8,
    /// A new member speaks of itself when no other does yet.
    D9,
    /// All others speak of a member that has replaced one, when it does not do so yet.
    D10,
    /// A flush is acknowledged although a member is lost with its cache and nobody has said so.
    D11,
    /// A stripe is written before what its partial parity log says of it is on the medium.
    D12,
    /// A write of several blocks is acknowledged while the log still says that it is under way.
    D13,
    /// A flush that a member has failed is acknowledged although nobody has said that it is lost.
    D14,
}

/// Whether a defect is switched on.
#[cfg(not(mutations))]
#[inline(always)]
pub(super) const fn on(_: Mutation) -> bool {
    false
}

/// Whether a defect is switched on.
#[cfg(mutations)]
pub(super) fn on(mutation: Mutation) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("STRIPEWISE_MUTATION").ok());
    chosen
        .as_ref()
        .is_some_and(|name| *name == format!("{mutation:?}"))
}
