//! The persistent event logs of subsystems.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Target, missing};
use crate::nvme::log_page::{health_event, power_on_event, vendor_event};
use crate::nvmf::counts::Counts;
use crate::nvmf::error::TargetError;
use crate::nvmf::error_log::Failures;
use crate::nvmf::event_log::{EventLog, EventLogOptions, Snapshot, timestamp};
use crate::nvmf::identify::firmware_revision;
use crate::nvmf::log_page;
use crate::nvmf::message::ConnectionId;
use crate::nvmf::subsystem::Subsystem;

/// How often the state of health is noted, without anything having happened.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// What is noted of a RAID volume: codes of our own for vendor specific events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeEvent {
    /// A member is out.
    MemberOut = 1,
    /// A member holds what it should.
    MemberInSync = 2,
    /// Too many members are out: the volume serves nobody.
    Offline = 3,
}

/// The log of a subsystem, and how far it is written.
#[derive(Debug)]
pub struct Recorder {
    log: EventLog,
    /// What is in the file.
    saved: Arc<Snapshot>,
    /// What writes it now.
    writing: Option<u64>,
    /// Something was noted since that began.
    changed: bool,
    /// When the state of health is noted next.
    due: Instant,
    /// What the I/O queues of the subsystem have moved.
    counts: Counts,
    /// How many of their commands have failed.
    errors: u64,
}

impl Recorder {
    /// Where the log is kept.
    pub fn options(&self) -> &EventLogOptions {
        self.log.options()
    }

    /// What poll groups are told.
    pub fn saved(&self) -> &Arc<Snapshot> {
        &self.saved
    }

    fn note(&mut self, event: Vec<u8>) {
        self.log.note(event);
        self.changed = true;
    }

    fn note_health(&mut self, now: Instant) {
        let lifetime = self.log.lifetime();
        let health = log_page::health(self.errors, &self.counts, Some(lifetime), now);
        self.note(health_event(timestamp(), &health));
        self.due = now + SNAPSHOT_INTERVAL;
    }
}

