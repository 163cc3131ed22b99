//! The defects of md's history, as switches: `--cfg mutations` builds them in, and
//! `STRIPEWISE_MUTATION` turns one on. `scripts/mutations` shows that each is caught by the test
//! that is named after it. In any other build [`on`] is `false` at compile time.

/// A defect of Linux md's stripe batching, carried over to our code. The numbers are those of the
/// interleavings in `docs/batching.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raid) enum Mutation {
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
}

/// Whether a defect is switched on.
#[cfg(not(mutations))]
#[inline(always)]
pub(in crate::raid) const fn on(_: Mutation) -> bool {
    false
}

/// Whether a defect is switched on.
#[cfg(mutations)]
pub(in crate::raid) fn on(mutation: Mutation) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("STRIPEWISE_MUTATION").ok());
    chosen
        .as_ref()
        .is_some_and(|name| *name == format!("{mutation:?}"))
}
