//! The thread that writes event logs to their files: a disk may take its time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::snapshot::Snapshot;
use crate::nvmf::durable;
use crate::nvmf::message::GroupEvent;
use crate::reactor::MailboxSender;

/// How long to wait where the control thread has no room for an answer.
const PATIENCE: Duration = Duration::from_millis(1);

/// What is to be in a file, and what hosts are told then.
#[derive(Clone, Debug)]
pub struct Image {
    /// Which file.
    pub file: PathBuf,
    /// What is to be in it.
    pub bytes: Vec<u8>,
    /// The same for poll groups.
    pub snapshot: Snapshot,
}

impl Image {
    /// Writes it, so that after a crash at any time the file is as it was, or as it is to be.
    ///
    /// # Errors
    /// In words, with the name of the file.
    pub fn write(&self) -> Result<(), String> {
        durable::replace(&self.file, &self.bytes).map_err(|error| {
            format!(
                "event log {} cannot be written: {error}",
                self.file.display()
            )
        })
    }
}

/// Writes one file after another. There is no thread before the first; it ends with the target. A log has one errand under way at most, besides
/// that which ends it, so that what waits is bounded.
#[derive(Debug, Default)]
pub struct Writer {
    errands: Option<Sender<(u64, Image)>>,
    /// Files that are being written.
    open: BTreeMap<u64, PathBuf>,
    next: u64,
}

impl Writer {
    /// Has something written, and gives the number of this errand, which the answer,
    /// [`GroupEvent::EventLogSaved`], names. That comes through `outbox`.
    ///
    /// # Errors
    /// When the thread cannot be made: what the operating system said.
    pub fn write(
        &mut self,
        image: Image,
        outbox: &MailboxSender<(usize, GroupEvent)>,
    ) -> io::Result<u64> {
        let errands = match &mut self.errands {
            Some(errands) => errands,
            none => none.insert(start(outbox.clone())?),
        };
        let errand = self.next;
        self.next += 1;
        self.open.insert(errand, image.file.clone());
        // The thread ends after this sender only.
        let _ = errands.send((errand, image));
        Ok(errand)
    }

    /// The answer has come.
    pub fn written(&mut self, errand: u64) {
        self.open.remove(&errand);
    }

    /// Whether nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether a file is being written.
    pub fn is_writing(&self, file: &Path) -> bool {
        self.open.values().any(|open| open == file)
    }
}

fn start(outbox: MailboxSender<(usize, GroupEvent)>) -> io::Result<Sender<(u64, Image)>> {
    let (errands, inbox) = mpsc::channel();
    thread::Builder::new()
        .name("event-log".into())
        .spawn(move || run(&inbox, &outbox))?;
    Ok(errands)
}

fn run(inbox: &Receiver<(u64, Image)>, outbox: &MailboxSender<(usize, GroupEvent)>) {
    for (errand, image) in inbox {
        let outcome = image.write().map(|()| Box::new(image.snapshot));
        // The control side is no group; nobody looks at this number.
        let mut event = (0, GroupEvent::EventLogSaved { errand, outcome });
        while let Err(back) = outbox.send(event) {
            if outbox.is_closed() {
                return;
            }
            event = back;
            thread::sleep(PATIENCE);
        }
    }
}
