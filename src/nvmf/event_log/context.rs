//! What a host reads of the log while it reads it: the reporting context of one controller
//! (Base 5.16.1.14).

use super::snapshot::Page;
use crate::nvme::Status;
use crate::nvme::log_page::PersistentLogAction;

/// The reporting context of a controller: at most one, and the page as it was when it was established.
#[derive(Debug, Default)]
pub struct Context {
    page: Option<Page>,
    /// How many there were.
    established: u16,
}

impl Context {
    /// Does what a command asks for. Gives the page that it reads from; none where it reads nothing. `make`
    /// makes the page, with the number of the context.
    ///
    /// # Errors
    /// [`Status::COMMAND_SEQUENCE_ERROR`] for reading without a context and for establishing one while there
    /// is one; [`Status::INVALID_FIELD`] for the optional action that is not there.
    pub fn act(
        &mut self,
        action: PersistentLogAction,
        make: impl FnOnce(u16) -> Page,
    ) -> Result<Option<&Page>, Status> {
        let out_of_order = Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry();
        match action {
            PersistentLogAction::Read if self.page.is_none() => Err(out_of_order),
            PersistentLogAction::Read => Ok(self.page.as_ref()),
            PersistentLogAction::EstablishAndRead if self.page.is_some() => Err(out_of_order),
            PersistentLogAction::EstablishAndRead => {
                self.established = self.established.wrapping_add(1);
                self.page = Some(make(self.established));
                Ok(self.page.as_ref())
            }
            // No error where there is none.
            PersistentLogAction::Release => {
                self.page = None;
                Ok(None)
            }
            // Supported Log Pages says so.
            PersistentLogAction::EstablishAndReadHeader => {
                Err(Status::INVALID_FIELD.with_do_not_retry())
            }
        }
    }

    /// The controller was reset. The next context has another number all the same.
    pub fn reset(&mut self) {
        self.page = None;
    }
}
