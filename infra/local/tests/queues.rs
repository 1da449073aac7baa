//! The promises of SQS, by its own SDK.

mod common;

use aws_sdk_sqs::{
    Client,
    types::{
        DeleteMessageBatchRequestEntry, Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
        SendMessageBatchRequestEntry,
    },
};
use common::{Host, folder};
use std::time::{Duration, Instant};

/// A client, and the URL of a new queue.
async fn queue(host: &Host, name: &str, attributes: &[(QueueAttributeName, &str)]) -> (Client, String) {
    let sqs = host.sqs();
    let mut create = sqs.create_queue().queue_name(name);
    if name.ends_with(".fifo") {
        create = create.attributes(QueueAttributeName::FifoQueue, "true");
    }
    for (attribute, value) in attributes {
        create = create.attributes(attribute.clone(), *value);
    }
    let url = create.send().await.expect("created").queue_url.expect("a URL");
    (sqs, url)
}

async fn send(sqs: &Client, url: &str, body: &str, group: &str, dedup: &str) -> String {
    let send = sqs.send_message().queue_url(url).message_body(body);
    let send = if group.is_empty() {
        send
    } else {
        send.message_group_id(group).message_deduplication_id(dedup)
    };
    send.send().await.expect("sent").message_id.expect("an id")
}

async fn receive(sqs: &Client, url: &str, wait: i32) -> Vec<Message> {
    let received = sqs
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(10)
        .wait_time_seconds(wait)
        .message_system_attribute_names(MessageSystemAttributeName::All)
        .message_attribute_names("All");
    received.send().await.expect("received").messages.unwrap_or_default()
}

async fn delete(sqs: &Client, url: &str, message: &Message) {
    let receipt = message.receipt_handle().expect("a receipt");
    sqs.delete_message()
        .queue_url(url)
        .receipt_handle(receipt)
        .send()
        .await
        .expect("deleted");
}

fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().filter_map(Message::body).collect()
}

fn attribute(message: &Message, name: MessageSystemAttributeName) -> &str {
    message
        .attributes()
        .and_then(|all| all.get(&name))
        .map_or("", String::as_str)
}

#[tokio::test]
async fn a_group_keeps_its_order_and_waits_for_what_is_in_flight_while_others_go_on() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "order.fifo", &[]).await;
    for (body, group) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
        send(&sqs, &url, body, group, body).await;
    }
    let first = sqs
        .receive_message()
        .queue_url(&url)
        .max_number_of_messages(1)
        .send()
        .await
        .expect("received");
    let first = first.messages.expect("a message").remove(0);
    assert_eq!(first.body(), Some("a1"));
    assert_eq!(bodies(&receive(&sqs, &url, 0).await), ["b1"], "the group a waits");
    delete(&sqs, &url, &first).await;
    assert_eq!(bodies(&receive(&sqs, &url, 0).await), ["a2", "a3"]);
}

#[tokio::test]
async fn a_group_that_is_handed_back_comes_again_in_its_order() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "again.fifo", &[]).await;
    for body in ["1", "2", "3"] {
        send(&sqs, &url, body, "g", body).await;
    }
    for message in receive(&sqs, &url, 0).await.iter().rev() {
        let receipt = message.receipt_handle().expect("a receipt");
        sqs.change_message_visibility()
            .queue_url(&url)
            .receipt_handle(receipt)
            .visibility_timeout(0)
            .send()
            .await
            .expect("changed");
    }
    let again = receive(&sqs, &url, 0).await;
    assert_eq!(bodies(&again), ["1", "2", "3"]);
    assert_eq!(
        attribute(&again[0], MessageSystemAttributeName::ApproximateReceiveCount),
        "2"
    );
}

#[tokio::test]
async fn the_same_deduplication_id_is_one_message_also_when_that_is_gone() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "once.fifo", &[]).await;
    let first = send(&sqs, &url, "x", "g", "id").await;
    assert_eq!(send(&sqs, &url, "x", "g", "id").await, first);
    let received = receive(&sqs, &url, 0).await;
    assert_eq!(received.len(), 1);
    delete(&sqs, &url, &received[0]).await;
    send(&sqs, &url, "x", "g", "id").await;
    send(&sqs, &url, "y", "g", "another").await;
    assert_eq!(bodies(&receive(&sqs, &url, 0).await), ["y"]);
}

