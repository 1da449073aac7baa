//! Sessions, operations, runs and histories, as a person sees them.

mod events;
mod operations;
mod runs;
mod sessions;
mod webhooks;
mod why;

pub(crate) use crate::{
    table::{render, table},
    text::at,
};
pub(crate) use events::events;
pub(crate) use operations::operation;
pub(crate) use runs::{details, node, run, run_status, runs};
pub(crate) use sessions::{deleted_soon, list, session, stale};
pub(crate) use webhooks::{rule, rules};
pub(crate) use why::why;

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{http::SessionView, row::LogRow};
    use expect_test::{Expect, expect};
    use serde_json::{Value, from_value, json};

    /// Lines end where their text does.
    fn check(rendered: &str, expected: Expect) {
        let lines: Vec<_> = rendered.lines().map(str::trim_end).collect();
        expected.assert_eq(&(lines.join("\n") + "\n"));
    }

    fn view(key: &str, folder: &str, changed: Value) -> SessionView {
        let mut view = json!({
            "key": key, "flow": { "workspace": "local", "owner": "ann", "lineage": folder }, "phase": "ready", "since": 900_000, "generation": 2, "revision": 7,
            "settings": { "folder": folder, "size": "Standard_D2", "identity": null, "image": null, "idle": 3_600_000 },
            "compute": "c-1", "current": null, "next": null, "runs": [], "last_activity": 955_000, "idle_due": 4_555_000, "failure": null,
            "now": 1_000_000,
        });
        view.as_object_mut()
            .unwrap()
            .extend(changed.as_object().unwrap().clone());
        from_value(view).unwrap()
    }

    #[test]
    fn a_list_has_a_line_for_each_session() {
        let ready = view(
            "3f9a2c1b00000000",
            "/home/ann/flows/echo",
            json!({ "runs": ["r1", "r2"] }),
        );
        let changed = json!({
            "phase": "installing", "current": { "id": "i", "kind": "install" }, "next": { "id": "s", "kind": "reset" }, "idle_due": null,
        });
        let installing = view("aa00bb1122334455", "/srv/long/path/of/a/flow", changed);
        check(
            &list(&[ready, installing], Some("/home/ann"), false),
            expect![[r#"
            KEY       FLOW                      PHASE       DOING                RUNS  LAST USED   DELETED
            3f9a2c1b  ~/flows/echo              ready                            2     45.0 s ago  in 59 min 15 s
            aa00bb11  /srv/long/path/of/a/flow  installing  install, then reset  0     45.0 s ago
        "#]],
        );
    }

    #[test]
    fn a_session_that_failed_says_why_and_where_the_whole_output_is() {
        let failure = json!({ "error": "Install.NoSuchPackage", "message": "There is no package nope. Correct line 2 of requirements.txt." });
        let changed =
            json!({ "phase": "failed", "compute": null, "idle_due": null, "failure": failure, "runs": ["r1", "r2"] });
        check(
            &session(
                &view("3f9a2c1b00000000", "/home/ann/echo", changed),
                Some("/home/ann"),
                Vec::new(),
            ),
            expect![[r#"
                flow          ~/echo
                owner         ann in workspace local
                key           3f9a2c1b00000000
                phase         failed
                generation    2
                VM size       Standard_D2: 2 processors, 7 GiB (the default)
                identity      the user's own (the default)
                base image    as the flow's file says, or the default
                idle time     1 h (the default)
                network       the internet (the default)
                runs          r1
                              r2
                last used     45.0 s ago
                failure       There is no package nope. Correct line 2 of requirements.txt. [Install.NoSuchPackage]
                whole output  pfsession logs 3f9a2c1b
            "#]],
        );
        check(
            &session(&view("3f9a2c1b00000000", "/home/ann/echo", json!({})), None, Vec::new()),
            expect![[r#"
                flow        /home/ann/echo
                owner       ann in workspace local
                key         3f9a2c1b00000000
                phase       ready
                generation  2
                VM size     Standard_D2: 2 processors, 7 GiB (the default)
                identity    the user's own (the default)
                base image  as the flow's file says, or the default
                idle time   1 h (the default)
                network     the internet (the default)
                compute     c-1
                last used   45.0 s ago
                deleted     in 59 min 15 s (at 1970-01-01T01:15:55.000Z), if nobody uses it before
            "#]],
        );
    }

    #[test]
    fn a_session_on_an_instance_says_both_clocks_and_which_comes_first() {
        let settings = json!({
            "folder": "/home/ann/echo", "size": "local", "identity": null, "image": null, "idle": 3_600_000, "compute": "dev",
            "origins": { "size": "command", "identity": "command", "compute": "command" },
        });
        let view = view(
            "3f9a2c1b00000000",
            "/home/ann/echo",
            json!({ "settings": settings, "instance_due": 2_755_000 }),
        );
        let told = json!({
            "session": view, "because": null, "began": null, "last": null, "kept_by": [], "signals": [],
            "ends": [{ "kind": "instance-idle", "at": 2_755_000 }, { "kind": "idle", "at": 4_555_000, "warned": false, "warning": null }],
        });
        let told = why(&from_value(told).unwrap(), Some("/home/ann"));
        let lines = session(&view, Some("/home/ann"), Vec::new());
        let both = |text: &str| {
            let wanted = |line: &&str| {
                ["instance", "deleted", "ends"]
                    .iter()
                    .any(|name| line.starts_with(name))
            };
            text.lines()
                .filter(wanted)
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .join("\n")
        };
        expect![[r#"
            instance    dev (named by a command)
            deleted     in 59 min 15 s (at 1970-01-01T01:15:55.000Z), if nobody uses it before
            deleted     in 29 min 15 s (at 1970-01-01T00:45:55.000Z), with its compute instance, if nobody uses that before; this comes first
            ends   deleted in 29 min 15 s (at 1970-01-01T00:45:55.000Z) with its compute instance dev if nobody uses that: its idle shutdown
            ends   deleted in 59 min 15 s (at 1970-01-01T01:15:55.000Z) if nobody uses it: unused for 1 h then"#]].assert_eq(&format!("{}\n{}", both(&lines), both(&told)));
    }

    #[test]
    fn why_says_what_keeps_a_session_and_what_will_end_it() {
        let row = |by: &str, from: &str, to: &str, at: u64, event: Value| json!({ "revision": 1, "at": at, "by": by, "from": from, "to": to, "event": event });
        let installed =
            json!({ "event": "installed", "generation": 1, "operation": "s", "attempt": 1, "warning": null });
        let run = json!({ "event": "run-wanted", "run": "r1", "wants": { "folder": "/f", "size": "s", "identity": null, "image": null, "idle": 60_000 } });
        let session =
            serde_json::to_value(view("3f9a2c1b00000000", "/home/ann/echo", json!({ "warned": true }))).unwrap();
        let told = json!({
            "session": session,
            "because": row("agent", "installing", "ready", 900_000, installed),
            "began": row("ann", "stopped", "provisioning", 890_000, run.clone()),
            "last": row("ann", "ready", "ready", 950_000, run),
            "kept_by": [{ "kind": "run", "id": "r1", "until": 1_045_000 }],
            "ends": [{ "kind": "idle", "at": 4_555_000, "warned": true, "warning": null }, { "kind": "agent-silent", "at": 1_060_000 }],
            "signals": [{ "kind": "run-done", "times": 3, "at": 940_000 }, { "kind": "agent-alive", "times": 1, "at": 990_000 }],
        });
        check(
            &why(&from_value(told).unwrap(), Some("/home/ann")),
            expect![[r#"
            flow           ~/echo
            phase          ready, since 1970-01-01T00:15:00.000Z (1 min 40 s ago)
            because        1970-01-01T00:15:00.000Z: packages installed, by agent
            begun by       1970-01-01T00:14:50.000Z: run wanted (r1), by ann
            last decision  1970-01-01T00:15:50.000Z: run wanted (r1), by ann
            kept by        run r1, whose lease ends in 45.0 s (at 1970-01-01T00:17:25.000Z) if its agent is not heard
            ends           deleted in 59 min 15 s (at 1970-01-01T01:15:55.000Z) if nobody uses it: unused for 1 h then; you were warned; keep it: pfsession extend 3f9a2c1b
            ends           failed in 1 min (at 1970-01-01T00:17:40.000Z) if its agent is not heard before; it speaks every few seconds
            seen           run ended 1 min ago, 3 times
            seen           agent heard 10.0 s ago
        "#]],
        );
        let failure = json!({ "error": "A.B", "message": "It broke." });
        let session = serde_json::to_value(view(
            "3f9a2c1b00000000",
            "/home/ann/my echo",
            json!({ "phase": "failed", "failure": failure }),
        ))
        .unwrap();
        let told = json!({ "session": session, "because": null, "began": null, "last": null, "kept_by": [], "ends": [], "signals": [] });
        check(
            &why(&from_value(told).unwrap(), Some("/home/ann")),
            expect![[r#"
            flow     ~/my echo
            phase    failed, since 1970-01-01T00:15:00.000Z (1 min 40 s ago)
            failure  It broke. [A.B]
            ends     there is no session now; start one: pfsession start '~/my echo'
        "#]],
        );
    }

    #[test]
    fn a_session_of_a_size_says_what_that_is_and_one_with_a_stale_image_which_a_reset_takes() {
        let view = view(
            "3f9a2c1b00000000",
            "/home/ann/echo",
            json!({
                "settings": {
                    "folder": "/home/ann/echo", "size": "Standard_B2s", "identity": null, "image": null, "idle": 600_000,
                    "network": "none", "allow_hosts": ["10.1.0.0/16", "*.example.org:443"],
                    "origins": { "size": "run-file", "idle": "command", "network": "command", "allow_hosts": "command" },
                },
                "image": { "name": "promptflow", "origin": "default" },
                "stale_image": { "name": "promptflow:3.12", "origin": "flow-file" },
                "idle_due": 1_150_000, "warned": true,
                "refused": {
                    "total": 7, "others": 4, "by": [
                        { "to": "169.254.169.254:80", "why": "link-local", "times": 1 },
                        { "to": "db.example.org:5432 (10.0.0.7)", "why": "private", "times": 2 },
                    ],
                },
            }),
        );
        check(
            &session(&view, Some("/home/ann"), Vec::new()),
            expect![[r#"
            flow         ~/echo
            owner        ann in workspace local
            key          3f9a2c1b00000000
            phase        ready
            generation   2
            VM size      Standard_B2s: 2 processors, 4 GiB; below series D (from run.yml)
            identity     the user's own (the default)
            base image   promptflow (the default)
            idle time    10 min (named by a command)
            network      none (named by a command)
                         and 10.1.0.0/16, *.example.org:443 (named by a command)
            refused      db.example.org:5432 (10.0.0.7), private: 2 times
                         169.254.169.254:80, link-local: once
                         others: 4 times
                         allow one: pfsession update 3f9a2c1b --allow-host HOST
            stale image  promptflow:3.12 (from the flow's file), from the next reset on
            compute      c-1
            last used    45.0 s ago
            deleted      in 2 min 30 s (at 1970-01-01T00:19:10.000Z), if nobody uses it before
            warning      deleted soon; keep it: pfsession extend 3f9a2c1b
        "#]],
        );
        expect!["The session of ~/echo is deleted in 2 min 30 s (at 1970-01-01T00:19:10.000Z) if nobody uses it. Keep it: pfsession extend 3f9a2c1b"].assert_eq(&deleted_soon(&view, Some("/home/ann")).unwrap());
        expect!["The session's base image is promptflow, and the flow's file names promptflow:3.12 by now. To use that one: pfsession reset 3f9a2c1b"].assert_eq(&stale(&view).unwrap());
    }

    #[test]
    fn an_operation_and_a_run_show_how_they_went() {
        let row = json!({
            "id": "start-1", "flow": "3f9a2c1b", "kind": "start", "by": "ann", "accepted": 1_790_000_000_000_u64, "status": "succeeded",
            "ended": 1_790_000_012_345_u64, "warning": "package six is pinned twice",
        });
        check(
            &operation(&from_value(row).unwrap()),
            expect![[r#"
            operation     start-1
            kind          start
            session       3f9a2c1b
            status        succeeded
            wanted by     ann
            accepted      2026-09-21T14:13:20.000Z
            ended         2026-09-21T14:13:32.345Z (after 12.3 s)
            warning       package six is pinned twice
            whole output  pfsession logs start-1
        "#]],
        );
        let row = json!({
            "id": "echo-1", "flow": "3f9a2c1b", "by": "ann", "wish": { "data": "/home/ann/data.jsonl" }, "accepted": 1_790_000_000_000_u64,
            "status": "Completed", "started": 1_790_000_000_020_u64, "ended": 1_790_000_000_062_u64,
            "result": { "lines": 3, "failed_lines": 1, "folder": "/home/ann/runs/echo-1" },
        });
        check(
            &run(&from_value(row).unwrap(), Some("/home/ann")),
            expect![[r#"
            run        echo-1
            session    3f9a2c1b
            status     completed
            wanted by  ann
            accepted   2026-09-21T14:13:20.000Z
            started    2026-09-21T14:13:20.020Z (after 20 ms)
            ended      2026-09-21T14:13:20.062Z (after 42 ms)
            data       ~/data.jsonl
            lines      3, of which 1 failed
            output     ~/runs/echo-1
            log        pfsession logs echo-1
        "#]],
        );
    }

    #[test]
    fn a_history_tells_a_life() {
        let settings = json!({ "folder": "/f", "size": "s", "identity": null, "image": null, "idle": 60_000 });
        let failure = json!({ "error": "A.B", "message": "It broke." });
        let life = [
            (
                "ann",
                "stopped",
                "provisioning",
                0,
                json!({ "event": "run-wanted", "run": "r1", "wants": settings }),
            ),
            (
                "machine",
                "provisioning",
                "provisioning",
                4,
                json!({ "event": "step-entered", "operation": "start-for-r1", "step": "claim-compute", "token": "t", "compute": null, "cause": null }),
            ),
            (
                "driver",
                "provisioning",
                "launching",
                9,
                json!({ "event": "compute-up", "compute": "c-1" }),
            ),
            (
                "driver",
                "launching",
                "installing",
                31,
                json!({ "event": "session-up", "generation": 1, "key": "k" }),
            ),
            (
                "agent",
                "installing",
                "ready",
                7031,
                json!({ "event": "installed", "generation": 1, "operation": "start-for-r1", "attempt": 1, "warning": null }),
            ),
            (
                "agent",
                "ready",
                "ready",
                7101,
                json!({ "event": "run-done", "generation": 1, "run": "r1", "outcome": "failed", "failure": failure }),
            ),
            (
                "sweep",
                "ready",
                "stopping",
                67_101,
                json!({ "event": "idle-seen", "operation": "idle-1", "generation": 1, "activity": 1 }),
            ),
            (
                "driver",
                "stopping",
                "stopped",
                67_111,
                json!({ "event": "session-gone", "generation": 1, "failure": null }),
            ),
        ];
        let rows: Vec<LogRow> = (1..)
            .zip(life)
            .map(|(revision, (by, from, to, at, event))| {
                let at = 1_790_000_000_000_u64 + at;
                from_value(json!({ "revision": revision, "at": at, "by": by, "from": from, "to": to, "generation": 1, "event": event })).unwrap()
            })
            .collect();
        check(
            &events(&rows),
            expect![[r#"
                TIME                      AFTER  PHASE                     GENERATION  BY       WHAT
                2026-09-21T14:13:20.000Z         stopped → provisioning    1           ann      run wanted (r1)
                2026-09-21T14:13:20.004Z  4 ms   provisioning              1           machine  step claim-compute began
                2026-09-21T14:13:20.009Z  5 ms   provisioning → launching  1           driver   compute c-1 is up
                2026-09-21T14:13:20.031Z  22 ms  launching → installing    1           driver   container is up
                2026-09-21T14:13:27.031Z  7.0 s  installing → ready        1           agent    packages installed
                2026-09-21T14:13:27.101Z  70 ms  ready                     1           agent    run r1 failed: A.B: It broke.
                2026-09-21T14:14:27.101Z  1 min  ready → stopping          1           sweep    idle for too long, so stop wanted (idle-1)
                2026-09-21T14:14:27.111Z  10 ms  stopping → stopped        1           driver   container is gone
            "#]],
        );
    }
}
