//! `stripewise top`: what a serving process does now, in a terminal.
//!
//! A thread of its own asks the process, so that the keys work while it does not answer.

mod figures;
mod picture;
mod screen;
mod watcher;

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::picture::Picture;
use self::screen::Screen;
use self::watcher::{Watcher, watch};
use super::client::{Client, ClientError};

/// How often keys are looked for.
const KEYS: Duration = Duration::from_millis(50);

/// Columns of text that is printed.
const COLUMNS: u16 = 120;

/// Shows reactors, volumes, devices, hosts and the counters that move most. Keys: q ends it, p holds
/// it still, up and down move through the devices.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    client: Client,
    /// Seconds between two looks, 0.1 to 3600.
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    delay: f64,
    /// Print text instead of drawing on the terminal.
    #[arg(short, long)]
    batch: bool,
    /// End after so many pictures.
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
}

/// It cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Nobody sees it.
    #[error("the standard output is no terminal; --batch prints text")]
    NoTerminal,
    /// The terminal does not do what it should.
    #[error("the terminal cannot be used: {0}")]
    Terminal(io::Error),
    /// There is nothing to print.
    #[error(transparent)]
    Client(#[from] ClientError),
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.1 to 3600 is expected".into()),
    }
}

impl Args {
    /// Watches until it is told to end.
    ///
    /// # Errors
    /// [`TopError`].
    pub fn run(self) -> Result<(), TopError> {
        let delay = Duration::from_secs_f64(self.delay);
        if self.batch {
            return self.print(delay);
        }
        if !io::stdout().is_terminal() {
            return Err(TopError::NoTerminal);
        }
        let looks = watch(self.client, delay);
        let mut terminal = ratatui::try_init().map_err(TopError::Terminal)?;
        let done = show(&mut terminal, &looks, self.count);
        ratatui::restore();
        done.map_err(TopError::Terminal)
    }

    fn print(self, delay: Duration) -> Result<(), TopError> {
        let mut watcher = Watcher::new(self.client);
        watcher.look()?;
        let mut left = self.count;
        while left != Some(0) {
            std::thread::sleep(delay);
            let Some(picture) = watcher.look()? else {
                continue;
            };
            let text = screen::text(&picture, COLUMNS) + "\n";
            if io::stdout().write_all(text.as_bytes()).is_err() {
                // Whoever has left does not want to know.
                return Ok(());
            }
            left = left.map(|n| n - 1);
        }
        Ok(())
    }
}

/// What there is to draw next.
type Look = Result<Picture, ClientError>;

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    looks: &Receiver<Look>,
    mut left: Option<u32>,
) -> io::Result<()> {
    let mut screen = Screen::default();
    loop {
        match looks.recv_timeout(KEYS) {
            Ok(look) => {
                screen.take(look);
                left = left.map(|n| n.saturating_sub(1));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        terminal.draw(|frame| screen.draw(frame))?;
        if left == Some(0) {
            return Ok(());
        }
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if control => return Ok(()),
                    KeyCode::Char('p') => screen.hold(),
                    KeyCode::Up => screen.up(),
                    KeyCode::Down => screen.down(),
                    _ => {}
                }
            }
        }
    }
}
