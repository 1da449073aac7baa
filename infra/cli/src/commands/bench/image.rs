//! Starts of a session on an image, beside those on the base image that is built in.

use super::{
    figures::{Figure, times},
    measure::{Bench, say, starting, time},
};
use crate::{trouble::Trouble, wish::Flow};
use contract::command::{Wanted, Wish};
use lifecycle::count;

impl Bench<'_> {
    /// Starts from an image that is unpacked. The floor is a start from the image that is built in,
    /// in turn with it.
    pub(super) fn on_image(&self, image: &str) -> Result<Figure, Box<Trouble>> {
        let on_image = || Wish::Start {
            settings: Wanted {
                image: Some(image.to_owned()),
                ..Wanted::default()
            },
        };
        let (flow, beside) = (self.flow("on-image")?, self.flow("built-in")?);
        let start = |flow: &Flow, wish: Wish| {
            let took = time(|| self.operate(flow, "start", wish))?;
            self.operate(flow, "stop", Wish::Stop)?;
            Ok::<_, Box<Trouble>>(took)
        };
        say("the first start on the image, which pulls it and builds on it");
        start(&flow, on_image())?;
        start(&beside, starting())?;
        say(&format!(
            "{} of starts on the image and beside it",
            count(self.rounds, "round")
        ));
        let (mut ours, mut built_in) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            built_in.push(start(&beside, starting())?);
            ours.push(start(&flow, on_image())?);
        }
        Ok(Figure {
            ours: times("start a session from an image that is unpacked, to Ready".into(), &ours),
            floor: Some(times("from the image that is built in".into(), &built_in)),
            plain: None,
        })
    }
}
