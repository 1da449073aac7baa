//! The agent of one session: the process outside the sandbox, which alone reaches the queues.

/// Is the agent of one session, from its specification on standard input to its end. It builds a runtime of its own: call it before
/// there is one.
///
/// # Errors
///
/// When standard input holds no specification. Final.
pub fn supervise() -> anyhow::Result<()> {
    anyhow::bail!("the agent reads its specification from standard input")
}
