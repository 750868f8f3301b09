//! The progress of the farm: a display on a terminal, a line per event elsewhere.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::build::Build;

/// Shows what happens.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    display: Option<Display>,
}

#[derive(Debug)]
struct Display {
    all: MultiProgress,
    total: ProgressBar,
    running: Mutex<HashMap<i64, ProgressBar>>,
}

impl Progress {
    /// Shows a display on a terminal, and lines otherwise.
    pub(crate) fn new(terminal: bool) -> Self {
        let display = terminal.then(|| {
            let all = MultiProgress::new();
            let total = all.add(
                ProgressBar::new(0).with_style(
                    ProgressStyle::with_template("{elapsed:>4} [{bar:40}] {pos}/{len} builds {msg}")
                        .unwrap_or_else(|_| ProgressStyle::default_bar())
                        .progress_chars("=> "),
                ),
            );
            Display { all, total, running: Mutex::default() }
        });
        Self { began: Instant::now(), display }
    }

    /// Says a line.
    pub(crate) fn say(&self, text: &str) {
        let line = format!("{:6.1} s  {text}", self.began.elapsed().as_secs_f64());
        match &self.display {
            // The display's lines stay below; what it cannot print is no reason to stop.
            Some(display) => drop(display.all.println(line)),
            None => println!("{line}"),
        }
    }

    /// Shows the difference between two moments.
    pub(crate) fn show(&self, before: &[Build], now: &[Build]) {
        let old: HashMap<i64, &Build> = before.iter().map(|build| (build.id, build)).collect();
        if before.is_empty() && !now.is_empty() {
            self.say(&format!("The evaluation has given {} builds.", now.len()));
        }
        for build in now {
            if old.get(&build.id).is_none_or(|old| old.state != build.state) {
                self.say_change(build);
            }
        }
        if let Some(display) = &self.display {
            display.update(now);
        }
    }

    fn say_change(&self, build: &Build) {
        let Build { name, .. } = build;
        let place = build.place();
        let text = match build.state.as_str() {
            "running" => format!("{place} builds {name}"),
            "succeeded" => {
                format!("{name} succeeded on {place} in {:.1} s", build.seconds.unwrap_or_default())
            }
            "failed" | "failed_other" => format!("{name}: {} on {place}", build.result()),
            "failed_dependency" | "canceled" => format!("{name}: {}", build.result()),
            // Waiting, handing over and fetching are seen in the display only.
            _ => return,
        };
        self.say(&text);
    }

    /// Takes the display away.
    pub(crate) fn finish(&self) {
        if let Some(display) = &self.display {
            for bar in lock(&display.running).drain() {
                bar.1.finish_and_clear();
            }
            display.total.finish_and_clear();
        }
    }
}

impl Display {
    fn update(&self, builds: &[Build]) {
        self.total.set_length(builds.len() as u64);
        self.total.set_position(builds.iter().filter(|build| build.status >= 0).count() as u64);
        let count = |state: &str| builds.iter().filter(|build| build.state == state).count();
        self.total.set_message(format!("({} ready, {} waiting)", count("ready"), count("waiting")));
        let mut running = lock(&self.running);
        for build in builds {
            let active = matches!(build.state.as_str(), "assigned" | "running" | "built" | "fetching");
            if !active {
                if let Some(bar) = running.remove(&build.id) {
                    bar.finish_and_clear();
                }
                continue;
            }
            let bar = running.entry(build.id).or_insert_with(|| {
                let bar = self.all.add(ProgressBar::new_spinner());
                bar.enable_steady_tick(Duration::from_millis(120));
                bar
            });
            bar.set_message(format!("{:10} {:24} {}", build.place(), build.name, build.result()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Only this module locks it, and never panics meanwhile.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
