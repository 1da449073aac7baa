"""Prints the names of the queues that begin with the argument, one a line."""
import sys

import boto3

for url in boto3.client("sqs").list_queues(QueueNamePrefix=sys.argv[1]).get("QueueUrls", []):
    print(url.rsplit("/", 1)[1])
