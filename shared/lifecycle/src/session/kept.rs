//! The settings that a session keeps, although a command named others.

use super::{Counts, Kind, Operation, Session, Setting, Settings};

impl Session {
    /// Its settings after the operation under way; `None` if there will be no session.
    pub(super) fn to_be(&self) -> Option<Settings> {
        if !self.phase.is_live() || self.failure.is_some() {
            return None;
        }
        match &self.current {
            Some(Operation { kind: Kind::Stop, .. }) => None,
            Some(Operation {
                kind: Kind::Reset | Kind::Update,
                wants: Some(wants),
                ..
            }) => Some(wants.over(&self.settings)),
            _ => Some(self.settings.clone()),
        }
    }

    /// The warning of a command that takes the session as it is or comes to be, and named other
    /// settings: which ones, and when an update of each counts. `None` if it has what was named.
    pub fn keeps_otherwise(&self, wants: &Settings) -> Option<String> {
        let after_it = self.next.as_ref().and_then(|next| next.wants.clone());
        let has = self.to_be().or(after_it)?;
        let is_its_image = || wants.image.value == self.image.as_ref().map(|image| image.value.clone());
        let mut kept = wants.named_otherwise(&has);
        kept.retain(|setting| *setting != Setting::Image || !is_its_image());
        if kept.is_empty() {
            return None;
        }
        let when = [
            (Counts::AtOnce, "at once"),
            (Counts::AtReset, "with the next reset"),
            (Counts::OnNewCompute, "by making the session anew"),
        ];
        let changes: Vec<String> = when
            .into_iter()
            .filter_map(|(counts, how)| {
                let of_these = kept.iter().filter(|setting| setting.counts() == counts);
                let names: Vec<&str> = of_these.map(|setting| setting.what()).collect();
                (!names.is_empty()).then(|| format!("the {} {how}", list(&names)))
            })
            .collect();
        let names: Vec<&str> = kept.iter().map(|setting| setting.what()).collect();
        Some(format!(
            "The session was there already, and keeps its {}. Update the session to have what you named: that changes {}",
            list(&names),
            changes.join(", ")
        ))
    }
}

/// `a, b and c`.
fn list(names: &[&str]) -> String {
    match names {
        [before @ .., last] if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => names.concat(),
    }
}
