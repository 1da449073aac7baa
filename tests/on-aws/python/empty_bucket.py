"""Deletes what is in the bucket that this output of the stack names, as `aws s3 rm --recursive` does."""
import sys

import boto3

stack, output = sys.argv[1:]
outputs = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
bucket = next(found["OutputValue"] for found in outputs if found["OutputKey"] == output)
store = boto3.client("s3")
for page in store.get_paginator("list_objects_v2").paginate(Bucket=bucket):
    for found in page.get("Contents", []):
        store.delete_object(Bucket=bucket, Key=found["Key"])
