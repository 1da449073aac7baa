//! A workspace's rules for webhooks, read and written whole.

use crate::{
    answers::{ok, problem},
    request::Request,
};
use aws::Aws;
use contract::{
    Principal, names,
    route::encode_part,
    webhook::{MOST_RULES, MOST_RULES_BYTES, Rule, Webhooks, WebhooksRow},
};
use lifecycle::{
    Code, Failure,
    access::{Action, denied, may},
};
use serde_json::Value;
use shell::{Fault, Ports, action_of};
use std::collections::BTreeSet;

pub(crate) async fn read(aws: &Aws, caller: &Principal, workspace: &str) -> Result<Value, Fault> {
    if let Some(refused) = refuse(caller, workspace) {
        return Ok(refused);
    }
    let row = aws.load_webhooks(workspace).await?;
    let (revision, rules) = row.map_or((0, Vec::new()), |row| (row.revision, row.rules));
    Ok(ok(200, &answer(workspace, revision, rules)))
}

pub(crate) async fn write(aws: &Aws, caller: &Principal, workspace: &str, request: &Request) -> Result<Value, Fault> {
    if let Some(refused) = refuse(caller, workspace) {
        return Ok(refused);
    }
    let wanted = match read_rules(&request.body().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(failure) => return Ok(problem(400, failure)),
    };
    let stored = aws.load_webhooks(workspace).await?;
    let changed = || {
        let message = format!("The rules of {workspace} were changed meanwhile. Read them again, and change those.");
        problem(409, Failure::new(Code::WebhookChanged, message))
    };
    if stored.as_ref().map_or(0, |row| row.revision) != wanted.revision {
        return Ok(changed());
    }
    let rules = match check_rules(
        caller,
        workspace,
        &stored.map(|row| row.rules).unwrap_or_default(),
        wanted.rules,
    ) {
        Ok(rules) => rules,
        Err(failure) => {
            let status = if failure.error == Code::AccessDenied { 403 } else { 400 };
            return Ok(problem(status, failure));
        }
    };
    let row = WebhooksRow {
        workspace: workspace.to_owned(),
        revision: wanted.revision + 1,
        rules,
    };
    match aws.save_webhooks(&row).await {
        Ok(()) => Ok(ok(200, &answer(workspace, row.revision, row.rules))),
        Err(Fault::Conflict) => Ok(changed()),
        Err(fault) => Err(fault),
    }
}

fn refuse(caller: &Principal, workspace: &str) -> Option<Value> {
    // The rules are the workspace's, and no owner of a flow is asked.
    if may(caller, Action::SetRules, workspace, "") {
        return None;
    }
    Some(problem(403, denied(caller, Action::SetRules, workspace, "")))
}

fn answer(workspace: &str, revision: u64, rules: Vec<Rule>) -> Webhooks {
    let base = std::env::var(names::WEBHOOK_ADDRESS).ok();
    Webhooks {
        revision,
        rules,
        address: base.map(|base| format!("{base}webhook/{}/", encode_part(workspace))),
    }
}

pub(crate) fn read_rules(body: &str) -> Result<Webhooks, Failure> {
    let not_read = |cause| Failure::new(Code::WebhookMalformed, format!("These are no rules: {cause}."));
    serde_json::from_str(body).map_err(not_read)
}