#[tokio::test]
async fn a_message_that_is_not_deleted_comes_again_and_an_older_receipt_deletes_nothing() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "visible", &[(QueueAttributeName::VisibilityTimeout, "1")]).await;
    send(&sqs, &url, "x", "", "").await;
    let first = receive(&sqs, &url, 0).await;
    assert!(receive(&sqs, &url, 0).await.is_empty(), "it is invisible");
    let second = receive(&sqs, &url, 5).await;
    assert_eq!(bodies(&second), ["x"]);
    delete(&sqs, &url, &first[0]).await;
    let third = receive(&sqs, &url, 5).await;
    assert_eq!(bodies(&third), ["x"], "the first receipt is no longer good");
    delete(&sqs, &url, &third[0]).await;
    assert!(receive(&sqs, &url, 2).await.is_empty());
}

#[tokio::test]
async fn a_waiting_consumer_has_a_message_as_it_comes() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "wait", &[]).await;
    let (consumer, of) = (sqs.clone(), url.clone());
    let waiting = tokio::spawn(async move { receive(&consumer, &of, 20).await });
    // The consumer's request is on its way or there; either way it gets the message at once and not
    // after its wait.
    tokio::task::yield_now().await;
    let begun = Instant::now();
    send(&sqs, &url, "x", "", "").await;
    assert_eq!(bodies(&waiting.await.expect("received")), ["x"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_delayed_message_comes_after_its_delay() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "delay", &[]).await;
    let begun = Instant::now();
    sqs.send_message()
        .queue_url(&url)
        .message_body("x")
        .delay_seconds(1)
        .send()
        .await
        .expect("sent");
    assert!(receive(&sqs, &url, 0).await.is_empty());
    assert_eq!(bodies(&receive(&sqs, &url, 10).await), ["x"]);
    assert!(begun.elapsed() >= Duration::from_millis(990), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_message_received_too_often_goes_to_the_dead_letter_queue_and_its_group_goes_on() {
    let folder = folder();
    let host = Host::start(&folder);
    let (_, dead) = queue(&host, "dead.fifo", &[]).await;
    let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead.fifo","maxReceiveCount":2}"#;
    let attributes = [(QueueAttributeName::RedrivePolicy, policy)];
    let (sqs, url) = queue(&host, "alive.fifo", &attributes).await;
    send(&sqs, &url, "poison", "g", "1").await;
    for _ in 0..2 {
        let message = sqs
            .receive_message()
            .queue_url(&url)
            .visibility_timeout(0)
            .send()
            .await
            .expect("received");
        assert_eq!(bodies(&message.messages.expect("a message")), ["poison"]);
    }
    send(&sqs, &url, "good", "g", "2").await;
    assert_eq!(bodies(&receive(&sqs, &url, 0).await), ["good"]);
    let buried = receive(&sqs, &dead, 5).await;
    assert_eq!(bodies(&buried), ["poison"]);
    assert_eq!(attribute(&buried[0], MessageSystemAttributeName::MessageGroupId), "g");
}

#[tokio::test]
async fn a_batch_does_what_it_can_and_says_what_it_could_not() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "batch", &[]).await;
    let entry = |id: &str, body: &str| {
        SendMessageBatchRequestEntry::builder()
            .id(id)
            .message_body(body)
            .build()
            .expect("an entry")
    };
    let sent = sqs
        .send_message_batch()
        .queue_url(&url)
        .entries(entry("a", "1"))
        .entries(entry("b", ""))
        .send()
        .await
        .expect("sent");
    assert_eq!((sent.successful().len(), sent.failed().len()), (1, 1));
    assert_eq!(sent.failed()[0].id(), "b");
    let twice = sqs
        .send_message_batch()
        .queue_url(&url)
        .entries(entry("a", "1"))
        .entries(entry("a", "2"))
        .send()
        .await;
    assert!(
        twice
            .expect_err("twice")
            .into_service_error()
            .is_batch_entry_ids_not_distinct()
    );
    let received = receive(&sqs, &url, 0).await;
    let entry = |id: &str, receipt: &str| {
        DeleteMessageBatchRequestEntry::builder()
            .id(id)
            .receipt_handle(receipt)
            .build()
            .expect("an entry")
    };
    let deleted = sqs
        .delete_message_batch()
        .queue_url(&url)
        .entries(entry("a", received[0].receipt_handle().expect("a receipt")))
        .entries(entry("b", "nonsense"))
        .send()
        .await
        .expect("deleted");
    assert_eq!((deleted.successful()[0].id(), deleted.failed()[0].id()), ("a", "b"));
}

