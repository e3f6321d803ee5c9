//! Progress for whoever waits: bars on a terminal, lines elsewhere. On stderr.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use imagewright_common::status::{JobStatus, Transfer};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::report;
use crate::watch::{News, label, standing};

/// Without a terminal, a job's progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

const WAITING: &str = "{spinner} {prefix}  {wide_msg}";
const SENDING: &str = "{spinner} {prefix}  [{bar:10}] {wide_msg}";
const ENDED: &str = "  {prefix}  {wide_msg}";

/// How progress is shown.
pub(crate) enum Display {
    /// Not at all.
    Silent,
    /// A line for each change.
    Lines(Lines),
    /// A bar for each job.
    Bars(Bars),
}

#[derive(Default)]
pub(crate) struct Lines {
    jobs: HashMap<String, Told>,
}

/// What was last said of a job.
#[derive(Default)]
struct Told {
    /// The last two different lines: a transfer that goes on while its job waits turns to and fro all the time.
    standings: [String; 2],
    progress: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Bars {
    screen: MultiProgress,
    jobs: HashMap<String, ProgressBar>,
}

impl Display {
    /// Bars where somebody looks, lines where something reads.
    pub(crate) fn new(quiet: bool) -> Display {
        if quiet {
            Display::Silent
        } else if std::io::stderr().is_terminal() {
            Display::Bars(Bars::default())
        } else {
            Display::Lines(Lines::default())
        }
    }

    /// Show what an event said.
    pub(crate) fn show(&mut self, news: &News) {
        match self {
            Display::Silent => {}
            Display::Lines(lines) => {
                if let Some(line) = lines.line(news, Instant::now()) {
                    report::note(&line);
                }
            }
            Display::Bars(bars) => bars.show(news),
        }
    }

    /// Say something that is not about one job.
    pub(crate) fn note(&self, line: &str) {
        match self {
            Display::Silent => {}
            Display::Lines(_) => report::note(line),
            Display::Bars(bars) => bars.screen.suspend(|| report::note(line)),
        }
    }

    /// Leave what is shown where it is.
    pub(crate) fn finish(&self) {
        match self {
            Display::Silent | Display::Lines(_) => {}
            Display::Bars(bars) => bars.jobs.values().filter(|bar| !bar.is_finished()).for_each(ProgressBar::abandon),
        }
    }
}

impl Lines {
    fn line(&mut self, news: &News, now: Instant) -> Option<String> {
        match news {
            News::Turn(job) => {
                let told = self.jobs.entry(job.id.clone()).or_default();
                let standing = standing(job);
                if told.standings.contains(&standing) && !job.state.is_terminal() {
                    return None;
                }
                told.standings.rotate_left(1);
                told.standings[1].clone_from(&standing);
                Some(format!("{}: {standing}", label(job)))
            }
            News::Progress(job) => {
                let told = self.jobs.entry(job.id.clone()).or_default();
                if told.progress.is_some_and(|last| now.duration_since(last) < PROGRESS_EVERY) {
                    return None;
                }
                told.progress = Some(now);
                job.transfer.map(|transfer| format!("{}: {}", label(job), progress(transfer)))
            }
            News::Warning(job, message) => Some(format!("warning: {}: {message}", label(job))),
        }
    }
}

impl Bars {
    fn show(&mut self, news: &News) {
        match news {
            News::Turn(job) | News::Progress(job) => self.update(job),
            News::Warning(job, message) => {
                self.screen.suspend(|| report::note(&format!("warning: {}: {message}", label(job))));
            }
        }
    }

