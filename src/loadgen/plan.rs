//! What a job comes to on the namespace that it finds.

use std::io;
use std::path::{Path, PathBuf};

use super::job::{Job, Verify};
use super::model::{Model, ModelError};
use super::quantity::Bytes;
use super::random::scramble;
use super::state::{StateError, Subject};
use super::workload::{Region, Shape};
use crate::initiator::{Facts, Namespace};

/// Most blocks of one command (NLB has 16 bits and is 0's based).
const MOST_BLOCKS: u64 = 65_536;

/// Why a job makes no sense on the namespace.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The request size is not one of whole blocks.
    #[error("{size} bytes are not a multiple of the namespace's block of {block} bytes")]
    NotBlocks {
        /// The size.
        size: Bytes,
        /// Block size.
        block: u32,
    },
    /// The request is larger than a command may be.
    #[error("requests of {size} bytes are too large for this controller; it takes up to {most}")]
    TooLarge {
        /// The size.
        size: Bytes,
        /// The largest possible.
        most: Bytes,
    },
    /// The region is not all there.
    #[error("offset {offset} and size {size} reach beyond the namespace of {capacity} bytes")]
    Region {
        /// Where it begins.
        offset: Bytes,
        /// How large it is.
        size: Bytes,
        /// Size of the namespace in bytes.
        capacity: u64,
    },
    /// The state file does not cover the region.
    #[error("state file {path} covers lba {first}..{end} only; stay inside, or give another name")]
    StateRegion {
        /// The file.
        path: PathBuf,
        /// First block.
        first: u64,
        /// The block behind the last.
        end: u64,
    },
    /// Nothing to verify against.
    #[error("verifying an earlier run needs its state file; give --state")]
    NoState,
}

/// A job on a namespace.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The namespace.
    pub namespace: Namespace,
    /// Where requests go.
    pub region: Region,
    /// Smallest request in blocks.
    pub min_blocks: u32,
    /// Largest request in blocks.
    pub max_blocks: u32,
}

impl Plan {
    /// Fits a job to what the controller says.
    pub fn new(job: &Job, facts: &Facts, namespace: &Namespace) -> Result<Self, PlanError> {
        let block = u64::from(namespace.block_size);
        let most = facts.max_transfer().unwrap_or(u64::MAX);
        let most = Bytes(most.min(MOST_BLOCKS * block) / block * block);
        let in_blocks = |size: Bytes| {
            if size.0 > most.0 {
                return Err(PlanError::TooLarge { size, most });
            }
            let block = namespace.block_size;
            let whole = size.0.is_multiple_of(u64::from(block));
            let blocks = (size.0 / u64::from(block)) as u32;
            whole
                .then_some(blocks)
                .ok_or(PlanError::NotBlocks { size, block })
        };
        Ok(Self {
            min_blocks: in_blocks(job.request.min)?,
            max_blocks: in_blocks(job.request.max)?,
            region: region(job, namespace)?,
            namespace: namespace.clone(),
        })
    }

    /// The shape of the job's workload.
    pub fn shape(&self, job: &Job) -> Shape {
        Shape {
            pattern: job.pattern,
            read_percent: job.read_percent,
            min_blocks: self.min_blocks,
            max_blocks: self.max_blocks,
            region: self.region,
            distribution: job.distribution,
            flush_every: job.flush_every,
            seed: job.seed,
        }
    }

    /// Largest request in bytes.
    pub fn max_bytes(&self) -> usize {
        self.max_blocks as usize * self.namespace.block_size as usize
    }

    /// The model that the job verifies against, if it does. Where a state file decides the region
    /// because the job does not, the plan follows.
    ///
    /// # Errors
    /// [`ModelError`], [`PlanError`].
    pub fn model(&mut self, job: &Job) -> Result<Option<Model>, ModelOrPlanError> {
        let subject = Subject {
            volume: new_volume(job),
            block_size: self.namespace.block_size,
            region: self.region,
            nguid: self.namespace.nguid,
        };
        match (job.verify, &job.state) {
            (Verify::Off, None) => Ok(None),
            (Verify::Only, None) => Err(PlanError::NoState.into()),
            (_, None) => Ok(Some(Model::new(subject)?)),
            (Verify::Only, Some(path)) => self.adopt(job, path, Model::open(path)?).map(Some),
            (_, Some(path)) => match Model::open(path) {
                Ok(model) => self.adopt(job, path, model).map(Some),
                Err(ModelError::State(StateError::Io { source, .. }))
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    Ok(Some(Model::create(path, subject)?))
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    fn adopt(&mut self, job: &Job, path: &Path, model: Model) -> Result<Model, ModelOrPlanError> {
        let (subject, namespace) = (*model.subject(), &self.namespace);
        let other = |difference: String| {
            let path = path.to_owned();
            Err(ModelError::OtherDevice { path, difference }.into())
        };
        if subject.block_size != namespace.block_size {
            let (theirs, ours) = (subject.block_size, namespace.block_size);
            return other(format!("its blocks have {theirs} bytes, not {ours}"));
        }
        if subject.nguid != namespace.nguid {
            return other("its globally unique identifier differs".to_owned());
        }
        let (first, end) = (subject.region.first, subject.region.end());
        if job.offset.is_none() && job.size.is_none() && end <= namespace.blocks {
            self.region = subject.region;
        }
        if self.region.first < first || self.region.end() > end {
            let path = path.to_owned();
            return Err(PlanError::StateRegion { path, first, end }.into());
        }
        Ok(model)
    }
}

/// Either of the two.
#[derive(Debug, thiserror::Error)]
pub enum ModelOrPlanError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

fn region(job: &Job, namespace: &Namespace) -> Result<Region, PlanError> {
    let block = u64::from(namespace.block_size);
    let capacity = namespace.blocks * block;
    let offset = job.offset.unwrap_or(Bytes(0));
    let rest = capacity.saturating_sub(offset.0);
    let size = job.size.unwrap_or(Bytes(rest));
    if size.0 == 0 || size.0 > rest {
        return Err(PlanError::Region {
            offset,
            size,
            capacity,
        });
    }
    for size in [offset, size] {
        if !size.0.is_multiple_of(block) {
            let block = namespace.block_size;
            return Err(PlanError::NotBlocks { size, block });
        }
    }
    Ok(Region {
        first: offset.0 / block,
        blocks: size.0 / block,
    })
}

/// A volume id that no other run has: blocks of an earlier run must not pass for ours.
fn new_volume(job: &Job) -> u64 {
    let id = uuid::Uuid::new_v4().as_u128();
    scramble(id as u64 ^ scramble((id >> 64) as u64 ^ job.seed)) | 1
}
