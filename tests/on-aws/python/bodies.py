"""Prints the bodies of the messages in a queue, as a list in JSON, and leaves them there."""
import json
import sys

import boto3

sqs = boto3.client("sqs")
queue = sqs.get_queue_url(QueueName=sys.argv[1])["QueueUrl"]
bodies = []
while True:
    got = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=1).get("Messages", [])
    new = [message["Body"] for message in got if message["Body"] not in bodies]
    if not new:
        break
    bodies += new
print(json.dumps(bodies))
