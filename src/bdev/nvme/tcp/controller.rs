//! A remote controller, as those see it who attach and detach it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;

use super::keeper::Keeper;
use super::link::{Link, Order, Phase};
use super::namespace::TcpNamespace;
use super::options::{RecoveryError, TcpOptions};
use super::status::Status;
use crate::bdev::CreateError;
use crate::lock;
use crate::nvme::log_page::Health;

/// A controller cannot be attached as it was described.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Times that contradict one another.
    #[error("controller {name}: {source}")]
    Recovery {
        /// The controller.
        name: String,
        /// What is wrong.
        source: RecoveryError,
    },
    /// There is no thread, or no descriptor, for it.
    #[error("controller {name}: the system refuses what it takes to keep it: {source}")]
    System {
        /// The controller.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A controller that is kept attached until this is dropped. See the [module](super).
#[derive(Debug)]
pub struct TcpController {
    name: String,
    options: TcpOptions,
    link: Arc<Link>,
}

/// The health log page that was asked for, when it has come.
#[derive(Debug)]
pub struct HealthAnswer(mpsc::Receiver<Result<Box<Health>, String>>);

impl TcpController {
    /// Begins to attach the controller at `address`. [`TcpController::status`] shows how far it has
    /// come; it is tried for until it is there or this is dropped.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(
        name: &str,
        options: TcpOptions,
        address: SocketAddr,
    ) -> Result<Self, AttachError> {
        let checked = options.recovery.check();
        checked.map_err(|source| AttachError::Recovery {
            name: name.to_owned(),
            source,
        })?;
        let refused = |source| AttachError::System {
            name: name.to_owned(),
            source,
        };
        let link = Arc::new(Link::new(options.io_queues).map_err(refused)?);
        let keeper = Keeper::new(name, options.clone(), link.clone(), address);
        // The kernel cuts names at 15 bytes.
        thread::Builder::new()
            .name(format!("nvme_{name}"))
            .spawn(move || keeper.run())
            .map_err(refused)?;
        Ok(Self {
            name: name.to_owned(),
            options,
            link,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was to be attached.
    pub fn options(&self) -> &TcpOptions {
        &self.options
    }

    /// How it stands with it.
    pub fn phase(&self) -> Phase {
        self.link.state().phase
    }

    /// What is known of it.
    pub fn status(&self) -> Status {
        lock::exclusive(&self.link.status).clone()
    }

    /// Its namespaces as devices, each named after the controller and its number, `NAMEn1`. Empty
    /// until it is attached. Namespaces that this process cannot use are left out, with a word in
    /// the log.
    pub fn namespaces(&self) -> Vec<Arc<TcpNamespace>> {
        let Some(facts) = self.status().facts else {
            return Vec::new();
        };
        let make =
            |namespace| TcpNamespace::new(&self.name, &self.options, &self.link, &facts, namespace);
        let made = facts.namespaces.iter().map(make);
        let usable = |made: Result<Arc<TcpNamespace>, CreateError>| match made {
            Ok(namespace) => Some(namespace),
            Err(error) => {
                tracing::warn!("controller {}: {error}", self.name);
                None
            }
        };
        made.filter_map(usable).collect()
    }

    /// Adds another address of the same subsystem, to be tried when the one in use fails.
    pub fn add_address(&self, address: SocketAddr) {
        self.link.order(Order::Address(address));
    }

    /// Ends the association and makes a new one. I/O waits meanwhile.
    pub fn reset(&self) {
        self.link.order(Order::Reset);
    }

    /// Asks for the health log page.
    pub fn ask_health(&self) -> HealthAnswer {
        let (sender, receiver) = mpsc::channel();
        self.link.order(Order::Health(sender));
        HealthAnswer(receiver)
    }
}

impl Drop for TcpController {
    fn drop(&mut self) {
        self.link.order(Order::Detach);
    }
}

impl HealthAnswer {
    /// The page, or why there is none; `None` while it is on its way.
    pub fn poll(&self) -> Option<Result<Box<Health>, String>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(Err("the controller is gone".to_owned())),
        }
    }
}