    fn update(&mut self, job: &JobStatus) {
        let screen = &self.screen;
        let bar = self.jobs.entry(job.id.clone()).or_insert_with(|| {
            let bar = screen.add(ProgressBar::no_length().with_style(style(WAITING)));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let arch = job.arch.as_deref().map(|arch| format!(" {arch}")).unwrap_or_default();
        let (cloud, kind) = (report::word(job.cloud.as_deref()), report::word(job.kind.as_deref()));
        bar.set_prefix(report::plain(&format!("{cloud}: {kind} {}{arch}", report::word(job.name.as_deref()))));
        if job.state.is_terminal() {
            bar.set_style(style(ENDED));
            bar.abandon_with_message(report::plain(&standing(job)));
        } else if let Some(transfer) = job.transfer {
            bar.set_style(style(SENDING));
            bar.set_length(transfer.total);
            bar.set_position(transfer.bytes);
            bar.set_message(short(transfer));
        } else {
            bar.set_style(style(WAITING));
            bar.set_message(report::plain(&standing(job)));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// `1.2 GiB of 4.0 GiB (30 %), 110.0 MiB/s, 26 s left`
fn progress(transfer: Transfer) -> String {
    let Transfer { bytes, total, rate } = transfer;
    let percent = if total == 0 { 100 } else { u128::from(bytes) * 100 / u128::from(total) };
    let left = left(transfer).map(|left| format!(", {left} left")).unwrap_or_default();
    format!("{} of {} ({percent} %), {}/s{left}", report::size(bytes), report::size(total), report::size(rate))
}

/// The same beside a bar, where 80 columns must do.
fn short(transfer: Transfer) -> String {
    let Transfer { bytes, total, rate } = transfer;
    let left = left(transfer).map(|left| format!(" {left}")).unwrap_or_default();
    format!("{}/{} {}/s{left}", report::size(bytes), report::size(total), report::size(rate))
}

fn left(transfer: Transfer) -> Option<String> {
    let seconds = transfer.total.saturating_sub(transfer.bytes).checked_div(transfer.rate)?;
    Some(match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use imagewright_common::status::State;

    fn job(state: State, bytes: Option<u64>) -> JobStatus {
        let transfer = bytes.map(|bytes| Transfer { bytes, total: 1 << 30, rate: 10 << 20 });
        JobStatus { id: "j".to_owned(), kind: Some("upload".to_owned()), state, transfer, ..JobStatus::default() }
    }

    #[test]
    fn progress_tells_bytes_rate_and_the_time_left() {
        let shown = |bytes, total, rate| progress(Transfer { bytes, total, rate });
        assert_eq!(shown(1 << 29, 1 << 30, 10 << 20), "512.0 MiB of 1.0 GiB (50 %), 10.0 MiB/s, 51 s left");
        assert_eq!(shown(0, 1 << 40, 100 << 20), "0 B of 1.0 TiB (0 %), 100.0 MiB/s, 2 h 54 min left");
        assert_eq!(shown(0, 0, 0), "0 B of 0 B (100 %), 0 B/s");
        let beside_a_bar = short(Transfer { bytes: 1 << 29, total: 1 << 30, rate: 10 << 20 });
        assert_eq!(beside_a_bar, "512.0 MiB/1.0 GiB 10.0 MiB/s 51 s");
    }

    #[test]
    fn a_line_for_each_turn_and_one_every_five_seconds_for_progress() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        let mut said = |news, seconds| lines.line(&news, start + Duration::from_secs(seconds)).is_some();
        assert!(said(News::Turn(job(State::Running, None)), 0));
        assert!(said(News::Progress(job(State::Running, Some(1))), 1));
        assert!(!said(News::Progress(job(State::Running, Some(2))), 5));
        assert!(said(News::Progress(job(State::Running, Some(3))), 6));
        assert!(said(News::Turn(job(State::Waiting, None)), 7));
        assert!(!said(News::Turn(job(State::Running, None)), 8), "to and fro");
        assert!(!said(News::Turn(job(State::Waiting, None)), 9), "to and fro");
        assert!(said(News::Turn(job(State::Succeeded, None)), 10));
        assert!(said(News::Warning(job(State::Succeeded, None), "w".to_owned()), 11));
    }
}