impl Target {
    /// Has a subsystem keep a persistent event log, which begins, or goes on, with a power-on event and the
    /// state of health; or no longer. The file is written before this returns; one that is left stays as it
    /// is.
    ///
    /// # Errors
    /// [`TargetError::NotFound`]; [`TargetError::Invalid`]: the discovery subsystem, options out of range, a
    /// file that cannot be read or written, is damaged or of another subsystem; [`TargetError::Busy`] for a
    /// file that is in use. Nothing has changed then.
    pub fn set_event_log(
        &mut self,
        nqn: &str,
        options: Option<EventLogOptions>,
    ) -> Result<(), TargetError> {
        self.hub()?;
        let subsystem = self.subsystems.get(nqn).ok_or_else(|| missing(nqn))?;
        let recorder = match options {
            Some(options) => Some(Box::new(self.begin_log(subsystem, options)?)),
            None => None,
        };
        let subsystem = self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn))?;
        let ended = std::mem::replace(&mut subsystem.recorder, recorder);
        self.end_log(ended);
        self.publish(nqn);
        Ok(())
    }

    /// Has a log written for the last time.
    pub(super) fn end_log(&mut self, ended: Option<Box<Recorder>>) {
        if let (Some(ended), Some(hub)) = (ended, &self.hub) {
            let image = ended.log.image(Instant::now());
            if let Err(error) = self.event_log_writer.write(image, &hub.outbox) {
                tracing::error!("event logs cannot be written: {error}");
            }
        }
    }

    fn begin_log(
        &self,
        subsystem: &Subsystem,
        options: EventLogOptions,
    ) -> Result<Recorder, TargetError> {
        options.validate().map_err(TargetError::Invalid)?;
        self.check_log_file(&options.file)?;
        let now = Instant::now();
        let log = EventLog::open(options, subsystem.nqn.clone(), now);
        let log = log.map_err(TargetError::Invalid)?;
        let mut recorder = Recorder {
            saved: Arc::new(log.image(now).snapshot),
            log,
            writing: None,
            changed: false,
            due: now,
            counts: Counts::default(),
            errors: 0,
        };
        recorder.note(power_on_event(timestamp(), firmware_revision()));
        recorder.note_health(now);
        let image = recorder.log.image(now);
        image.write().map_err(TargetError::Invalid)?;
        recorder.saved = Arc::new(image.snapshot);
        recorder.changed = false;
        Ok(recorder)
    }

    fn check_log_file(&self, file: &Path) -> Result<(), TargetError> {
        let keeps = |s: &&Subsystem| {
            let recorder = s.recorder.as_ref();
            recorder.is_some_and(|r| r.options().file == file)
        };
        let shown = file.display();
        if let Some(owner) = self.subsystems.values().find(keeps) {
            return Err(TargetError::Busy(format!(
                "event log {shown} is that of {}; give each subsystem its own, and end a log before it is begun anew",
                owner.nqn
            )));
        }
        if self.event_log_writer.is_writing(file) {
            return Err(TargetError::Busy(format!(
                "event log {shown} is still being written; try again"
            )));
        }
        Ok(())
    }

    /// Something has happened to a RAID volume: subsystems that export it note that, with these words.
    pub fn note_volume(&mut self, volume: &str, event: VolumeEvent, words: &str) {
        for subsystem in self.subsystems.values_mut() {
            let exports = subsystem.namespaces.values().any(|n| n.info.name == volume);
            if let Some(recorder) = subsystem.recorder.as_mut().filter(|_| exports) {
                recorder.note(vendor_event(timestamp(), event as u16, words));
            }
        }
        self.write_logs();
    }

    /// Notes the state of health where it is time to. Gives when it is time again.
    pub(super) fn note_health(&mut self, now: Instant) -> Option<Instant> {
        let recorders = self.subsystems.values_mut();
        let recorders = recorders.filter_map(|s| s.recorder.as_mut());
        let mut next = None;
        for recorder in recorders {
            if recorder.due <= now {
                recorder.note_health(now);
            }
            next = Some(next.map_or(recorder.due, |at: Instant| at.min(recorder.due)));
        }
        self.write_logs();
        next
    }

    /// Has every log written as it is now: how long its subsystem has served is known at the next start.
    pub(super) fn close_logs(&mut self) {
        for subsystem in self.subsystems.values_mut() {
            if let Some(recorder) = &mut subsystem.recorder {
                recorder.changed = true;
            }
        }
        self.write_logs();
    }

    /// Whether every log is written as it is, or could not be.
    pub(in crate::nvmf) fn logs_are_written(&self) -> bool {
        let mut recorders = self.subsystems.values().filter_map(|s| s.recorder.as_ref());
        recorders.all(|r| !r.changed) && self.event_log_writer.is_idle()
    }

    /// Has logs written in which something was noted, unless they are being written.
    fn write_logs(&mut self) {
        let Some(hub) = &self.hub else { return };
        for subsystem in self.subsystems.values_mut() {
            let recorder = subsystem.recorder.as_mut();
            let Some(recorder) = recorder.filter(|r| r.changed && r.writing.is_none()) else {
                continue;
            };
            recorder.changed = false;
            let image = recorder.log.image(Instant::now());
            match self.event_log_writer.write(image, &hub.outbox) {
                Ok(errand) => recorder.writing = Some(errand),
                Err(error) => tracing::error!("event logs cannot be written: {error}"),
            }
        }
    }

    /// A log was written, or not. What is not stays noted, and is written with the next event.
    pub(super) fn event_log_saved(&mut self, errand: u64, outcome: Result<Box<Snapshot>, String>) {
        self.event_log_writer.written(errand);
        let saved = outcome.map(|snapshot| Arc::new(*snapshot));
        if let Err(error) = &saved {
            tracing::error!("{error}");
        }
        let named = self.subsystems.iter_mut();
        let mut named = named.filter_map(|(nqn, s)| Some((nqn, s.recorder.as_mut()?)));
        // It may be that of a log that was ended.
        let Some((nqn, recorder)) = named.find(|(_, r)| r.writing == Some(errand)) else {
            return;
        };
        recorder.writing = None;
        if let Ok(saved) = saved {
            recorder.saved = saved;
            let nqn = nqn.clone();
            self.publish(&nqn);
        }
        self.write_logs();
    }

    /// I/O queues of a subsystem have moved something, or commands of theirs have failed.
    pub(super) fn count(&mut self, queue: ConnectionId, counts: &Counts, failures: &Failures) {
        let association = self.associations.association(queue);
        let id = association.map(|a| a.subsystem);
        let mut subsystems = self.subsystems.values_mut();
        let subsystem = subsystems.find(|s| Some(s.id) == id);
        if let Some(recorder) = subsystem.and_then(|s| s.recorder.as_mut()) {
            recorder.counts.add(counts);
            recorder.errors += failures.newest.len() as u64 + failures.more;
        }
    }
}