#[tokio::test]
async fn a_message_says_who_sent_it_and_carries_its_attributes() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "who", &[]).await;
    let value = MessageAttributeValue::builder()
        .data_type("String")
        .string_value("red")
        .build()
        .expect("a value");
    sqs.send_message()
        .queue_url(&url)
        .message_body("x")
        .message_attributes("colour", value)
        .send()
        .await
        .expect("sent");
    let received = receive(&sqs, &url, 0).await;
    assert_eq!(attribute(&received[0], MessageSystemAttributeName::SenderId), "ann");
    let colour = received[0]
        .message_attributes()
        .and_then(|all| all.get("colour"))
        .and_then(|value| value.string_value());
    assert_eq!(colour, Some("red"));
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_the_name_that_the_sdk_knows() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "limits.fifo", &[]).await;
    let nowhere = sqs
        .send_message()
        .queue_url(host.queue_url("nowhere"))
        .message_body("x")
        .send()
        .await;
    assert!(
        nowhere
            .expect_err("no queue")
            .into_service_error()
            .is_queue_does_not_exist()
    );
    let without_group = sqs.send_message().queue_url(&url).message_body("x").send().await;
    assert_eq!(
        without_group.expect_err("no group").into_service_error().meta().code(),
        Some("MissingParameter")
    );
    let large = sqs
        .send_message()
        .queue_url(&url)
        .message_body("x".repeat((1 << 20) + 1))
        .message_group_id("g");
    let large = large.message_deduplication_id("d").send().await;
    assert_eq!(
        large.expect_err("too large").into_service_error().meta().code(),
        Some("InvalidParameterValue")
    );
    let changed = sqs
        .change_message_visibility()
        .queue_url(&url)
        .receipt_handle("nonsense")
        .visibility_timeout(1)
        .send()
        .await;
    assert!(
        changed
            .expect_err("no receipt")
            .into_service_error()
            .is_receipt_handle_is_invalid()
    );
    sqs.delete_queue().queue_url(&url).send().await.expect("deleted");
    let gone = sqs.get_queue_attributes().queue_url(&url).send().await;
    assert!(gone.expect_err("gone").into_service_error().is_queue_does_not_exist());
}

#[tokio::test]
async fn a_purged_queue_is_empty_and_its_counts_say_so() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "counts", &[]).await;
    send(&sqs, &url, "1", "", "").await;
    sqs.receive_message().queue_url(&url).send().await.expect("received");
    send(&sqs, &url, "2", "", "").await;
    let counts = || async {
        let all = sqs
            .get_queue_attributes()
            .queue_url(&url)
            .attribute_names(QueueAttributeName::All)
            .send()
            .await
            .expect("attributes");
        let all = all.attributes.expect("attributes");
        let number = |name| all.get(&name).cloned().unwrap_or_default();
        (
            number(QueueAttributeName::ApproximateNumberOfMessages),
            number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        )
    };
    assert_eq!(counts().await, ("1".into(), "1".into()));
    sqs.purge_queue().queue_url(&url).send().await.expect("purged");
    assert_eq!(counts().await, ("0".into(), "0".into()));
}

#[tokio::test]
async fn messages_and_what_was_seen_outlive_kill_9() {
    let folder = folder();
    let host = Host::start(&folder);
    let (sqs, url) = queue(&host, "kept.fifo", &[]).await;
    for n in 0..50 {
        send(&sqs, &url, &n.to_string(), "g", &n.to_string()).await;
    }
    host.kill();
    let host = Host::start(&folder);
    let (sqs, url) = (host.sqs(), host.queue_url("kept.fifo"));
    send(&sqs, &url, "49", "g", "49").await;
    let mut all = Vec::new();
    loop {
        let received = receive(&sqs, &url, 0).await;
        if received.is_empty() {
            break;
        }
        for message in &received {
            all.push(message.body().expect("a body").parse::<u32>().expect("a number"));
            delete(&sqs, &url, message).await;
        }
    }
    assert_eq!(all, (0..50).collect::<Vec<_>>());
}
