//! Mailboxes: from any thread to one reactor (or to the owner of an [`Events`](super::Events)).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

use super::doorbell::Waker;

/// Makes a mailbox for `capacity` messages (at least 1), whose owner `waker` wakes.
///
/// # Panics
/// When `capacity` is 0.
pub fn mailbox<T>(waker: &Waker, capacity: usize) -> (MailboxSender<T>, Mailbox<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity),
        closed: AtomicBool::new(false),
    });
    let sender = MailboxSender {
        shared: shared.clone(),
        waker: waker.clone(),
    };
    (sender, Mailbox { shared })
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    /// The mailbox is gone; nobody will take what is sent.
    closed: AtomicBool,
}

/// The way into a mailbox, for any number of threads.
pub struct MailboxSender<T> {
    shared: Arc<Shared<T>>,
    waker: Waker,
}

impl<T> MailboxSender<T> {
    /// Puts a message in, and wakes the owner if it sleeps.
    ///
    /// # Errors
    /// The message, when the mailbox is full (try again later) or gone
    /// ([`MailboxSender::is_closed`]: for ever).
    pub fn send(&self, message: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(message);
        }
        self.shared.queue.push(message)?;
        self.waker.wake();
        Ok(())
    }

    /// Whether the mailbox has been dropped. Messages it had not taken are dropped with it, or
    /// with the last sender.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            waker: self.waker.clone(),
        }
    }
}

impl<T> fmt::Debug for MailboxSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxSender")
            .field("queued", &self.shared.queue.len())
            .finish_non_exhaustive()
    }
}

/// The owner's end: look into it in every turn.
pub struct Mailbox<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Mailbox<T> {
    /// Takes the oldest message, if there is one.
    pub fn receive(&mut self) -> Option<T> {
        self.shared.queue.pop()
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        while self.shared.queue.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("queued", &self.shared.queue.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Events;
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let events = Events::new().unwrap();
        let (sender, mut mailbox) = mailbox(&events.waker(), 2);
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(sender.clone().send(2), Ok(()));
        assert_eq!(sender.send(3), Err(3));
        assert_eq!(mailbox.receive(), Some(1));
        assert_eq!(sender.send(3), Ok(()));
        assert_eq!(mailbox.receive(), Some(2));
        assert_eq!(mailbox.receive(), Some(3));
        assert_eq!(mailbox.receive(), None);
    }

    #[test]
    fn a_mailbox_that_is_gone_says_so_and_drops_what_it_held() {
        let events = Events::new().unwrap();
        let message = Arc::new(());
        let (sender, mailbox) = mailbox(&events.waker(), 2);
        sender.send(message.clone()).unwrap();
        assert!(!sender.is_closed());
        drop(mailbox);
        assert!(sender.is_closed());
        assert_eq!(Arc::strong_count(&message), 1);
        assert!(sender.send(message.clone()).is_err());
    }

    #[test]
    fn many_senders_lose_nothing_and_the_sleeper_hears_of_all() {
        const EACH: u64 = 2000;
        let events = Events::new().unwrap();
        let (sender, mut mailbox) = mailbox(&events.waker(), 4);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for n in 1..=EACH {
                        while sender.send(n).is_err() {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let (mut count, mut sum) = (0, 0);
        let mut ready = Vec::new();
        while count < 3 * EACH {
            // No timeout: a wake that is lost hangs the test.
            events.wait(None, &mut ready).unwrap();
            while let Some(n) = mailbox.receive() {
                count += 1;
                sum += n;
            }
        }
        assert_eq!(sum, 3 * EACH * (EACH + 1) / 2);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
