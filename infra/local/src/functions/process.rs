//! The program of a function, from its start to its end.

use super::{Pool, Process, lock};
use crate::sqs::REGION;
use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

impl Pool {
    pub(super) fn run_to_its_end(&self, process: &Process) -> io::Result<String> {
        let plan = &self.plan;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&plan.log)?;
        let mut command = Command::new(&plan.program);
        command.args(&plan.arguments).env_clear().envs(&plan.environment);
        for name in ["PATH", "HOME", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("AWS_REGION", REGION)
            .env(
                "AWS_LAMBDA_RUNTIME_API",
                format!(
                    "http://{}/fn/{}/{}",
                    plan.runtime_api.0.local_addr()?,
                    plan.name,
                    process.secret
                ),
            )
            .env("AWS_LAMBDA_FUNCTION_NAME", &plan.name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", plan.name))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", &process.secret[..8])
            .current_dir("/")
            .stdin(OwnedFd::from(plan.runtime_api.0.try_clone()?))
            .stdout(log.try_clone()?)
            .stderr(log);
        sandbox::descriptors::keep_only(&mut command, &[]);
        end_with_the_host(&mut command);
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).unwrap_or(-1);
        *lock(&process.pid) = Some(pid);
        if lock(&self.state).closed {
            process.kill();
        }
        wait_unreaped(child.id());
        *lock(&process.pid) = None;
        child.wait().map(|status| status.to_string())
    }
}

/// The program that is a function: its own binary in `folder`, or this program under the function's
/// name.
pub(crate) fn program_of(name: &str, folder: Option<&Path>, executable: &Path) -> (PathBuf, Vec<String>) {
    match folder.map(|folder| folder.join(name)).filter(|binary| binary.is_file()) {
        Some(binary) => (binary, Vec::new()),
        None => (executable.to_owned(), vec!["function".to_owned(), name.to_owned()]),
    }
}

/// Has the kernel end the program with this process.
pub(super) fn end_with_the_host(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: two system calls that are safe between fork and exec; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The host may have ended before that.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
}

/// Waits for the end of a child, and leaves its process id taken until nobody can send a signal to
/// it any more.
pub(super) fn wait_unreaped(child: u32) {
    // SAFETY: `info` is written by the system call alone, and is not read.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        while libc::waitid(libc::P_PID, child, &raw mut info, libc::WEXITED | libc::WNOWAIT) == -1
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}
