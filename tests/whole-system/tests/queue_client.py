"""Sends the released samples of commands to the host, as any SQS producer does, with boto3 as it
comes from PyPI."""
import json
import os
import pathlib
import sys
import time

import boto3

samples, flow, user, what = pathlib.Path(sys.argv[1]), *sys.argv[2:5]
queue = os.environ["PFSESSION_COMMANDS_URL"]
sqs = boto3.client("sqs")


def send(body, group, name):
    sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=name)


def sample(name, identity):
    command = json.loads((samples / f"{name}.json").read_text())
    command["id"] = identity
    command["flow"]["lineage"] = flow
    command["flow"]["owner"] = user
    for of_another_machine in ("folder", "image", "identity", "size"):
        command.get("settings", {}).pop(of_another_machine, None)
    command.pop("principal", None)
    return json.dumps(command)


# Poison first, into the very group that the good ones use.
send("this is no command", "one", f"poison-1-{what}")
send(json.dumps({"id": "a/b", "command": what}), "one", f"poison-2-{what}")
for _ in range(2):  # The same wish twice is once.
    send(sample(what, f"boto-{what}"), "one", f"boto-{what}")

dead = sqs.get_queue_url(QueueName="commands-dead.fifo")["QueueUrl"]
bodies = set()
until = time.time() + 60
while len(bodies) < 2 and time.time() < until:
    got = sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10, WaitTimeSeconds=5)
    for message in got.get("Messages", []):
        bodies.add(message["Body"])
        sqs.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])
assert len(bodies) == 2, bodies
while True:
    counts = sqs.get_queue_attributes(
        QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    )["Attributes"]
    if all(int(n) == 0 for n in counts.values()):
        break
    assert time.time() < until, counts
    time.sleep(0.05)
print("sent")
