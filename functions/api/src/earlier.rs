//! The files of an earlier run, for the session of a run that reads its outputs or resumes it.
//!
//! Decision: a session gets them from here, with its own key as the proof, and no role of a session
//! reads what other runs have left: what runs in a container has the role of its container, and
//! many users' sessions may have that one.

use crate::{
    answers::{ok, problem},
    proof::{self, Claim},
    request::Request,
    snapshots::not_now,
};
use aws::Aws;
use contract::stored::{EarlierWanted, GivenEarlier};
use lifecycle::{Code, Failure};
use serde_json::Value;
use shell::{Fault, Ports};

/// Says where the files of the earlier run are to be read that a session's own run names.
pub(crate) async fn give(aws: &Aws, flow: &str, request: &Request) -> Result<Value, Fault> {
    let (signed, wanted) = proof::read::<EarlierWanted>(request).map_err(Fault::Meaningless)?;
    let claim = Claim {
        flow: &wanted.flow,
        generation: wanted.generation,
        at: wanted.at,
    };
    if proof::session(aws, flow, &signed, &claim).await?.is_none() {
        return Ok(problem(403, proof::unproved()));
    }
    let own = aws.load_run(&wanted.run).await?.filter(|run| {
        let named = [&run.wish.run, &run.wish.resume_from];
        run.flow == flow && !run.status.is_final() && named.into_iter().flatten().any(|id| *id == wanted.earlier)
    });
    let Some(own) = own else {
        return Ok(problem(403, not_named(&wanted)));
    };
    let earlier = aws.load_run(&wanted.earlier).await?;
    let Some(earlier) = earlier.filter(|run| run.by == own.by && run.deleted.is_none()) else {
        return Ok(problem(404, not_stored(&wanted.earlier)));
    };
    let Some((store, place)) = aws.run_files.stored(&earlier) else {
        return Ok(problem(404, not_stored(&wanted.earlier)));
    };
    match store.read_of(&place).await {
        Ok((index, parts)) => Ok(ok(
            200,
            &GivenEarlier {
                index,
                digest: place.digest,
                parts,
            },
        )),
        Err(::snapshots::Fault::Wrong(failure)) => Ok(problem(404, failure)),
        Err(fault) => Err(not_now(fault)),
    }
}

fn not_named(wanted: &EarlierWanted) -> Failure {
    let message = format!(
        "The run {} reads no outputs of the run {}, or has ended. A session gets the files that its own run names.",
        wanted.run, wanted.earlier
    );
    Failure::new(Code::AccessDenied, message)
}

fn not_stored(run: &str) -> Failure {
    let message = format!(
        "The files of the run {run} are not in the store: its machine sent none. Run it again, and then this one."
    );
    Failure::new(Code::RunFilesGone, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_not_given_say_why() {
        let wanted = EarlierWanted {
            flow: "0f".repeat(16),
            generation: 1,
            at: 0,
            run: "eval".into(),
            earlier: "base".into(),
        };
        let all = [not_named(&wanted), not_stored("base")].map(|failure| failure.to_string());
        expect_test::expect![[r#"
            Access.Denied: The run eval reads no outputs of the run base, or has ended. A session gets the files that its own run names.
            Run.FilesGone: The files of the run base are not in the store: its machine sent none. Run it again, and then this one."#]]
        .assert_eq(&all.join("\n"));
    }
}
