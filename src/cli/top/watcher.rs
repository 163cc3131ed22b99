//! Looking at a serving process again and again.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Look;
use super::picture::Picture;
use crate::cli::answers::{Answers, each, text};
use crate::cli::client::{Client, ClientError};
use crate::cli::progress::Progress;

/// What was answered at one time.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) answers: Answers,
    /// Queues of hosts: the name of a subsystem, and the answer to `nvmf_subsystem_get_qpairs`.
    pub(super) queues: Vec<(String, Value)>,
}

/// Remembers what it has seen last, to tell what has happened since.
#[derive(Debug)]
pub(super) struct Watcher {
    client: Client,
    before: Option<Moment>,
    /// What is rebuilt, resynced or checked, by volume.
    progress: BTreeMap<String, Progress>,
}

impl Watcher {
    /// It has seen nothing yet.
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            before: None,
            progress: BTreeMap::new(),
        }
    }

    /// Looks; gives a picture if it has looked before.
    ///
    /// # Errors
    /// [`ClientError`]. What was seen before is forgotten then: the process may be another one.
    pub(super) fn look(&mut self) -> Result<Option<Picture>, ClientError> {
        let before = self.before.take();
        let moment = self.ask()?;
        self.follow(&moment.answers, Instant::now());
        let picture = before.map(|before| Picture::new(&before, &moment, &self.progress));
        self.before = Some(moment);
        Ok(picture)
    }

    fn ask(&self) -> Result<Moment, ClientError> {
        let answers = Answers::ask(&self.client)?;
        let subsystems = each(&answers.subsystems);
        let names: Vec<&str> = subsystems.map(|of| text(of, "nqn")).collect();
        let params: Vec<Value> = names.iter().map(|nqn| json!({"nqn": nqn})).collect();
        let asked = self
            .client
            .call_each("nvmf_subsystem_get_qpairs", &params)?;
        // One may have been deleted meanwhile.
        let had = names.into_iter().zip(asked);
        let queues = had.filter_map(|(nqn, of)| Some((nqn.to_owned(), of?)));
        Ok(Moment {
            queues: queues.collect(),
            answers,
        })
    }

    /// Follows what is rebuilt, resynced or checked.
    fn follow(&mut self, answers: &Answers, now: Instant) {
        let mut before = std::mem::take(&mut self.progress);
        for volume in each(&answers.volumes) {
            let process = &volume["process"];
            if process.is_null() {
                continue;
            }
            let (name, kind) = (text(volume, "name"), text(process, "type"));
            let count = |key: &str| process["progress"][key].as_u64().unwrap_or(0);
            let (blocks, percent) = (count("blocks"), count("percent"));
            let progress = match before.remove(name).filter(|p| p.is_of(kind)) {
                Some(mut progress) => {
                    progress.advance(blocks, percent, now);
                    progress
                }
                None => Progress::begin(kind, blocks, percent, now),
            };
            self.progress.insert(name.to_owned(), progress);
        }
    }
}

/// Looks again and again, on a thread that ends when nobody takes what it has seen.
pub(super) fn watch(client: Client, delay: Duration) -> Receiver<Look> {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let mut watcher = Watcher::new(client);
        loop {
            if let Some(look) = watcher.look().transpose()
                && sender.send(look).is_err()
            {
                return;
            }
            thread::sleep(delay);
        }
    });
    receiver
}
