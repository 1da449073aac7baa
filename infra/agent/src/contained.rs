//! Work in a task of its own, so that a panic in it ends that work alone, and is noticed at once.

use contract::{Code, Failure};
use tokio::task::{JoinError, JoinSet};

/// Does work in a task of its own, which ends with the future that this is.
///
/// * `code`: of the failure; `what`: what ended, as the beginning of a sentence.
///
/// # Errors
///
/// The work has panicked.
pub(crate) async fn catch_panic<T: 'static>(
    code: Code,
    what: &str,
    work: impl Future<Output = T> + 'static,
) -> Result<T, Failure> {
    let mut tasks = JoinSet::new();
    tasks.spawn_local(work);
    let panic = match tasks.join_next().await {
        Some(Ok(done)) => return Ok(done),
        Some(Err(error)) => panic_message(error),
        None => "the task was never begun".to_owned(),
    };
    tracing::error!(fault = code.as_str(), cause = panic, "a task has panicked");
    Err(Failure::new(
        code,
        format!(
            "{what} by a fault of pfsession itself: {panic}. Try again, and report it, with what the session's agent has logged."
        ),
    ))
}

/// The message of a task's panic.
fn panic_message(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "the task was canceled".to_owned();
    };
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no word of why");
    flow::redact(&text.chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::rc::Rc;

    fn check<T: std::fmt::Debug + 'static>(
        code: Code,
        what: &str,
        work: impl Future<Output = T> + 'static,
        expected: Expect,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let done = tokio::task::LocalSet::new().block_on(&runtime, catch_panic(code, what, work));
        expected.assert_eq(&done.map_or_else(|failure| failure.to_string(), |done| format!("{done:?}")));
    }

    #[test]
    fn a_task_that_panics_is_a_failure_with_a_code_at_once() {
        check(
            Code::InstallCrashed,
            "The install was ended",
            async { panic!("byte index {} of https://me:word@host", 1) },
            expect![
                "Install.Crashed: The install was ended by a fault of pfsession itself: byte index 1 of https://***@host. Try again, and report it, with what the session's agent has logged."
            ],
        );
        check(
            Code::RunFailed,
            "The run was ended",
            async { std::panic::panic_any(1) },
            expect![
                "Run.Failed: The run was ended by a fault of pfsession itself: no word of why. Try again, and report it, with what the session's agent has logged."
            ],
        );
        check(Code::RunFailed, "", async { Rc::new(7) }, expect!["7"]);
    }

    #[test]
    fn work_ends_with_whoever_waits_for_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let held = Rc::new(());
        let inside = Rc::clone(&held);
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let work = catch_panic(Code::RunFailed, "", async move {
                let _held = inside;
                std::future::pending::<()>().await
            });
            let task = tokio::task::spawn_local(work);
            tokio::task::yield_now().await;
            assert_eq!(Rc::strong_count(&held), 2);
            task.abort();
            let _ = task.await;
            tokio::task::yield_now().await;
            assert_eq!(Rc::strong_count(&held), 1);
        });
    }
}
