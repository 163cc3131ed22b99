//! What it costs to find out which blocks of a stripe a round must read.
//!
//! `cargo bench --bench planner`. Times are per plan.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use stripewise::raid::Situation;

/// A stripe of so many data blocks of which nothing is known, and nothing is wanted.
fn untouched(data: usize) -> Situation {
    Situation {
        data,
        full: 0,
        part: 0,
        wanted: 0,
        cached: 0,
        unreadable: 0,
        parity_writable: true,
        verify: false,
    }
}

/// What rounds find, by name.
fn situations(data: usize) -> [(&'static str, Situation); 6] {
    let all_data = (1 << data) - 1;
    let small = Situation {
        full: 1,
        ..untouched(data)
    };
    [
        ("small write", small),
        (
            "small write, all cached",
            Situation {
                cached: all_data | 1 << data,
                ..small
            },
        ),
        (
            "whole stripe",
            Situation {
                full: all_data,
                ..small
            },
        ),
        (
            "part of a block",
            Situation {
                full: 0,
                part: 1,
                ..small
            },
        ),
        (
            "small write, its member missing",
            Situation {
                unreadable: 1,
                ..small
            },
        ),
        (
            "read, its member missing",
            Situation {
                wanted: 1,
                unreadable: 1,
                ..untouched(data)
            },
        ),
    ]
}

fn plan(criterion: &mut Criterion) {
    for data in [3, 15] {
        let mut group = criterion.benchmark_group(format!("{data}+1"));
        for (name, situation) in situations(data) {
            assert!(situation.plan().is_some(), "{name} can be done");
            group.bench_function(name, |b| b.iter(|| black_box(&situation).plan()));
        }
    }
}

criterion_group!(benches, plan);
criterion_main!(benches);
