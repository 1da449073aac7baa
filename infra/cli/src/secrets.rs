//! Secrets that are asked for: at the terminal, or from standard input; never an argument.

use crate::trouble::{Trouble, USAGE};
use contract::Code;
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Read},
};

/// Asks for secrets: at the terminal one by one, else from standard input, which is one alone or
/// lines `KEY=SECRET`.
pub(crate) fn ask(keys: &[String], is_read: bool) -> Result<BTreeMap<String, String>, Box<Trouble>> {
    match keys {
        [key] if !io::stdin().is_terminal() => {
            let text = rest_of_input(is_read)?;
            let secret = text.trim();
            let secret = secret.strip_prefix(&format!("{key}=")).unwrap_or(secret);
            if secret.contains('\n') {
                return ask_in(keys, &text);
            }
            Ok([(key.clone(), secret.to_owned())].into())
        }
        _ => ask_lines(keys, is_read),
    }
}

/// The same, from lines alone.
pub(crate) fn ask_lines(keys: &[String], is_read: bool) -> Result<BTreeMap<String, String>, Box<Trouble>> {
    if !io::stdin().is_terminal() || is_read {
        return ask_in(keys, &rest_of_input(is_read)?);
    }
    let mut given = BTreeMap::new();
    for key in keys {
        let typed = rpassword::prompt_password(format!("{key}: ")).map_err(not_read)?;
        given.insert(key.clone(), typed);
    }
    Ok(given)
}

fn ask_in(keys: &[String], text: &str) -> Result<BTreeMap<String, String>, Box<Trouble>> {
    let mut given = BTreeMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // The line itself may be a secret.
        let (key, secret) = line
            .split_once('=')
            .filter(|(key, _)| keys.iter().any(|known| known == key.trim()))
            .ok_or_else(|| {
                let message = format!(
                    "Line {} of standard input does not begin with one of {}",
                    index + 1,
                    keys.join(", ")
                );
                Trouble::new(USAGE, Code::ConnectionNoSecret, message).next("give each as a line KEY=SECRET")
            })?;
        given.insert(key.trim().to_owned(), secret.trim().to_owned());
    }
    Ok(given)
}

/// Standard input; nothing if it was the document.
fn rest_of_input(is_read: bool) -> Result<String, Box<Trouble>> {
    let mut text = String::new();
    if !is_read {
        io::stdin().read_to_string(&mut text).map_err(not_read)?;
    }
    Ok(text)
}

fn not_read(error: io::Error) -> Box<Trouble> {
    Trouble::new(
        USAGE,
        Code::ConnectionNoSecret,
        format!("Standard input cannot be read: {error}"),
    )
}