/// Whether these rules may be set by `caller`: each that is new or other than before is theirs from
/// now on, and may do nothing that they may not.
///
/// # Errors
///
/// `Webhook.Malformed`, `Access.Denied`: final for these rules.
pub(crate) fn check_rules(
    caller: &Principal,
    workspace: &str,
    before: &[Rule],
    wanted: Vec<Rule>,
) -> Result<Vec<Rule>, Failure> {
    let malformed = |why: String| Err(Failure::new(Code::WebhookMalformed, why));
    let bytes = serde_json::to_string(&wanted).map_or(usize::MAX, |text| text.len());
    if wanted.len() > MOST_RULES || bytes > MOST_RULES_BYTES {
        return malformed(format!(
            "A workspace has at most {MOST_RULES} rules, of {MOST_RULES_BYTES} bytes together. Remove some first."
        ));
    }
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    for mut rule in wanted {
        let name = rule.name.clone();
        if !names.insert(name.clone()) {
            return malformed(format!("Two rules are called {name}. Name one otherwise."));
        }
        if rule.flow.workspace != workspace {
            return malformed(format!(
                "The rule {name} is about a flow of the workspace {}. Set it there.",
                rule.flow.workspace
            ));
        }
        if rule.event.is_empty() {
            return malformed(format!("The rule {name} names no event."));
        }
        let kept = before.iter().find(|kept| kept.name == name).filter(|kept| {
            rule.by = rule.by.take().or(kept.by.clone());
            **kept == rule
        });
        if let Some(kept) = kept {
            rules.push(kept.clone());
            continue;
        }
        if !may(caller, action_of(&rule.wish), workspace, &rule.flow.owner) {
            return Err(Failure::new(
                Code::AccessDenied,
                format!(
                    "The rule {name} would do what {} may not do with the session of {} in the workspace {workspace}. A rule does what its maker may: its flow is the maker's own, with the role data-scientist, or it stops.",
                    caller.name(),
                    rule.flow.owner
                ),
            ));
        }
        rule.by = Some(caller.clone());
        rules.push(rule);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Role;
    use serde_json::json;

    fn user(name: &str, roles: &[Role]) -> Principal {
        Principal::User {
            name: name.into(),
            workspace: "ws".into(),
            roles: roles.to_vec(),
        }
    }

    fn rule(name: &str, owner: &str, command: &str) -> Rule {
        serde_json::from_value(json!({
            "name": name, "sender": "github", "kind": "github", "event": "push",
            "flow": { "workspace": "ws", "owner": owner, "lineage": "/flows/joke" }, "command": command,
        }))
        .unwrap()
    }

    #[test]
    fn a_new_rule_is_its_makers_and_one_that_stays_as_it_was_keeps_its_own() {
        let (alice, bob) = (
            user("alice", &[Role::Owner, Role::DataScientist]),
            user("bob", &[Role::Owner, Role::DataScientist]),
        );
        let alices = check_rules(&alice, "ws", &[], vec![rule("a", "alice", "install")]).unwrap();
        assert_eq!(alices[0].by, Some(alice.clone()));
        // Bob adds one of his own, and sends Alice's along as he read it, or without her name.
        for sent in [alices[0].clone(), rule("a", "alice", "install")] {
            let both = check_rules(&bob, "ws", &alices, vec![sent, rule("b", "bob", "install")]).unwrap();
            assert_eq!(
                both.iter().map(|r| r.by.clone().unwrap()).collect::<Vec<_>>(),
                [alice.clone(), bob.clone()]
            );
        }
        // What he changes of hers, or says to be hers, is held against what he may do himself.
        let mut changed = alices[0].clone();
        changed.event = "release".into();
        assert_eq!(
            check_rules(&bob, "ws", &alices, vec![changed]).unwrap_err().error,
            Code::AccessDenied
        );
        let mut forged = rule("c", "alice", "install");
        forged.by = Some(alice.clone());
        assert_eq!(
            check_rules(&bob, "ws", &alices, vec![forged]).unwrap_err().error,
            Code::AccessDenied
        );
    }

    #[test]
    fn a_rule_does_what_its_maker_may_do_and_nothing_else() {
        let owner = user("bob", &[Role::Owner]);
        for (rule, is_allowed) in [
            (rule("a", "alice", "stop"), true),
            (rule("a", "alice", "install"), false),
            (rule("a", "bob", "install"), false),
        ] {
            let made = check_rules(&owner, "ws", &[], vec![rule.clone()]);
            assert_eq!(made.is_ok(), is_allowed, "{rule:?}: {made:?}");
        }
        let sweep: Rule = {
            let mut as_json = serde_json::to_value(rule("a", "bob", "stop")).unwrap();
            as_json["command"] = "check".into();
            serde_json::from_value(as_json).unwrap()
        };
        assert_eq!(
            check_rules(&owner, "ws", &[], vec![sweep]).unwrap_err().error,
            Code::AccessDenied
        );
    }

    #[test]
    fn rules_of_one_name_of_another_workspace_or_too_many_are_refused() {
        let bob = user("bob", &[Role::Owner, Role::DataScientist]);
        let many = (0..=MOST_RULES)
            .map(|n| rule(&format!("r{n}"), "bob", "stop"))
            .collect();
        let mut elsewhere = rule("a", "bob", "stop");
        elsewhere.flow.workspace = "other".into();
        for wrong in [many, vec![rule("a", "bob", "stop"); 2], vec![elsewhere]] {
            assert_eq!(
                check_rules(&bob, "ws", &[], wrong).unwrap_err().error,
                Code::WebhookMalformed
            );
        }
    }

    #[test]
    fn only_the_role_owner_sees_and_sets_rules() {
        assert!(refuse(&user("bob", &[Role::DataScientist]), "ws").is_some());
        assert!(refuse(&user("bob", &[Role::Owner]), "other").is_some());
        assert!(refuse(&user("bob", &[Role::Owner]), "ws").is_none());
    }

    #[test]
    fn a_workspace_of_any_name_has_an_address() {
        assert_eq!(encode_part("my team/α"), "my%20team%2F%CE%B1");
    }

    #[test]
    fn what_is_refused_says_what_to_do() {
        let bob = user("bob", &[Role::Owner]);
        let mut elsewhere = rule("a", "bob", "stop");
        elsewhere.flow.workspace = "other".into();
        let many = (0..=MOST_RULES)
            .map(|n| rule(&format!("r{n}"), "bob", "stop"))
            .collect();
        let texts = [
            vec![rule("a", "alice", "install")],
            vec![rule("a", "bob", "stop"); 2],
            vec![elsewhere],
            many,
        ]
        .map(|wanted| check_rules(&bob, "ws", &[], wanted).unwrap_err().to_string());
        expect_test::expect![[r#"
            Access.Denied: The rule a would do what bob may not do with the session of alice in the workspace ws. A rule does what its maker may: its flow is the maker's own, with the role data-scientist, or it stops.
            Webhook.Malformed: Two rules are called a. Name one otherwise.
            Webhook.Malformed: The rule a is about a flow of the workspace other. Set it there.
            Webhook.Malformed: A workspace has at most 100 rules, of 200000 bytes together. Remove some first."#]].assert_eq(&texts.join("\n"));
    }
}
