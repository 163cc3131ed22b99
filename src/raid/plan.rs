//! The planner: for one round of one stripe, which method computes the new parity, and what must
//! be read for it. Both come from one function, so they cannot disagree.

use super::geometry::Mask;

/// What a round finds and wants. Masks are over the roles of the stripe: data `0..data`, then
/// parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Number of data roles.
    pub data: usize,
    /// Data roles whose whole stripe is overwritten without a look at the old bytes.
    pub full: Mask,
    /// Data roles that are overwritten in part; their old bytes are wanted too.
    pub part: Mask,
    /// Further roles whose old bytes are wanted: host reads, compares, rebuilds.
    pub wanted: Mask,
    /// Roles whose old bytes are at hand.
    pub cached: Mask,
    /// Roles that can't be read: the member is missing, not rebuilt, or failed this read.
    pub unreadable: Mask,
    /// Whether the new parity can be stored.
    pub parity_writable: bool,
    /// Whether parity is to be compared with the data, so that nothing is computed that can be
    /// read. All roles are wanted then.
    pub verify: bool,
}

/// How a round gets its new parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// There is no parity to compute: nothing is written, or the parity member is missing.
    None,
    /// Parity is the XOR of all data of the stripe, all of it new: nothing is read.
    Full,
    /// Reconstruct-write: parity is the XOR of all data, the untouched part of it old.
    Reconstruct,
    /// Read-modify-write: old parity, XOR old and new data of what is written.
    Modify,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the new parity is computed.
    pub method: Method,
    /// Roles to read from their members.
    pub read: Mask,
    /// A role whose old bytes are computed as the XOR of all others.
    pub rebuild: Option<usize>,
}

impl Situation {
    /// The plan with the fewest reads. On a tie it is read-modify-write, because that writes where it has
    /// read: members, and this core, have those blocks in their caches. Where nothing is to be read it is
    /// reconstruct-write, because its parity does not depend on the old one. `None` where too much is
    /// unreadable for any plan.
    pub fn plan(&self) -> Option<Plan> {
        let parity: Mask = 1 << self.data;
        let data = parity - 1;
        let written = self.full | self.part;
        let wanted = self.part | self.wanted;
        debug_assert!(written & !data == 0, "only data is written by hosts");
        debug_assert!(
            self.full & self.part == 0,
            "a role is overwritten whole or in part"
        );
        if written == 0 || !self.parity_writable {
            return self.reading(Method::None, wanted);
        }
        let reconstruct = self.reading(Method::Reconstruct, wanted | (data & !self.full));
        let modify = self.reading(Method::Modify, wanted | written | parity);
        let plan = match (reconstruct, modify) {
            (Some(r), Some(m)) if r.cost() == 0 || r.cost() < m.cost() => r,
            // Its old parity would be computed, too.
            (Some(r), Some(m)) if r.cost() == m.cost() && m.rebuild.is_some() => r,
            (_, Some(m)) => m,
            (r, None) => r?,
        };
        let nothing_old = self.full == data && wanted == 0;
        Some(if nothing_old {
            Plan {
                method: Method::Full,
                ..plan
            }
        } else {
            plan
        })
    }

    /// The plan that has the old bytes of `needed` at hand.
    fn reading(&self, method: Method, needed: Mask) -> Option<Plan> {
        let parity: Mask = 1 << self.data;
        let all = (parity << 1) - 1;
        let absent = needed & !self.cached;
        let lost = absent & self.unreadable;
        // Where everything unknown is needed anyway, one role follows from all others, which saves its read:
        // parity, or what is overwritten whole. Other data is read from where it is as long as it can be:
        // parity that does not match, though nobody knows, must never become data.
        let may_follow = absent & (parity | self.full & !self.wanted);
        let all_needed = absent == all & !self.cached;
        if lost == 0 && (self.verify || !all_needed || may_follow == 0) {
            return Some(Plan {
                method,
                read: absent,
                rebuild: None,
            });
        }
        let rebuild = match lost {
            0 => may_follow,
            _ => lost,
        };
        let rebuild = rebuild.trailing_zeros() as usize;
        let read = all & !self.cached & !(1 << rebuild);
        (read & self.unreadable == 0).then_some(Plan {
            method,
            read,
            rebuild: Some(rebuild),
        })
    }
}

impl Plan {
    /// Roles whose old bytes are at hand because of it, and were not before.
    pub(super) fn learns(&self) -> Mask {
        self.read | self.rebuild.map_or(0, |role| 1 << role)
    }

