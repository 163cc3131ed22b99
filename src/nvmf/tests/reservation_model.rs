//! Reservations against a naive reading of the specification: what hosts do at random, on two poll
//! groups, and what each of them may then do on its own.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::party::Party;
use super::world::World;
use crate::nvme::reservation::{
    AcquireAction, Keys, RegisterAction, ReleaseAction, ReservationCommand, ReservationType,
};

/// Three hosts, so that somebody is neither the one nor the other.
const HOSTS: usize = 3;

/// What a host does.
#[derive(Clone, Debug)]
struct Step {
    host: usize,
    command: ReservationCommand,
    current: u64,
    other: u64,
}

/// The state, as lists that a reader would draw on paper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Paper {
    keys: BTreeMap<usize, u64>,
    /// Type and holder: RTYPE 5 and 6 have none in particular.
    reserved: Option<(u8, Option<usize>)>,
    generation: u32,
}

const OK: u16 = 0;
const INVALID: u16 = 0x002;
const CONFLICT: u16 = 0x083;

impl Paper {
    fn holds(&self, host: usize) -> bool {
        match self.reserved {
            None => false,
            Some((_, Some(holder))) => holder == host,
            Some((_, None)) => self.keys.contains_key(&host),
        }
    }

    fn tidy(&mut self) {
        let over = match self.reserved {
            None => false,
            Some((_, Some(holder))) => !self.keys.contains_key(&holder),
            Some((_, None)) => self.keys.is_empty(),
        };
        if over {
            self.reserved = None;
        }
    }

    fn reserve(&mut self, kind: u8, host: usize) {
        self.reserved = Some((kind, (kind < 5).then_some(host)));
    }

    fn play(&mut self, step: &Step) -> u16 {
        let (host, key) = (step.host, self.keys.get(&step.host).copied());
        match step.command {
            ReservationCommand::Register {
                action, ignore_key, ..
            } => {
                let fits = ignore_key || key == Some(step.current);
                match action {
                    RegisterAction::Register => match key {
                        Some(key) if key != step.other => return CONFLICT,
                        Some(_) => {}
                        None if step.other == 0 => return INVALID,
                        None => drop(self.keys.insert(host, step.other)),
                    },
                    RegisterAction::Unregister => {
                        if key.is_none() || !fits {
                            return CONFLICT;
                        }
                        self.keys.remove(&host);
                        self.tidy();
                    }
                    RegisterAction::Replace => {
                        if step.other == 0 {
                            return INVALID;
                        }
                        if !fits || (key.is_none() && !ignore_key) {
                            return CONFLICT;
                        }
                        self.keys.insert(host, step.other);
                    }
                }
                self.generation += 1;
                OK
            }
            _ if key != Some(step.current) => CONFLICT,
            ReservationCommand::Acquire {
                action: AcquireAction::Acquire,
                kind,
            } => match self.reserved {
                None => {
                    self.reserve(kind.code(), host);
                    OK
                }
                Some((held, _)) if held == kind.code() && self.holds(host) => OK,
                Some(_) => CONFLICT,
            },
            ReservationCommand::Acquire { kind, .. } => self.preempt(host, step.other, kind.code()),
            ReservationCommand::Release {
                action: ReleaseAction::Release,
                kind,
            } => match self.reserved {
                None => OK,
                Some((held, _)) if held != kind => INVALID,
                Some(_) => {
                    if self.holds(host) {
                        self.reserved = None;
                    }
                    OK
                }
            },
            ReservationCommand::Release { .. } => {
                self.keys.clear();
                self.reserved = None;
                self.generation += 1;
                OK
            }
            ReservationCommand::Report { .. } => OK,
        }
    }

    fn preempt(&mut self, host: usize, victim: u64, kind: u8) -> u16 {
        let anybody = self.keys.values().any(|&key| key == victim);
        match self.reserved {
            // All others go.
            Some((5 | 6, _)) if victim == 0 => {
                self.keys.retain(|&other, _| other == host);
                self.reserve(kind, host);
            }
            // The holder goes, and whoever has the same key; the one who preempts stays.
            Some((1..=4, Some(holder))) if self.keys[&holder] == victim => {
                self.keys
                    .retain(|&other, key| other == host || *key != victim);
                self.reserve(kind, host);
            }
            _ if victim == 0 => return INVALID,
            _ if !anybody => return CONFLICT,
            _ => {
                self.keys.retain(|_, key| *key != victim);
                self.tidy();
            }
        }
        self.generation += 1;
        OK
    }

    /// The table "Command Behavior in the Presence of a Reservation": read and write.
    fn allows(&self, host: usize) -> (bool, bool) {
        let registered = self.keys.contains_key(&host);
        match self.reserved {
            None => (true, true),
            Some(_) if self.holds(host) => (true, true),
            Some((1, _)) => (true, false),
            Some((2, _)) => (false, false),
            Some((3 | 5, _)) => (true, registered),
            Some(_) => (registered, registered),
        }
    }
}

fn kinds() -> impl Strategy<Value = ReservationType> {
    proptest::sample::select(ReservationType::ALL)
}

/// Keys are few, so that they meet.
fn steps() -> impl Strategy<Value = Step> {
    let command = prop_oneof![
        6 => (proptest::sample::select(RegisterAction::ALL), any::<bool>()).prop_map(
            |(action, ignore_key)| ReservationCommand::Register {
                action,
                ignore_key,
                persist: None,
            }
        ),
        6 => (proptest::sample::select(AcquireAction::ALL), kinds())
            .prop_map(|(action, kind)| ReservationCommand::Acquire { action, kind }),
        2 => (proptest::sample::select(ReleaseAction::ALL), kinds()).prop_map(|(action, kind)| {
            ReservationCommand::Release {
                action,
                kind: kind.code(),
            }
        }),
    ];
    (0..HOSTS, command, 0_u64..4, 0_u64..4).prop_map(|(host, command, current, other)| Step {
        host,
        command,
        current,
        other,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn hosts_may_do_what_the_specification_says(
        steps in proptest::collection::vec((steps(), any::<bool>()), 1..60)
    ) {
        let mut world = World::new();
        let mut parties: Vec<Party> = (1..=HOSTS as u8).map(|n| Party::new(&mut world, n)).collect();
        let mut paper = Paper::default();
        for (mut step, knows_its_key) in steps {
            // Commands with the wrong key alone would not come far.
            if knows_its_key && let Some(&key) = paper.keys.get(&step.host) {
                step.current = key;
            }
            let expected = paper.play(&step);
            let keys = Keys::new(step.current, step.other);
            let status = parties[step.host].reserve(&mut world, step.command, keys);
            prop_assert_eq!(status, expected, "{:?}", step);
            for (host, party) in parties.iter_mut().enumerate() {
                let (reads, writes) = paper.allows(host);
                let code = |allowed| if allowed { OK } else { CONFLICT };
                prop_assert_eq!(party.read(&mut world), code(reads), "host {} after {:?}", host, step);
                prop_assert_eq!(party.write(&mut world), code(writes), "host {} after {:?}", host, step);
            }
        }
        let report = parties[0].report(&mut world);
        prop_assert_eq!(report.generation, paper.generation);
        prop_assert_eq!(report.kind, paper.reserved.map_or(0, |(kind, _)| kind));
        let mut told: Vec<_> = report.registrants;
        told.sort_unstable();
        let known: Vec<_> = paper
            .keys
            .iter()
            .map(|(&host, &key)| ([host as u8 + 1; 16], key, paper.holds(host)))
            .collect();
        prop_assert_eq!(told, known);
    }
}
