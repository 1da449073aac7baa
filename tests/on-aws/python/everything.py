"""Prints all rows of all tables, all messages of all queues, and all lines of all log groups; and
the names of secrets, last."""
import boto3

dynamodb, sqs, logs = (boto3.client(name) for name in ["dynamodb", "sqs", "logs"])
for table in dynamodb.list_tables()["TableNames"]:
    for page in dynamodb.get_paginator("scan").paginate(TableName=table):
        for item in page["Items"]:
            print(item)
for queue in sqs.list_queues().get("QueueUrls", []):
    try:
        received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
    except sqs.exceptions.QueueDoesNotExist:
        continue  # a session's queue: the session ended after the queues were listed
    for message in received.get("Messages", []):
        print(message["Body"])
for group in logs.describe_log_groups()["logGroups"]:
    for stream in logs.describe_log_streams(logGroupName=group["logGroupName"])["logStreams"]:
        events = logs.get_log_events(logGroupName=group["logGroupName"], logStreamName=stream["logStreamName"])
        for event in events["events"]:
            print(event["message"])
secrets = boto3.client("secretsmanager").get_paginator("list_secrets")
for page in secrets.paginate():
    for secret in page["SecretList"]:
        print("secret", secret["Name"])
