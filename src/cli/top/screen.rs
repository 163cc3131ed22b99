//! A picture, drawn.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Row, Table, Widget};

use super::Look;
use super::figures::{bar, bytes, count, duration, nanoseconds};
use super::picture::{Counter, Device, Flow, Host, Picture, Reactor, Running, Volume};

/// Columns in which counters are told.
const COUNTER_COLUMNS: usize = 3;

/// Lines of counters at most.
const COUNTER_LINES: usize = 4;

/// Hosts that are shown at most; how many more there are is told.
const HOSTS: usize = 8;

/// What is on the terminal.
#[derive(Debug, Default)]
pub(super) struct Screen {
    picture: Option<Picture>,
    /// Why there is no newer one.
    trouble: Option<String>,
    held: bool,
    /// Devices that are above the first one shown.
    above: usize,
}

impl Screen {
    /// There is something new, unless it is held still.
    pub(super) fn take(&mut self, look: Look) {
        if self.held {
            return;
        }
        match look {
            Ok(picture) => (self.picture, self.trouble) = (Some(picture), None),
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    /// Holds the picture still, or no longer.
    pub(super) fn hold(&mut self) {
        self.held = !self.held;
    }

    /// Shows devices further up.
    pub(super) fn up(&mut self) {
        self.above = self.above.saturating_sub(1);
    }

    /// Shows devices further down.
    pub(super) fn down(&mut self) {
        let devices = self.picture.as_ref().map_or(0, |p| p.devices.len());
        self.above = (self.above + 1).min(devices.saturating_sub(1));
    }

    /// Draws it.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        self.paint(area, frame.buffer_mut());
    }

    fn paint(&self, area: Rect, buffer: &mut Buffer) {
        let [head, rest] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        self.head().render(head, buffer);
        if let Some(picture) = &self.picture {
            paint(picture, self.above, rest, buffer);
        }
    }

    fn head(&self) -> Line<'static> {
        let mut spans = Vec::new();
        match &self.picture {
            Some(picture) => spans.push(Span::raw(picture.version.clone())),
            None => spans.push(Span::raw("waiting for the first two looks")),
        }
        if let Some(trouble) = &self.trouble {
            let red = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
            spans.push(Span::styled(format!("  {trouble}"), red));
        } else if self.held {
            spans.push(Span::raw("  held still: p goes on"));
        } else {
            spans.push(Span::raw("  q ends, p holds still, up and down move"));
        }
        Line::from(spans)
    }
}

/// The picture as text of so many columns.
pub(super) fn text(picture: &Picture, columns: u16) -> String {
    let heights = parts(picture).map(|rows| usize::from(rows) + 2);
    let height: usize = heights.iter().sum();
    let area = Rect::new(0, 0, columns, u16::try_from(height).unwrap_or(u16::MAX));
    let mut buffer = Buffer::empty(area);
    paint(picture, 0, area, &mut buffer);
    let line = |y| {
        let cells = (0..area.width).map(|x| buffer[(x, y)].symbol());
        let line: String = cells.collect();
        line.trim_end().to_owned() + "\n"
    };
    let text: String = (0..area.height).map(line).collect();
    text.trim_end().to_owned() + "\n"
}

/// How many lines each part has, without its title and its names of columns.
fn parts(picture: &Picture) -> [u16; 5] {
    let counters = picture.counters.len().div_ceil(COUNTER_COLUMNS);
    [
        picture.reactors.len(),
        picture.volumes.len(),
        picture.devices.len(),
        picture.hosts.len().min(HOSTS),
        counters.min(COUNTER_LINES),
    ]
    .map(|lines| u16::try_from(lines).unwrap_or(u16::MAX - 2))
}

