//! The remedy of each error of an install is performed, and the error is gone.

use super::*;
use contract::Code;

/// An install that fails, what its error says to do, and the requirements that are as it says.
struct Case {
    requirements: String,
    error: Code,
    says: String,
    then: String,
}

fn case(requirements: String, error: Code, says: impl Into<String>, then: String) -> Case {
    Case {
        requirements,
        error,
        says: says.into(),
        then,
    }
}

/// A session in a plain folder.
struct Remedied {
    machine: Machine,
    folder: tempfile::TempDir,
    key: String,
}

impl Remedied {
    fn new(name: &str) -> Self {
        let it = Self {
            machine: Machine::new(&state()),
            folder: tempfile::tempdir().unwrap(),
            key: key(&unique(name)),
        };
        fs::write(it.folder.path().join("code.py"), "").unwrap();
        it.machine.launch(&it.key, 1, it.folder.path());
        it
    }

    fn install(&self, requirements: &str) -> Option<contract::Failure> {
        fs::write(self.folder.path().join("requirements.txt"), requirements).unwrap();
        self.machine
            .install(&self.key, 1, &unique("remedy"), self.folder.path())
    }

    fn perform(&self, cases: &[Case]) {
        for Case {
            requirements,
            error,
            says,
            then,
        } in cases
        {
            let failure = self
                .install(requirements)
                .unwrap_or_else(|| panic!("{requirements} was installed"));
            assert_eq!(failure.error, *error, "{requirements}: {failure}");
            assert!(
                failure.message.contains(says.as_str()),
                "{failure}\n  should say: {says}"
            );
            let failure = self.install(then);
            assert_eq!(failure, None, "{says} leads to another error: {then}");
        }
    }
}

pub(crate) fn each_remedy_of_a_requirement_that_cannot_be_had_is_tried() {
    let it = Remedied::new("remedy");
    let (index, other, refusing) = (Index::serve(), Index::serve(), Index::serve());
    index.add("alpha", "1.0", &[]);
    index.add("alpha", "2.0", &["beta"]);
    index.add("beta", "1.0", &[]);
    index.add("needs-beta-two", "1.0", &["beta>=2"]);
    index.add("needs-beta-two", "2.0", &["beta"]);
    index.add_source("raises", "2.0", &[], "raise RuntimeError('no compiler')\n");
    index.add("raises", "1.0", &[]);
    other.add("omega", "1.0", &[]);
    refusing.add("omega", "1.0", &[]);
    refusing.add("alpha", "1.0", &[]);
    refusing.lock("me:word");
    let line = index.line();
    let with = |text: &str| format!("{line}\n{text}\n");
    let (hash, wrong) = (index.hash("alpha", "1.0"), "0".repeat(64));
    let beta = index.hash("beta", "1.0");
    let hashed = format!("alpha==2.0 --hash=sha256:{}", index.hash("alpha", "2.0"));
    it.perform(&[
        case(
            with("alpah"),
            Code::InstallNoSuchPackage,
            "Correct its name in the requirements, or name the index that has it.",
            with("alpha"),
        ),
        case(
            with("omega"),
            Code::InstallNoSuchPackage,
            "name the index that has it.",
            with(&format!("--extra-index-url {}\nomega", other.url())),
        ),
        case(with("alpha==9"), Code::InstallNoSuchVersion, "Take another one in the requirements.", with("alpha==2.0")),
        case(
            with("needs-beta-two==1.0\nalpha==2.0"),
            Code::InstallConflict,
            "Change one of them, and start again.",
            with("needs-beta-two==2.0\nalpha==2.0"),
        ),
        case(
            with("raises"),
            Code::InstallBuildFailed,
            "Take a version that has a wheel",
            with("raises==1.0"),
        ),
        case(
            with(&format!("alpha==1.0 --hash=sha256:{wrong}")),
            Code::InstallHashMismatch,
            "no file of the index has a hash that this line promises. Do not trust it",
            with(&format!("alpha==1.0 --hash=sha256:{hash}")),
        ),
        case(
            with(&format!("--require-hashes\n{hashed}")),
            Code::InstallBadRequirement,
            "requirements.txt:2: --require-hashes wants a hash for each package, and beta has none. Write `beta==1.0 --hash=sha256:HASH`",
            with(&format!("--require-hashes\n{hashed}\nbeta==1.0 --hash=sha256:{beta}")),
        ),
        case(
            with(&format!("--require-hashes\nalpha==1.0 --hash=sha256:{wrong}")),
            Code::InstallHashMismatch,
            "requirements.txt:3: no file of the index has a hash that this line promises.",
            with(&format!("--require-hashes\nalpha==1.0 --hash=sha256:{hash}")),
        ),
        case(
            with("alpha --only-binary=:all:"),
            Code::InstallBadRequirement,
            "--only-binary stands in a line of its own, as `--only-binary alpha`",
            with("--only-binary alpha\nalpha"),
        ),
        case(
            with("raises==1.0 --config-settings=a=b"),
            Code::InstallBadRequirement,
            "Take it out, or take a wheel",
            with("raises==1.0"),
        ),
        case(
            with(&format!("alpha @ {}", index.wheel("alpha", "1.0").replace("http://", "http://me:word@"))),
            Code::InstallBadRequirement,
            "Name the package, and its index by --extra-index-url.",
            format!("--extra-index-url {}\nalpha==1.0\n", index.url()),
        ),
        case(
            with("--trusted-host a,b\nalpha"),
            Code::InstallBadOption,
            "takes one host, or a host and its port. Correct it, and start again.",
            with("--trusted-host a\n--trusted-host b:80\nalpha"),
        ),
        case(
            "-i http://127.0.0.1:1/simple\nalpha\n".to_owned(),
            Code::InstallIndexUnreachable,
            "See that there is a network and that the index's URL is right, and start again.",
            with("alpha"),
        ),
        case(
            format!("{}\nomega\n", refusing.line()),
            Code::InstallIndexRefused,
            format!("Correct them in the index's URL, or, if that has {{private}}, by pfsession private {}.", refusing.host()),
            format!("{}\nomega\n", refusing.line().replace("http://", "http://me:word@")),
        ),
        case(
            format!("{}\n--extra-index-url {}\nomega==1.0\nalpha==2.0\n", line, refusing.url().replace("http://", "http://me:word@")),
            Code::InstallNoSuchVersion,
            "has alpha, and not the version alpha==2.0. A package that an index before another has comes from it alone where one of them has a credential. Take another version",
            format!("{}\n--extra-index-url {}\nomega==1.0\nalpha==1.0\n", line, refusing.url().replace("http://", "http://me:word@")),
        ),
    ]);
    it.machine.remove(&it.key, 1);
}

pub(crate) fn a_lock_that_is_gone_is_made_again_by_what_its_error_says() {
    let it = Remedied::new("gone");
    let index = Index::serve();
    index.add("alpha", "1.0", &[]);
    let operation = unique("gone");
    let command = AgentCommand::Install {
        operation: operation.clone(),
        attempt: 1,
        settings: settings(it.folder.path()),
        lock: Some("0".repeat(32)),
        resolve: false,
    };
    it.machine.tell(&it.key, 1, &command);
    let failure = it.machine.ended_install(&it.key, 1, &operation).unwrap();
    assert_eq!(failure.error, Code::InstallNoSuchLock);
    assert!(
        failure
            .message
            .ends_with("Install what the requirements say: pfsession install."),
        "{failure}"
    );
    assert_eq!(it.install(&format!("{}\nalpha\n", index.line())), None);
    it.machine.remove(&it.key, 1);
}
