//! Reading what a user wrote beside all else that a process does: on a thread that may block or
//! panic, and for so long at most.

use lifecycle::{Code, Failure};
use std::{path::Path, time::Duration};

/// Reads something of a flow folder.
///
/// * `most`: how long it may take; a disk that is elsewhere may never answer.
///
/// # Errors
///
/// Those of `read`. Final: `Flow.ReadFailed`, if it panics. Worth another try: `Flow.ReadTimeout`.
pub async fn aside<T: Send + 'static>(
    folder: &Path,
    most: Duration,
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let folder = folder.display();
    match tokio::time::timeout(most, tokio::task::spawn_blocking(read)).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) => Err(Failure::new(
            Code::FlowReadFailed,
            format!(
                "A fault of pfsession itself ended the reading of {folder}. Report it, with the folder's flow file and requirements; \
                 until it is mended, change what was changed last in them."
            ),
        )),
        Err(_) => Err(Failure::new(
            Code::FlowReadTimeout,
            format!(
                "{folder} could not be read within {} s. See that its disk answers, and try again.",
                most.as_secs()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::sync::mpsc::channel;

    async fn check(read: impl FnOnce() -> Result<(), Failure> + Send + 'static, expected: Expect) {
        let failure = aside(Path::new("/flow"), Duration::from_secs(1), read)
            .await
            .unwrap_err();
        expected.assert_eq(&failure.to_string());
    }

    #[tokio::test]
    async fn what_cannot_be_read_in_time_or_without_a_panic_is_a_failure() {
        check(
            || panic!("on purpose"),
            expect![
                "Flow.ReadFailed: A fault of pfsession itself ended the reading of /flow. Report it, with the folder's flow file and requirements; until it is mended, change what was changed last in them."
            ],
        )
        .await;
        let (end, ended) = channel::<()>();
        check(
            move || {
                let _ = ended.recv();
                Ok(())
            },
            expect!["Flow.ReadTimeout: /flow could not be read within 1 s. See that its disk answers, and try again."],
        )
        .await;
        drop(end);
    }
}