/// Draws what is in a picture, from a device on.
fn paint(picture: &Picture, above: usize, area: Rect, buffer: &mut Buffer) {
    let [reactors, volumes, _, hosts, counters] = parts(picture);
    let [reactors, volumes, devices, hosts, counters] = Layout::vertical([
        Constraint::Length(reactors + 2),
        Constraint::Length(volumes + 2),
        // What is left, but at least one device and its names of columns.
        Constraint::Min(3),
        Constraint::Length(hosts + 2),
        Constraint::Length(counters + 1),
    ])
    .areas(area);
    reactor_table(&picture.reactors).render(reactors, buffer);
    volume_table(&picture.volumes).render(volumes, buffer);
    device_table(&picture.devices[above.min(picture.devices.len())..]).render(devices, buffer);
    host_table(&picture.hosts).render(hosts, buffer);
    counter_table(&picture.counters).render(counters, buffer);
}

fn part(title: String) -> Block<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Block::new()
        .borders(Borders::TOP)
        .title(Span::styled(title, bold))
}

fn names(names: &[&'static str]) -> Row<'static> {
    let dim = Style::new().add_modifier(Modifier::DIM);
    Row::new(names.iter().map(|&name| Cell::from(name))).style(dim)
}

fn reactor_table(reactors: &[Reactor]) -> Table<'static> {
    let rows = reactors.iter().map(|r| {
        let colour = match r.busy {
            b if b >= 0.9 => Color::Red,
            b if b >= 0.6 => Color::Yellow,
            _ => Color::Green,
        };
        Row::new([
            Cell::from(r.name.clone()),
            Cell::from(r.core.clone()),
            Cell::from(format!("{:3.0}%", r.busy * 100.0)),
            Cell::from(bar(r.busy, 20)).style(Style::new().fg(colour)),
            Cell::from(count(r.queues)),
            Cell::from(count(r.commands)),
            Cell::from(count(r.pending)),
            Cell::from(count(r.starved)),
        ])
    });
    let widths = [16, 5, 5, 21, 7, 11, 8, 20].map(Constraint::Length);
    Table::new(rows, widths)
        .header(names(&[
            "reactor",
            "core",
            "busy",
            "",
            "queues",
            "commands/s",
            "pending",
            "waiting for memory",
        ]))
        .block(part(" Reactors ".into()))
}

fn volume_table(volumes: &[Volume]) -> Table<'static> {
    let rows = volumes.iter().map(|v| {
        let colour = match v.state.as_str() {
            "online" => Color::Green,
            "degraded" | "rebuilding" | "configuring" => Color::Yellow,
            _ => Color::Red,
        };
        Row::new([
            Cell::from(v.name.clone()),
            Cell::from(v.state.clone()).style(Style::new().fg(colour)),
            Cell::from(format!("{}/{}", v.present, v.members)),
            Cell::from(v.process.as_ref().map(running).unwrap_or_default()),
            Cell::from(v.lacks.clone()),
        ])
    });
    let widths = [
        Constraint::Length(16),
        Constraint::Length(12),
        Constraint::Length(8),
        Constraint::Length(50),
        Constraint::Fill(1),
    ];
    Table::new(rows, widths)
        .header(names(&["volume", "state", "members", "process", "lacks"]))
        .block(part(" Volumes ".into()))
}

/// A process in words: what, how far, how fast, how long still.
fn running(process: &Running) -> String {
    let mut words = process.kind.clone();
    if !process.target.is_empty() {
        words += &format!(" {}", process.target);
    }
    let ratio = process.percent as f64 / 100.0;
    words += &format!(" [{}] {}%", bar(ratio, 10), process.percent);
    if let Some(pace) = process.pace {
        words += &format!(" {} blk/s", count(pace));
    }
    if let Some(left) = process.left {
        words += &format!(" {} left", duration(left));
    }
    words
}