    fn cost(&self) -> u32 {
        self.read.count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether the bytes of `known` roles determine everything that the round wants, by linear
    /// algebra over GF(2): each role is a unit vector, and all roles of a stripe sum to zero. Old data
    /// that is wanted and can be read is never told from parity. Knows nothing of methods.
    fn determined(s: &Situation, known: Mask) -> bool {
        let parity: Mask = 1 << s.data;
        let all = (parity << 1) - 1;
        let in_span = |v: Mask| v & !known == 0 || (v ^ all) & !known == 0;
        let single = |mask: Mask| (0..=s.data).map(|k| 1 << k).filter(move |b| mask & b != 0);
        let told = |v: Mask| match v & !s.unreadable & !parity {
            0 => in_span(v),
            _ => v & !known == 0,
        };
        if !single(s.part | s.wanted).all(told) {
            return false;
        }
        let written = s.full | s.part;
        // New parity = the XOR of all new data; its unknown part is the untouched data.
        let untouched = (parity - 1) & !written;
        written == 0 || !s.parity_writable || in_span(untouched)
    }

    /// The fewest reads that determine the round, by trying every set of reads.
    fn fewest_reads(s: &Situation) -> Option<u32> {
        let all: Mask = (2 << s.data) - 1;
        (0..=all)
            .filter(|reads| reads & (s.cached | s.unreadable) == 0)
            .filter(|reads| determined(s, s.cached | reads))
            .map(Mask::count_ones)
            .min()
    }

    fn situations() -> impl Strategy<Value = Situation> {
        (2usize..=6).prop_flat_map(|data| {
            let all: Mask = (2 << data) - 1;
            let roles = 0..=all;
            (
                roles.clone(),
                roles.clone(),
                roles.clone(),
                roles.clone(),
                roles,
                any::<bool>(),
                any::<bool>(),
            )
                .prop_map(
                    move |(written, full, wanted, cached, bad, few, parity_writable)| {
                        let written = written & (all >> 1);
                        Situation {
                            data,
                            full: written & full,
                            part: written & !full,
                            wanted: if few { wanted & (wanted >> 1) } else { 0 },
                            cached: if few { cached & (cached >> 1) } else { cached },
                            unreadable: if few { bad & bad.wrapping_neg() } else { bad },
                            parity_writable,
                            verify: false,
                        }
                    },
                )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn a_plan_suffices_and_none_reads_less(s in situations()) {
            let plan = s.plan();
            prop_assert_eq!(plan.map(|p| p.cost()), fewest_reads(&s));
            if let Some(plan) = plan {
                prop_assert_eq!(plan.read & (s.cached | s.unreadable), 0);
                prop_assert!(determined(&s, s.cached | plan.read));
            }
        }
    }

    fn healthy(data: usize, full: Mask) -> Situation {
        Situation {
            data,
            full,
            part: 0,
            wanted: 0,
            cached: 0,
            unreadable: 0,
            parity_writable: true,
            verify: false,
        }
    }

    #[test]
    fn data_that_can_be_read_is_not_told_from_parity() {
        // A part of block 0 is written, all others are at hand, parity is not.
        let s = Situation {
            part: 0b1,
            cached: 0b110,
            ..healthy(3, 0)
        };
        let plan = s.plan().unwrap();
        assert_eq!((plan.method, plan.read), (Method::Reconstruct, 0b1));
        assert_eq!(plan.rebuild, None);
        let lost = Situation {
            unreadable: 0b1,
            ..s
        };
        let plan = lost.plan().unwrap();
        assert_eq!((plan.read, plan.rebuild), (0b1000, Some(0)));
    }

    #[test]
    fn what_is_verified_is_read_and_not_computed() {
        let all = 0b1111;
        let s = Situation {
            wanted: all,
            verify: true,
            ..healthy(3, 0)
        };
        let plan = s.plan().unwrap();
        assert_eq!((plan.read, plan.rebuild), (all, None));
        let one_lost = Situation {
            unreadable: 0b10,
            ..s
        };
        let plan = one_lost.plan().unwrap();
        assert_eq!((plan.read, plan.rebuild), (0b1101, Some(1)));
    }

    #[test]
    fn a_full_stripe_reads_nothing() {
        let plan = healthy(3, 0b111).plan().unwrap();
        assert_eq!((plan.method, plan.read), (Method::Full, 0));
    }

    #[test]
    fn one_block_of_seven_reads_itself_and_parity() {
        let plan = healthy(7, 0b1).plan().unwrap();
        assert_eq!((plan.method, plan.read), (Method::Modify, 0b1000_0001));
    }

    #[test]
    fn one_block_of_three_is_read_where_it_is_written() {
        let tie = healthy(3, 0b1);
        let plan = tie.plan().unwrap();
        assert_eq!((plan.method, plan.read), (Method::Modify, 0b1001));
        let all_cached = Situation {
            cached: 0b1111,
            ..tie
        };
        let plan = all_cached.plan().unwrap();
        assert_eq!((plan.method, plan.read), (Method::Reconstruct, 0));
    }

    #[test]
    fn six_of_seven_read_the_seventh() {
        let plan = healthy(7, 0b111_1110).plan().unwrap();
        assert_eq!((plan.method, plan.read), (Method::Reconstruct, 0b1));
    }

    #[test]
    fn a_write_to_a_missing_member_reads_the_other_data() {
        let plan = Situation {
            unreadable: 0b1,
            ..healthy(3, 0b1)
        };
        let plan = plan.plan().unwrap();
        assert_eq!((plan.method, plan.read), (Method::Reconstruct, 0b110));
    }

    #[test]
    fn two_unreadable_roles_are_hopeless_only_where_they_matter() {
        let s = Situation {
            unreadable: 0b1001,
            ..healthy(3, 0b10)
        };
        assert_eq!(s.plan(), None);
        let overwritten = Situation {
            unreadable: 0b1001,
            ..healthy(3, 0b111)
        };
        assert_eq!(overwritten.plan().unwrap().method, Method::Full);
    }
}
