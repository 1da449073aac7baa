//! The secret variables of a run, which are stored nowhere.

use crate::{
    global::Service,
    secrets::ask,
    trouble::{FAILED, Trouble, USAGE},
};
use contract::Code;
use std::{collections::BTreeMap, path::PathBuf};

/// The secret variables of a run that its agent has not read yet. They are removed if the run is
/// not accepted.
pub(super) struct SecretVariables {
    state: PathBuf,
    run: String,
    stay: bool,
}

impl SecretVariables {
    pub(super) fn leave(given: Option<Given>, run: &str) -> Result<Option<Self>, Box<Trouble>> {
        let Some((state, variables)) = given else {
            return Ok(None);
        };
        agent::connections::leave_variables(&state, run, &variables).map_err(|error| {
            let message = format!("{} cannot be written: {error}. Put that right.", state.display());
            Trouble::new(FAILED, Code::ConnectionNotStored, message)
        })?;
        Ok(Some(Self {
            state,
            run: run.to_owned(),
            stay: false,
        }))
    }

    pub(super) fn stay(mut self) {
        self.stay = true;
    }
}

impl Drop for SecretVariables {
    fn drop(&mut self) {
        if !self.stay {
            agent::connections::forget_variables(&self.state, &self.run);
        }
    }
}

/// The state folder that secret variables go through, and what they are.
pub(super) type Given = (PathBuf, BTreeMap<String, String>);

pub(super) fn secret_variables(service: &Service, names: &[String]) -> Result<Option<Given>, Box<Trouble>> {
    if names.is_empty() {
        return Ok(None);
    }
    let Ok(local) = service.local() else {
        let message =
            "A secret variable reaches sessions of this machine alone: what is sent elsewhere is stored in a queue";
        return Err(Trouble::new(USAGE, Code::RunSecretElsewhere, message)
            .next("leave out --env-secret, and have the flow read the value where it runs"));
    };
    Ok(Some((local.state, values(names)?)))
}

/// The values of a run's secret variables: the user's own, else asked for.
fn values(names: &[String]) -> Result<BTreeMap<String, String>, Box<Trouble>> {
    let own = names
        .iter()
        .filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    let mut variables: BTreeMap<String, String> = own.collect();
    let wanted: Vec<String> = names
        .iter()
        .filter(|name| !variables.contains_key(*name))
        .cloned()
        .collect();
    if !wanted.is_empty() {
        variables.extend(ask(&wanted, false)?);
    }
    let lacks = wanted
        .iter()
        .filter(|name| variables.get(*name).is_none_or(String::is_empty));
    let lacks: Vec<&str> = lacks.map(String::as_str).collect();
    if lacks.is_empty() {
        return Ok(variables);
    }
    Err(Trouble::new(
        USAGE,
        Code::RunNoSecretVariables,
        format!("The secret variable {} has no value", lacks.join(", ")),
    )
    .next("set it in your own environment, or give it on standard input: one alone, or lines NAME=SECRET"))
}