fn device_table(devices: &[Device]) -> Table<'static> {
    let rows = devices.iter().map(|d| {
        let mut cells = vec![Cell::from(d.name.clone())];
        for Flow {
            ops,
            bytes: moved,
            latency,
        } in [d.read, d.write]
        {
            cells.push(Cell::from(count(ops)));
            cells.push(Cell::from(format!("{}B", bytes(moved))));
            cells.push(Cell::from(nanoseconds(latency)));
        }
        let failed = match d.failed > 0.0 {
            true => Style::new().fg(Color::Red),
            false => Style::new(),
        };
        cells.push(Cell::from(count(d.failed)).style(failed));
        Row::new(cells)
    });
    let widths = [20, 9, 9, 9, 10, 10, 10, 8].map(Constraint::Length);
    Table::new(rows, widths)
        .header(names(&[
            "device", "reads/s", "bytes/s", "mean", "writes/s", "bytes/s", "mean", "failed",
        ]))
        .block(part(" Devices ".into()))
}

fn host_table(hosts: &[Host]) -> Table<'static> {
    let rows = hosts.iter().take(HOSTS).map(|h| {
        Row::new([
            h.nqn.clone(),
            h.peer.clone(),
            h.subsystem.clone(),
            h.controller.to_string(),
            h.io_queues.to_string(),
            h.state.clone(),
        ])
    });
    let title = match hosts.len().saturating_sub(HOSTS) {
        0 => " Hosts ".to_owned(),
        more => format!(" Hosts (and {more} more) "),
    };
    let widths = [
        Constraint::Fill(3),
        Constraint::Length(22),
        Constraint::Fill(2),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(12),
    ];
    Table::new(rows, widths)
        .header(names(&[
            "host",
            "from",
            "subsystem",
            "controller",
            "I/O queues",
            "state",
        ]))
        .block(part(title))
}

fn counter_table(counters: &[Counter]) -> Table<'static> {
    let most = COUNTER_COLUMNS * COUNTER_LINES;
    let shown = &counters[..counters.len().min(most)];
    let rows = shown.chunks(COUNTER_COLUMNS).map(|line| {
        let cell = |c: &Counter| format!("{:>6}/s {} {}", count(c.rate), c.volume, c.name);
        Row::new(line.iter().map(cell).collect::<Vec<_>>())
    });
    Table::new(rows, [Constraint::Fill(1); COUNTER_COLUMNS])
        .block(part(" Counters of stripe caches that move most ".into()))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::picture::tests::picture;
    use super::*;
    use crate::cli::client::ClientError;

    #[test]
    fn everything_is_on_the_page() {
        let page = text(&picture(), 120);
        for part in [
            "reactor_0        3      75%  |||||||||||||||",
            "degraded",
            "slot 1 m2",
            "rebuild m1 [|         ] 10% 10 blk/s 1m30s left",
            "two members are missing",
            "500       2.0MiB    200.0ms",
            "10.0.0.7:99",
            "20/s r joins_refused.closed",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
    }

    fn shown(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn no_terminal_is_too_small_and_nothing_seen_is_said() {
        let mut screen = Screen::default();
        assert!(shown(&screen, 80, 24).contains("waiting for the first"));
        screen.take(Ok(picture()));
        for (width, height) in [(1, 1), (5, 3), (40, 10), (300, 100)] {
            shown(&screen, width, height);
        }
        let error = ClientError::NoAnswer {
            method: "bdev_get_iostat".into(),
            reason: "the other side closed the connection".into(),
        };
        screen.take(Err(error));
        let page = shown(&screen, 120, 40);
        assert!(
            page.contains("the other side closed") && page.contains("reactor_0"),
            "{page}"
        );
    }

    #[test]
    fn keys_move_and_hold_still() {
        let mut screen = Screen::default();
        screen.take(Ok(picture()));
        screen.down();
        screen.down();
        assert_eq!(screen.above, 1, "two devices: the last stays");
        screen.up();
        screen.up();
        assert_eq!(screen.above, 0);
        screen.hold();
        let mut other = picture();
        other.version = "another".into();
        screen.take(Ok(other.clone()));
        assert!(!shown(&screen, 120, 40).contains("another"));
        screen.hold();
        screen.take(Ok(other));
        assert!(shown(&screen, 120, 40).contains("another"));
    }
}
