//! Programs under test: logged, measured, stopped and killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::wait_until;

/// CPU time and memory of a process and its descendants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time, of children that have ended too.
    pub cpu: Duration,
    /// Resident memory now, bytes.
    pub rss: u64,
    /// Most resident memory so far, bytes (the sum of each one's most).
    pub rss_peak: u64,
}

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ended: Option<(ExitStatus, Usage)>,
}

impl Process {
    /// Starts `command`, with stdout and stderr going to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().append(true).create(true).open(log).expect("log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("log file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self { child, name: name.to_owned(), log: log.to_owned(), ended: None }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal, for example [`Signal::STOP`] and [`Signal::CONT`]. Returns from the former when nothing of the process
    /// runs any more: threads on other processors go on for a moment.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // A program that has just ended on its own is no error.
            let sent = kill_process(self.pid(), signal);
            if sent.is_ok() && signal == Signal::STOP {
                wait_until(Duration::from_secs(5), || self.stands_still());
            }
        }
    }

    /// Whether every thread is stopped (or gone).
    fn stands_still(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten();
        let mut states = tasks.flatten().filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            // "pid (name) S ...", and the name may hold anything.
            stat.rsplit_once(") ")?.1.chars().next()
        });
        states.all(|state| "TtZX".contains(state))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(10));
    }

    /// Asks it to end (SIGTERM) and returns how it did.
    ///
    /// # Panics
    /// When it has not ended within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(limit).unwrap_or_else(|| {
            panic!("{} did not end within {limit:?} of SIGTERM\n{}", self.name, self.log())
        })
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.poll().is_none()
    }

    /// Waits for its end; `None` when it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_until(limit, || self.poll().is_some());
        self.ended.map(|(status, _)| status)
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // Look before reaping: /proc still knows the CPU time of an ended process
            // and of all the children it waited for.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(self.pid()), options).expect("waitid")?;
            let usage = usage_of(self.id()).unwrap_or_default();
            let status = self.child.wait().expect("wait");
            self.ended = Some((status, usage));
        }
        self.ended.map(|(status, _)| status)
    }

    /// What it has used so far, with its running children and those it waited for.
    pub fn usage(&mut self) -> Usage {
        match self.poll() {
            Some(_) => self.ended.map(|(_, usage)| usage).unwrap_or_default(),
            None => usage_of_tree(self.id()),
        }
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until its log contains `text`.
    ///
    /// # Panics
    /// When that has not happened within `limit`, or the program ended.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) {
        let start = Instant::now();
        loop {
            if self.log().contains(text) {
                return;
            }
            let ended = self.poll();
            assert!(
                ended.is_none() && start.elapsed() < limit,
                "{}: no {text:?} in its log after {:?} (ended: {ended:?})\n{}",
                self.name,
                start.elapsed(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.poll().is_none() {
            self.signal(Signal::CONT);
            self.kill();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(LOG_TAIL);
            let tail = (tail..log.len()).find(|i| log.is_char_boundary(*i)).unwrap_or(log.len());
            eprintln!("---- log of {} ({:?})\n{}", self.name, self.ended, &log[tail..]);
        }
    }
}

/// How much of a log is shown when a test fails, bytes.
const LOG_TAIL: usize = 8000;

/// The usage of a process and all its running descendants.
fn usage_of_tree(root: u32) -> Usage {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut tree = vec![root];
    let mut total = Usage::default();
    while let Some(pid) = tree.pop() {
        let usage = usage_of(pid).unwrap_or_default();
        total.cpu += usage.cpu;
        total.rss += usage.rss;
        total.rss_peak += usage.rss_peak;
        tree.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(pid, _)| pid));
    }
    total
}

/// The fields of `/proc/PID/stat` from the third on (see proc(5)).
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_fields(pid)?.get(1)?.parse().ok()
}

/// Reads the usage of a process, a zombie included, from `/proc`.
fn usage_of(pid: u32) -> Option<Usage> {
    let fields = stat_fields(pid)?;
    // utime, stime, cutime, cstime are fields 14 to 17; `fields` starts at 3.
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    let cpu =
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_matches([':', ' ', '\t']).strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some(Usage {
        cpu,
        rss: kib("VmRSS").unwrap_or(0) << 10,
        rss_peak: kib("VmHWM").unwrap_or(0) << 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    #[test]
    fn a_process_is_logged_measured_and_killed() {
        let scratch = Scratch::new();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo spun; sleep 60"]);
        let mut process = Process::start("sh", shell, &scratch.path().join("log"));
        process.wait_for_log("spun", Duration::from_secs(20));
        assert!(process.is_alive());
        assert!(process.usage().rss > 0);
        process.kill();
        assert!(!process.is_alive());
        assert!(process.usage().cpu > Duration::ZERO);
    }

    #[test]
    fn the_cpu_time_of_children_counts() {
        let scratch = Scratch::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; true"]);
        let mut process = Process::start("sh", shell, &scratch.path().join("log"));
        assert!(process.wait(Duration::from_secs(30)).expect("ended").success());
        assert!(process.usage().cpu > Duration::from_millis(20), "{:?}", process.usage());
    }
}
