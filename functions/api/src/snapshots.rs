//! The uploads of a user's flow folders and data. The URL that is answered is good for one object
//! of the caller's own, and is in no log.

use crate::{
    answers::{ok, problem},
    request::Request,
};
use ::snapshots::Store;
use contract::{
    Code, Failure, Principal, names,
    snapshot::{Address, MOST_BYTES, Offer, Place},
};
use lifecycle::access::{Action, may};
use serde_json::Value;
use shell::Fault;
use std::time::Duration;

/// The bucket for flow folders, if there is one.
pub(crate) struct Flows {
    store: Option<(Store, String)>,
}

impl Flows {
    pub(crate) fn from_environment() -> Self {
        let look = |name: &str| std::env::var(name).ok();
        let bucket = look(names::FLOWS_BUCKET).filter(|bucket| !bucket.is_empty());
        Self {
            store: Store::from_environment(look, Duration::from_secs(10)).zip(bucket),
        }
    }

    /// Whether the functions see folders where their users have them.
    pub(crate) fn are_here(&self) -> bool {
        self.store.is_none()
    }

    /// Says where what the caller offers is to be, and how to send it if it is not there.
    pub(crate) async fn place(&self, caller: &Principal, request: &Request) -> Result<Value, Fault> {
        let Some((store, bucket)) = &self.store else {
            return Ok(problem(
                404,
                Failure::new(
                    Code::HttpNoSnapshots,
                    "This service reads flow folders where they are, and takes no snapshots.",
                ),
            ));
        };
        let offer = read_offer(&request.body().unwrap_or_default()).map_err(Fault::Meaningless)?;
        if !may(caller, Action::Use, &offer.flow.workspace, &offer.flow.owner) {
            return Ok(problem(
                403,
                Failure::new(
                    Code::HttpNotYourFlow,
                    format!(
                        "{} may not send flows for {} in the workspace {}. It needs the flow's owner with the role data-scientist there.",
                        caller.name(),
                        offer.flow.owner,
                        offer.flow.workspace
                    ),
                ),
            ));
        }
        if offer.bytes > MOST_BYTES {
            return Err(Fault::Meaningless(Failure::new(
                Code::SnapshotTooLarge,
                format!(
                    "What is sent has {} MiB, and may have {}. Move out what the flow does not need, such as data and caches.",
                    offer.bytes.div_ceil(1 << 20),
                    MOST_BYTES >> 20
                ),
            )));
        }
        let address = Address {
            bucket: bucket.clone(),
            flow: offer.flow.key(),
            digest: offer.digest,
        };
        let upload = if store.has(&address).await.map_err(not_now)? {
            None
        } else {
            Some(store.upload(&address, offer.bytes).await.map_err(not_now)?)
        };
        let address = address.to_string();
        Ok(ok(200, &Place { address, upload }))
    }
}

pub(crate) fn not_now(fault: ::snapshots::Fault) -> Fault {
    Fault::outside("asking the store")(fault.into())
}

pub(crate) fn read_offer(body: &str) -> Result<Offer, Failure> {
    let not_read = |error| Failure::new(Code::HttpBadOffer, format!("This is no offer of a snapshot: {error}."));
    serde_json::from_str(body).map_err(not_read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Role;
    use expect_test::{Expect, expect};
    use serde_json::json;

    async fn check(flows: &Flows, owner: &str, body: Value, expected: Expect) {
        let caller = Principal::User {
            name: "ann".into(),
            workspace: "lab".into(),
            roles: vec![Role::DataScientist],
        };
        let request = json!({
            "rawPath": "/v1/snapshots",
            "requestContext": { "http": { "method": "POST" } },
            "body": body.to_string().replace("OWNER", owner),
        });
        let request: Request = serde_json::from_value(request).unwrap();
        let said = match flows.place(&caller, &request).await {
            Ok(answer) => {
                let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
                let failure: Failure = serde_json::from_value(body["error"].clone()).unwrap();
                format!("{}\n{failure}\n", answer["statusCode"])
            }
            Err(Fault::Meaningless(failure)) => format!("400\n{failure}\n"),
            Err(fault) => panic!("{fault}"),
        };
        expected.assert_eq(&said);
    }

    #[tokio::test]
    async fn an_offer_that_is_not_taken_says_why_and_asks_no_store() {
        let credentials = |name: &str| Some(name.to_owned());
        let flows = Flows {
            store: Store::from_environment(credentials, Duration::from_secs(1))
                .map(|store| (store, "flows".to_owned())),
        };
        let offer = |bytes: u64| {
            let flow = json!({ "workspace": "lab", "owner": "OWNER", "lineage": "/f" });
            json!({ "flow": flow, "digest": "0".repeat(64), "bytes": bytes })
        };
        check(&flows, "bob", offer(1), expect![[r#"
            403
            Http.NotYourFlow: ann may not send flows for bob in the workspace lab. It needs the flow's owner with the role data-scientist there.
        "#]]).await;
        check(&flows, "ann", offer(MOST_BYTES + 1), expect![[r#"
            400
            Snapshot.TooLarge: What is sent has 257 MiB, and may have 256. Move out what the flow does not need, such as data and caches.
        "#]]).await;
        check(
            &flows,
            "ann",
            json!({ "digest": "../../other" }),
            expect![[r#"
            400
            Http.BadOffer: This is no offer of a snapshot: a SHA-256 is 64 hex digits at line 1 column 24.
        "#]],
        )
        .await;
        check(
            &Flows { store: None },
            "ann",
            offer(1),
            expect![[r#"
            404
            Http.NoSnapshots: This service reads flow folders where they are, and takes no snapshots.
        "#]],
        )
        .await;
    }
}
