//! Methods that keep a volume whole: spares, checks, doubts.

use serde::Deserialize;

use crate::control::System;
use crate::raid::Work;
use crate::rpc::RpcError;
use crate::rpc::methods::changing::{Changing, Then};
use crate::rpc::methods::{Answer, Params};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddSpare {
    raid_bdev: String,
    base_bdev: String,
    #[serde(default)]
    force: bool,
}

pub fn bdev_raid_add_spare(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AddSpare = params.read()?;
    system.add_spare(&p.raid_bdev, &p.base_bdev, p.force)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveSpare {
    raid_bdev: String,
    base_bdev: String,
}

pub fn bdev_raid_remove_spare(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: RemoveSpare = params.read()?;
    system.remove_spare(&p.raid_bdev, &p.base_bdev)?;
    Ok(true.into())
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Check,
    Repair,
    Stop,
    Pause,
    Resume,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    name: String,
    action: Action,
}

pub fn bdev_raid_check(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Check = params.read()?;
    let change = match p.action {
        Action::Check => system.check(&p.name, Work::Check)?,
        Action::Repair => system.check(&p.name, Work::Repair)?,
        Action::Pause => system.pause(&p.name, true)?,
        Action::Resume => system.pause(&p.name, false)?,
        // What has to be done goes on.
        Action::Stop => {
            let left = system.leave_check(&p.name)?;
            return Ok(Changing::then(left, Then::Resume));
        }
    };
    Ok(Changing::answer(change))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptParity {
    name: String,
}

pub fn bdev_raid_accept_parity(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AcceptParity = params.read()?;
    Ok(Changing::answer(system.accept_parity(&p.name)?))
}
