//! A program of this machine, ended with its children when it is silent for too long.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, Instant},
};

const BLOCK: usize = 1 << 16;
/// The most bytes of its error stream that are kept.
const MOST_ERROR: usize = 1 << 16;

/// The end of a program.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Its error stream.
    pub(crate) error: String,
}

pub(crate) enum Fault {
    /// It could not be started, or not be read.
    Program(io::Error),
    /// Its output could not be taken.
    Sink(io::Error),
    /// It wrote nothing for too long, and was ended.
    Silent,
}

enum Part {
    Output(Vec<u8>),
    Error(Vec<u8>),
    Fault(io::Error),
}

/// Ends the process group of a program when its run is over, whatever came in between.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            // A group without a process left is an error that counts for nothing.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Runs a program in a process group of its own, until it ends or is silent.
///
/// * `input`: its standard input.
/// * `silence`: the longest time without a byte, and from its last byte to its end.
/// * `sink`: takes its output.
///
/// # Errors
///
/// [`Fault`]. The program and its children have ended by then.
pub(crate) fn run(
    command: &mut Command,
    input: &[u8],
    silence: Duration,
    sink: &mut dyn Write,
) -> Result<Ended, Fault> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0);
    // SAFETY: it makes one system call.
    unsafe {
        // It does not outlive this process: nobody would bound it then.
        command.pre_exec(|| {
            Ok(rustix::process::set_parent_process_death_signal(Some(
                rustix::process::Signal::KILL,
            ))?)
        });
    }
    let mut group = Group(command.spawn().map_err(Fault::Program)?);
    let child = &mut group.0;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has answered already need not read. What is sent fits into a pipe.
        let _ = stdin.write_all(input);
    }
    let (sender, parts) = sync_channel(4);
    read_parts(child.stdout.take(), Part::Output, sender.clone());
    read_parts(child.stderr.take(), Part::Error, sender);
    let error = take_parts(&parts, silence, sink)?;
    let status = wait(child, silence)?;
    Ok(Ended { status, error })
}

/// Reads a stream in a thread, which ends with it: a child that left the group may keep it open.
fn read_parts(stream: Option<impl Read + Send + 'static>, part: fn(Vec<u8>) -> Part, sender: SyncSender<Part>) {
    let Some(mut stream) = stream else { return };
    std::thread::spawn(move || {
        let mut buffer = vec![0; BLOCK];
        loop {
            let told = match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => part(buffer[..count].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Part::Fault(error),
            };
            let is_over = matches!(told, Part::Fault(_));
            if sender.send(told).is_err() || is_over {
                return;
            }
        }
    });
}

fn take_parts(parts: &Receiver<Part>, silence: Duration, sink: &mut dyn Write) -> Result<String, Fault> {
    let mut said = Vec::new();
    loop {
        match parts.recv_timeout(silence) {
            Ok(Part::Output(bytes)) => sink.write_all(&bytes).map_err(Fault::Sink)?,
            Ok(Part::Error(bytes)) => {
                said.extend(bytes);
                let surplus = said.len().saturating_sub(MOST_ERROR);
                said.drain(..surplus);
            }
            Ok(Part::Fault(error)) => return Err(Fault::Program(error)),
            Err(RecvTimeoutError::Timeout) => return Err(Fault::Silent),
            Err(RecvTimeoutError::Disconnected) => return Ok(String::from_utf8_lossy(&said).into_owned()),
        }
    }
}

fn wait(child: &mut Child, silence: Duration) -> Result<ExitStatus, Fault> {
    let (until, mut pause) = (Instant::now() + silence, Duration::from_micros(200));
    loop {
        if let Some(status) = child.try_wait().map_err(Fault::Program)? {
            return Ok(status);
        }
        if Instant::now() > until {
            return Err(Fault::Silent);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const SHORT: Duration = Duration::from_millis(300);

    fn shell(script: &str, silence: Duration) -> (Result<Ended, Fault>, Vec<u8>) {
        let mut output = Vec::new();
        let ended = run(Command::new("sh").args(["-c", script]), b"in\n", silence, &mut output);
        (ended, output)
    }

    /// Waits until no process has this id.
    fn is_gone(pid: &str) -> bool {
        let place = Path::new("/proc").join(pid);
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let state = std::fs::read_to_string(place.join("stat")).unwrap_or_default();
            // One that its new parent has not taken in yet is over, too.
            if state.is_empty() || state.contains(") Z ") {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn a_program_has_its_input_and_gives_its_output_its_errors_and_its_end() {
        let (ended, output) = shell("read word; echo $word; echo no >&2; exit 3", Duration::from_secs(60));
        let ended = ended.ok().unwrap();
        assert_eq!(
            (ended.status.code(), &*ended.error, &*output),
            (Some(3), "no\n", &b"in\n"[..])
        );
    }

    #[test]
    fn a_program_that_is_silent_is_ended_with_its_children() {
        // One hangs after its first bytes; one has closed its streams, and does not end.
        for script in [
            "sleep 1000 & echo $!; wait",
            "sleep 1000 & echo $!; exec >&- 2>&-; wait",
        ] {
            let (ended, output) = shell(script, SHORT);
            assert!(matches!(ended, Err(Fault::Silent)), "{script}");
            let child = String::from_utf8(output).unwrap();
            assert!(is_gone(child.trim()), "{script}: {child}");
        }
    }

    #[test]
    fn a_program_that_goes_on_writing_may_take_longer_than_its_silence() {
        let script = "for each in 1 2 3 4 5 6; do echo $each; sleep 0.1; done";
        let (ended, output) = shell(script, SHORT);
        assert!(ended.is_ok_and(|ended| ended.status.success()));
        assert_eq!(output.len(), 12);
    }

    #[test]
    fn a_program_is_ended_when_its_output_cannot_be_taken() {
        let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = run(
            Command::new("sh").args(["-c", "echo a; sleep 1000"]),
            b"",
            Duration::from_secs(60),
            &mut full,
        );
        assert!(matches!(ended, Err(Fault::Sink(error)) if error.kind() == io::ErrorKind::StorageFull));
    }
}
