//! The thread that writes reservations to their files: a disk may take its time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::{Reservation, ReservationFile};
use crate::nvmf::message::GroupEvent;
use crate::reactor::MailboxSender;

/// How long to wait where the control thread has no room for an answer.
const PATIENCE: Duration = Duration::from_millis(1);

/// Something to be written.
#[derive(Debug)]
pub struct Errand {
    /// What the answer, [`GroupEvent::ReservationSaved`], names.
    pub id: u64,
    /// Where to.
    pub file: ReservationFile,
    /// What.
    pub reservation: Reservation,
}

/// Writes one file after another. There is no thread before the first; it ends with the target.
/// A namespace has one errand under way at most, so that what waits is bounded.
#[derive(Debug, Default)]
pub struct Writer {
    errands: Option<Sender<Errand>>,
    /// Files that are being written.
    open: BTreeMap<u64, PathBuf>,
}

impl Writer {
    /// Has something written. The answer comes through `outbox`.
    ///
    /// # Errors
    /// When the thread cannot be made: what the operating system said.
    pub fn write(
        &mut self,
        errand: Errand,
        outbox: &MailboxSender<(usize, GroupEvent)>,
    ) -> io::Result<()> {
        let errands = match &mut self.errands {
            Some(errands) => errands,
            none => none.insert(start(outbox.clone())?),
        };
        self.open.insert(errand.id, errand.file.path.clone());
        // The thread ends after this sender only.
        let _ = errands.send(errand);
        Ok(())
    }

    /// The answer has come.
    pub fn written(&mut self, id: u64) {
        self.open.remove(&id);
    }

    /// Whether a file is being written.
    pub fn is_writing(&self, path: &Path) -> bool {
        self.open.values().any(|open| open == path)
    }
}

fn start(outbox: MailboxSender<(usize, GroupEvent)>) -> io::Result<Sender<Errand>> {
    let (errands, inbox) = mpsc::channel();
    thread::Builder::new()
        .name("reservations".into())
        .spawn(move || run(&inbox, &outbox))?;
    Ok(errands)
}

fn run(inbox: &Receiver<Errand>, outbox: &MailboxSender<(usize, GroupEvent)>) {
    for errand in inbox {
        let outcome = errand.file.write(&errand.reservation);
        let outcome = outcome.map_err(|error| {
            let path = errand.file.path.display();
            format!(
                "ptpl_file {path} cannot be written: {error}; a host's command is refused for that"
            )
        });
        let id = errand.id;
        // The control side is no group; nobody looks at this number.
        let mut event = (0, GroupEvent::ReservationSaved { id, outcome });
        while let Err(back) = outbox.send(event) {
            if outbox.is_closed() {
                return;
            }
            event = back;
            thread::sleep(PATIENCE);
        }
    }
}
