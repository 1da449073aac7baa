"""Sends messages to a FIFO queue as any SQS producer does: from standard input, a line each of
[body, group, deduplication id] in JSON."""
import json
import sys

import boto3

sqs = boto3.client("sqs")
queue = sqs.get_queue_url(QueueName=sys.argv[1])["QueueUrl"]
for line in sys.stdin:
    body, group, name = json.loads(line)
    sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=name)
