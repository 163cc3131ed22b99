//! Namespaces whose device has another size.

use std::sync::Arc;
use std::time::Instant;

use super::super::message::GroupCommand;
use super::Target;
use crate::bdev::Info;

impl Target {
    /// Tells hosts the new size of a device, wherever it is exported. Waits for reactors: a host that
    /// has learnt the size from one reactor may use it at once on another. Does nothing for a device
    /// that is not exported.
    pub fn resize(&mut self, info: &Info) {
        let mut views = Vec::new();
        for subsystem in self.subsystems.values_mut() {
            let namespaces = subsystem.namespaces.values_mut();
            let mut of_device = namespaces.filter(|n| n.info.name == info.name).peekable();
            if of_device.peek().is_some() {
                of_device.for_each(|namespace| namespace.info = info.clone());
                views.push(Arc::new(subsystem.view()));
            }
        }
        let tickets: Vec<_> = views
            .iter()
            .map(|view| {
                self.groups.begin(|ticket| GroupCommand::Resized {
                    view: view.clone(),
                    ticket,
                })
            })
            .collect();
        let until = Instant::now() + self.setup.confirmation;
        let complete = self.wait_until(until, |target| {
            tickets
                .iter()
                .all(|&ticket| target.groups.is_complete(ticket))
        });
        for ticket in tickets {
            self.groups.finish(ticket);
        }
        if !complete {
            tracing::warn!("a reactor is late to learn the size of bdev {}", info.name);
        }
        for view in views {
            self.groups
                .broadcast(|| GroupCommand::Subsystem(view.clone()));
        }
    }
}
